#include "transports/framed/wake_event.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "runtime/src/fork.h"
#include "shmrpc/mutex.h"

namespace shmrpc::framed {
namespace {

// The unused ones: nobody has written to them.
class Pool {
 public:
  Pool() { unused_.reserve(kKept); }

  UniqueFd Take() {
    {
      MutexLock lock(&mutex_);
      if (!unused_.empty()) {
        UniqueFd taken = std::move(unused_.back());
        unused_.pop_back();
        return taken;
      }
    }
    return UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }

  // Closes it, with the lock released, when there are enough.
  void Return(UniqueFd returned) {
    MutexLock lock(&mutex_);
    if (unused_.size() < kKept) unused_.push_back(std::move(returned));
  }

 private:
  static constexpr size_t kKept = 4;

  Mutex mutex_;
  std::vector<UniqueFd> unused_ ABSL_GUARDED_BY(mutex_);
};

constinit internal::PerProcess<Pool> pool;

}  // namespace

WakeEvent::WakeEvent() : fd_(pool.Get().Take()) {}

WakeEvent::~WakeEvent() {
  if (!fd_.valid()) return;
  uint64_t ignored;
  (void)!read(fd_.get(), &ignored, sizeof ignored);
  pool.Get().Return(std::move(fd_));
}

void WakeEvent::Signal(int fd) {
  const uint64_t one = 1;
  (void)!write(fd, &one, sizeof one);
}

}  // namespace shmrpc::framed
