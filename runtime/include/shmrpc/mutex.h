#ifndef SHMRPC_MUTEX_H_
#define SHMRPC_MUTEX_H_

// std::mutex and std::condition_variable, with annotations for Clang's analysis of locks.
//
// Not absl::Mutex, for two reasons. Its condition variables wait by the system's clock, even for a duration: when that
// clock is stepped they wake early or late. And Debian's libabsl_synchronization.so is not built with ThreadSanitizer,
// which therefore would take everything that is guarded by it for a race.

#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {

class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) { return mutex_.try_lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex* mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { WaitUntil(mutex, SteadyTime::InfiniteFuture()); }

  // Returns true when the deadline passed. Like every condition variable it may return early for no reason.
  bool WaitUntil(Mutex* mutex, SteadyTime deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    bool expired = false;
    if (deadline == SteadyTime::InfiniteFuture()) {
      condition_.wait(lock);
    } else {
      expired = condition_.wait_until(lock, deadline.ToChrono()) == std::cv_status::timeout;
    }
    lock.release();  // the caller goes on holding it
    return expired;
  }

  void Signal() { condition_.notify_one(); }
  void SignalAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace shmrpc

#endif  // SHMRPC_MUTEX_H_
