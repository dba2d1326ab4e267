#ifndef SHMRPC_TESTS_CONFORMANCE_SYNC_H_
#define SHMRPC_TESTS_CONFORMANCE_SYNC_H_

// What threads of a test wait for. ThreadSanitizer cannot see that a request in shared memory happens before its
// handler, so everything that handlers and tests share is guarded by shmrpc::Mutex.

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::conformance {

// The longest that a test waits for something that must happen "soon". Only a guard against hanging: on a loaded
// machine, under a sanitizer, everything takes far longer than users would accept.
inline constexpr absl::Duration kHangGuard = absl::Seconds(60);

// A number that only grows, and that threads can wait for. Thread-safe.
class Counter {
 public:
  Counter() = default;
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;

  void Increment() {
    MutexLock lock(&mutex_);
    ++value_;
    changed_.SignalAll();
  }

  int value() const {
    MutexLock lock(&mutex_);
    return value_;
  }

  // True when the number reached `value` in time.
  bool WaitFor(int value, absl::Duration timeout = kHangGuard) const {
    const SteadyTime deadline = SteadyTime::Now() + timeout;
    MutexLock lock(&mutex_);
    while (value_ < value) {
      if (changed_.WaitUntil(&mutex_, deadline)) break;
    }
    return value_ >= value;
  }

 private:
  mutable Mutex mutex_;
  mutable CondVar changed_;
  int value_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Something that happens once. Thread-safe.
class Event {
 public:
  void Set() { counter_.Increment(); }
  bool IsSet() const { return counter_.value() > 0; }
  bool Wait(absl::Duration timeout = kHangGuard) const { return counter_.WaitFor(1, timeout); }

 private:
  Counter counter_;
};

// Asks `condition` again and again until it holds or `timeout` passed. For conditions that nothing signals.
template <typename Condition>
bool Eventually(const Condition& condition, absl::Duration timeout = kHangGuard) {
  const SteadyTime deadline = SteadyTime::Now() + timeout;
  while (!condition()) {
    if (SteadyTime::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_SYNC_H_
