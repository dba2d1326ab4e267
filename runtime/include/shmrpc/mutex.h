#ifndef SHMRPC_MUTEX_H_
#define SHMRPC_MUTEX_H_

// A mutex and a condition variable of POSIX threads, annotated for Clang's thread-safety analysis.
//
// Not absl::Mutex: distributions build Abseil with its deadlock detection, which takes a lock of the whole process and
// keeps a graph at each acquisition. That alone was a third of what a call cost. (It can be switched off, but only for
// the whole program, and the program is not ours.) Besides, ThreadSanitizer knows these and not an Abseil that was
// built without it.

#include <pthread.h>
#include <time.h>

#include <algorithm>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace shmrpc {

// Not recursive. A thread that does not get it at once looks again for a moment before it sleeps, because what it
// guards here takes less time than a wake-up.
class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  ~Mutex() { pthread_mutex_destroy(&mutex_); }
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { pthread_mutex_lock(&mutex_); }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) { return pthread_mutex_trylock(&mutex_) == 0; }
  void Unlock() ABSL_UNLOCK_FUNCTION() { pthread_mutex_unlock(&mutex_); }

 private:
  friend class CondVar;
  pthread_mutex_t mutex_ = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
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
  ~CondVar() { pthread_cond_destroy(&condition_); }
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex* mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { pthread_cond_wait(&condition_, &mutex->mutex_); }

  // Returns true when the deadline passed. Like every condition variable it may return early for no reason. What is
  // left until the deadline is taken from the system's clock when the wait begins; setting that clock meanwhile makes
  // the wait neither longer nor shorter.
  bool WaitWithDeadline(Mutex* mutex, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (deadline == absl::InfiniteFuture()) {
      Wait(mutex);
      return false;
    }
    constexpr absl::Duration kLongest = absl::Hours(24 * 365);
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return true;
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const timespec end = absl::ToTimespec(absl::DurationFromTimespec(now) + std::min(left, kLongest));
    // After the longest wait the caller looks again.
    return pthread_cond_clockwait(&condition_, &mutex->mutex_, CLOCK_MONOTONIC, &end) != 0 && left < kLongest;
  }

  void Signal() { pthread_cond_signal(&condition_); }
  void SignalAll() { pthread_cond_broadcast(&condition_); }

 private:
  pthread_cond_t condition_ = PTHREAD_COND_INITIALIZER;
};

}  // namespace shmrpc

#endif  // SHMRPC_MUTEX_H_
