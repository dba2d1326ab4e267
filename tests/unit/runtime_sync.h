#ifndef SHMRPC_TESTS_UNIT_RUNTIME_SYNC_H_
#define SHMRPC_TESTS_UNIT_RUNTIME_SYNC_H_

// How the tests of the runtime wait for another thread.

#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/stub.h"

namespace shmrpc::testing {

// Long enough that only a hang reaches it.
inline constexpr absl::Duration kHang = absl::Seconds(60);

// Set once by one thread, waited for by others. (absl::Notification is invisible to ThreadSanitizer.)
class Event {
 public:
  void Set() {
    MutexLock lock(&mutex_);
    set_ = true;
    changed_.SignalAll();
  }
  bool IsSet() {
    MutexLock lock(&mutex_);
    return set_;
  }
  // False when that took implausibly long.
  bool Wait() {
    const SteadyTime deadline = SteadyTime::Now() + kHang;
    MutexLock lock(&mutex_);
    while (!set_) {
      if (changed_.WaitUntil(&mutex_, deadline)) return set_;
    }
    return true;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool set_ = false;
};

// The status of an asynchronous call, and how often it came.
class Outcome {
 public:
  StatusCallback Callback() {
    return [this](absl::Status status) { Set(std::move(status)); };
  }
  void Set(absl::Status status) {
    {
      MutexLock lock(&mutex_);
      ++count_;
      status_ = std::move(status);
    }
    set_.Set();
  }
  absl::Status Wait() {
    if (!set_.Wait()) return absl::UnknownError("the callback was never called");
    MutexLock lock(&mutex_);
    return status_;
  }
  bool IsSet() { return set_.IsSet(); }
  int count() {
    MutexLock lock(&mutex_);
    return count_;
  }

 private:
  Event set_;
  Mutex mutex_;
  int count_ = 0;
  absl::Status status_;
};

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTS_UNIT_RUNTIME_SYNC_H_
