#include "failing_threads.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include <atomic>

#include "tests/sanitizers.h"

namespace {
std::atomic<int> until_failure{0};  // 0: none is to come
std::atomic<int> failures_left{0};
}  // namespace

#if !SHMRPC_TSAN && !SHMRPC_ASAN
// In the place of the C library's, for all that this program is made of.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*main)(void*),
                              void* argument) {
  if (until_failure.load() > 1) {
    until_failure.fetch_sub(1);
  } else if (until_failure.load() == 1 && failures_left.fetch_sub(1) > 0) {
    return EAGAIN;
  }
  static const auto real = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  return real(thread, attributes, main, argument);
}
#endif

namespace shmrpc::conformance {

void FailThreads(int first, int count) {
  failures_left.store(count);
  until_failure.store(first);
}

}  // namespace shmrpc::conformance
