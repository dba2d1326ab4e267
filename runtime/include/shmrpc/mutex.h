#ifndef SHMRPC_MUTEX_H_
#define SHMRPC_MUTEX_H_

// A mutex and a condition variable, with annotations for Clang's analysis of locks.
//
// Not absl::Mutex, for three reasons. Debian builds Abseil with its deadlock detection, which takes a lock of the whole
// process and keeps a graph at each acquisition: that alone was a third of what a call cost. (It can be switched off,
// but only for the whole program, which is not the library's to decide.) Its condition variables wait by the system's
// clock, even for a duration: when that clock is stepped they wake early or late. And ThreadSanitizer does not know an
// Abseil that was built without it.
//
// Nor a POSIX mutex: its kinds and its bookkeeping of owners make a lock and an unlock two calls of functions and fifty
// instructions, where two are enough. A call takes a dozen locks, all of them free nearly always.

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "absl/base/optimization.h"
#include "absl/base/thread_annotations.h"
#include "shmrpc/steady_time.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace shmrpc {

// Not recursive. A thread that does not get it at once looks again for a moment before it sleeps, because what is
// guarded here takes less time than a wake-up.
//
// One word, which is 0 while nobody has the mutex.
//  1. Whoever changes it from 0 has the mutex until it sets it to 0.
//  2. It is kContended whenever a thread sleeps, or is about to: a thread sleeps only while it is, which the kernel
//     checks (a futex), and having slept it takes the mutex as kContended, because others may still sleep.
//  3. Who sets it to 0 and finds that it was kContended wakes one sleeper.
// Taking it is an acquire, and setting it to 0 a release. Unlock does not touch the object once another thread can have
// the mutex, so that thread may destroy it: the wake-up goes to an address, and a vain one does no harm.
class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
#if defined(__SANITIZE_THREAD__)
  ~Mutex() { __tsan_mutex_destroy(this, 0); }
#endif
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    TellSanitizer(Step::kLocking);
    if (ABSL_PREDICT_FALSE(!TryTake())) WaitAndTake();
    TellSanitizer(Step::kLocked);
  }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    TellSanitizer(Step::kTrying);
    const bool taken = TryTake();
    TellSanitizer(taken ? Step::kTaken : Step::kNotTaken);
    return taken;
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    TellSanitizer(Step::kUnlocking);
    if (ABSL_PREDICT_FALSE(word_.exchange(0, std::memory_order_release) == kContended)) WakeOne(&word_);
    TellSanitizer(Step::kUnlocked);
  }

 private:
  static constexpr uint32_t kHeld = 1;
  static constexpr uint32_t kContended = 2;

  bool TryTake() {
    uint32_t free = 0;
    return word_.compare_exchange_strong(free, kHeld, std::memory_order_acquire, std::memory_order_relaxed);
  }
  void WaitAndTake();
  static void WakeOne(std::atomic<uint32_t>* word);

  // So that ThreadSanitizer sees a mutex, and the order in which several are taken, rather than a word.
  enum class Step { kLocking, kLocked, kTrying, kTaken, kNotTaken, kUnlocking, kUnlocked };
#if defined(__SANITIZE_THREAD__)
  void TellSanitizer(Step step);
#else
  void TellSanitizer(Step) {}
#endif

  std::atomic<uint32_t> word_{0};
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

// Stands on POSIX, with a mutex of its own, which is held from before the user's is released until the thread sleeps:
// a signal that comes in between waits for that, and is not lost.
class CondVar {
 public:
  CondVar() = default;
  ~CondVar() {
    pthread_cond_destroy(&condition_);
    pthread_mutex_destroy(&sleeping_);
  }
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  // Like every condition variable these may return early for no reason.
  void Wait(Mutex* mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { WaitUntil(mutex, SteadyTime::InfiniteFuture()); }
  // Returns true when the deadline passed.
  bool WaitUntil(Mutex* mutex, SteadyTime deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  void Signal();
  void SignalAll();

 private:
  pthread_mutex_t sleeping_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition_ = PTHREAD_COND_INITIALIZER;
};

}  // namespace shmrpc

#endif  // SHMRPC_MUTEX_H_
