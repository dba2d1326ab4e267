#ifndef SHMRPC_MUTEX_H_
#define SHMRPC_MUTEX_H_

// absl::Mutex and absl::CondVar, made visible to ThreadSanitizer.
//
// Debian's libabsl_synchronization.so is not built with TSan, so TSan sees neither the atomics nor the futex calls in
// it and would report every guarded access as a race. In TSan builds these wrappers tell TSan about each acquisition
// and release; in all other builds they are absl::Mutex and nothing else.

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#if defined(__SANITIZE_THREAD__)
#define SHMRPC_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHMRPC_TSAN 1
#endif
#endif
#ifndef SHMRPC_TSAN
#define SHMRPC_TSAN 0
#endif

#if SHMRPC_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace shmrpc {

class ABSL_LOCKABLE Mutex {
 public:
#if SHMRPC_TSAN
  Mutex() { __tsan_mutex_create(this, 0); }
  ~Mutex() { __tsan_mutex_destroy(this, 0); }
#else
  Mutex() = default;
#endif
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
#if SHMRPC_TSAN
    __tsan_mutex_pre_lock(this, 0);
#endif
    mutex_.Lock();
#if SHMRPC_TSAN
    __tsan_mutex_post_lock(this, 0, 0);
#endif
  }

  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
#if SHMRPC_TSAN
    __tsan_mutex_pre_lock(this, __tsan_mutex_try_lock);
#endif
    const bool locked = mutex_.TryLock();
#if SHMRPC_TSAN
    __tsan_mutex_post_lock(this, __tsan_mutex_try_lock | (locked ? 0 : __tsan_mutex_try_lock_failed), 0);
#endif
    return locked;
  }

  void Unlock() ABSL_UNLOCK_FUNCTION() {
#if SHMRPC_TSAN
    __tsan_mutex_pre_unlock(this, 0);
#endif
    mutex_.Unlock();
#if SHMRPC_TSAN
    __tsan_mutex_post_unlock(this, 0);
#endif
  }

 private:
  friend class CondVar;
  absl::Mutex mutex_;
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

  void Wait(Mutex* mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { WaitWithDeadline(mutex, absl::InfiniteFuture()); }

  // Returns true when the deadline passed. Like every condition variable it may return early for no reason.
  bool WaitWithDeadline(Mutex* mutex, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
#if SHMRPC_TSAN
    __tsan_mutex_pre_unlock(mutex, 0);
    __tsan_mutex_post_unlock(mutex, 0);
#endif
    const bool expired = condition_.WaitWithDeadline(&mutex->mutex_, deadline);
#if SHMRPC_TSAN
    __tsan_mutex_pre_lock(mutex, 0);
    __tsan_mutex_post_lock(mutex, 0, 0);
#endif
    return expired;
  }

  void Signal() { condition_.Signal(); }
  void SignalAll() { condition_.SignalAll(); }

 private:
  absl::CondVar condition_;
};

}  // namespace shmrpc

#endif  // SHMRPC_MUTEX_H_
