#include "shmrpc/mutex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/src/spin_pause.h"

namespace shmrpc {
namespace {

// About a microsecond.
constexpr int kLooksBeforeSleep = 100;

void Futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
  // Whatever the result: who waits looks again.
  (void)syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr,
                0);
}

}  // namespace

void Mutex::WaitAndTake() {
  for (int i = 0; i < kLooksBeforeSleep; ++i) {
    internal::SpinPause();
    if (word_.load(std::memory_order_relaxed) == 0 && TryTake()) return;
  }
  while (word_.exchange(kContended, std::memory_order_acquire) != 0) Futex(&word_, FUTEX_WAIT, kContended);
}

void Mutex::WakeOne(std::atomic<uint32_t>* word) { Futex(word, FUTEX_WAKE, 1); }

#if defined(__SANITIZE_THREAD__)
void Mutex::TellSanitizer(Step step) {
  switch (step) {
    case Step::kLocking:
      return __tsan_mutex_pre_lock(this, 0);
    case Step::kLocked:
      return __tsan_mutex_post_lock(this, 0, 0);
    case Step::kTrying:
      return __tsan_mutex_pre_lock(this, __tsan_mutex_try_lock);
    case Step::kTaken:
      return __tsan_mutex_post_lock(this, __tsan_mutex_try_lock, 0);
    case Step::kNotTaken:
      return __tsan_mutex_post_lock(this, __tsan_mutex_try_lock | __tsan_mutex_try_lock_failed, 0);
    case Step::kUnlocking:
      __tsan_mutex_pre_unlock(this, 0);
      return;
    case Step::kUnlocked:
      return __tsan_mutex_post_unlock(this, 0);
  }
}
#endif

bool CondVar::WaitUntil(Mutex* mutex, SteadyTime deadline) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  // Also when the thread is cancelled in its sleep.
  struct WakeUp {
    ~WakeUp() {
      pthread_mutex_unlock(sleeping);
      mutex->Lock();
    }
    pthread_mutex_t* const sleeping;
    Mutex* const mutex;
  };
  pthread_mutex_lock(&sleeping_);
  mutex->Unlock();
  const WakeUp wake_up{&sleeping_, mutex};
  if (deadline == SteadyTime::InfiniteFuture()) {
    pthread_cond_wait(&condition_, &sleeping_);
    return false;
  }
  const timespec end = deadline.ToTimespec();
  return pthread_cond_clockwait(&condition_, &sleeping_, CLOCK_MONOTONIC, &end) != 0;
}

void CondVar::Signal() {
  pthread_mutex_lock(&sleeping_);
  pthread_cond_signal(&condition_);
  pthread_mutex_unlock(&sleeping_);
}

void CondVar::SignalAll() {
  pthread_mutex_lock(&sleeping_);
  pthread_cond_broadcast(&condition_);
  pthread_mutex_unlock(&sleeping_);
}

}  // namespace shmrpc
