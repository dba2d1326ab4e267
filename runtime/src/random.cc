#include "runtime/src/random.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <random>

#include "absl/base/thread_annotations.h"
#include "runtime/src/fork.h"
#include "shmrpc/mutex.h"

namespace shmrpc::internal {
namespace {

uint64_t Seed() {
  uint64_t seed;
  if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == sizeof seed) return seed;
  // Refused, or too early after the machine has started: at least not the same as in other processes.
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_nsec) << 32 ^ static_cast<uint64_t>(getpid());
}

class Generator {
 public:
  uint64_t Next() {
    MutexLock lock(&mutex_);
    return engine_();
  }

 private:
  Mutex mutex_;
  std::mt19937_64 engine_ ABSL_GUARDED_BY(mutex_){Seed()};
};

constinit PerProcess<Generator> generator;

}  // namespace

uint64_t RandomBits() { return generator.Get().Next(); }

double RandomBetween(double low, double high) {
  constexpr int kMantissaBits = 53;
  return low + (high - low) * (static_cast<double>(RandomBits() >> (64 - kMantissaBits)) / (uint64_t{1} << kMantissaBits));
}

}  // namespace shmrpc::internal
