#include "shmrpc/task.h"

#include "runtime/src/callback_threads.h"
#include "runtime/src/deadline_timer.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {

void internal::SyncWaitEvent::Set() {
  // Signalled under the lock: the waiting thread destroys this object.
  MutexLock lock(&mutex_);
  set_ = true;
  changed_.Signal();
}

void internal::SyncWaitEvent::Wait() {
  MutexLock lock(&mutex_);
  while (!set_) changed_.Wait(&mutex_);
}

namespace {

internal::DetachedCoroutine RunDetached(Task<void> task) { co_await task; }

}  // namespace

void Spawn(Task<void> task) { RunDetached(std::move(task)); }

void Sleep::await_suspend(std::coroutine_handle<> waiting) const {
  internal::DeadlineTimer::Get().Schedule(SteadyTime::Now() + duration_, [waiting] {
    internal::CallbackThreads::Get().Run([waiting] { waiting.resume(); });
  });
}

}  // namespace shmrpc
