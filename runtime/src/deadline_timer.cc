#include "runtime/src/deadline_timer.h"

#include <atomic>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/fork.h"
#include "runtime/src/log.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {
namespace {

constinit PerProcess<DeadlineTimer> process_timer;

// Over all timers, so that an id of the parent process means nothing in a fork()ed child.
constinit std::atomic<uint64_t> next_id{1};

// The timer whose thread this is.
constinit thread_local DeadlineTimer* timer_of_this_thread = nullptr;

}  // namespace

DeadlineTimer& DeadlineTimer::Get() { return process_timer.Get(); }

absl::Status DeadlineTimer::Start() {
  MutexLock lock(&mutex_);
  return StartThreadIfNeeded();
}

DeadlineTimer::Handle DeadlineTimer::Schedule(SteadyTime when, absl::AnyInvocable<void()> callback) {
  if (when == SteadyTime::InfiniteFuture()) return Handle();
  const Handle handle = {when, next_id.fetch_add(1, std::memory_order_relaxed)};
  MutexLock lock(&mutex_);
  timers_.emplace(handle, std::move(callback));
  if (const absl::Status status = StartThreadIfNeeded(); !status.ok()) {
    // The next timer tries again, and so does the next connection. Until then deadlines pass unnoticed.
    static LogLimiter limiter;
    LogWarningLimited(limiter, absl::StrCat("deadlines of asynchronous calls are late: ", status.message()));
  }
  if (when < sleeping_until_) {
    sleeping_until_ = SteadyTime::InfinitePast();  // one signal is enough
    earlier_.Signal();
  }
  return handle;
}

bool DeadlineTimer::Cancel(Handle handle) {
  if (handle.id == 0) return false;
  absl::AnyInvocable<void()> cancelled;  // destroyed after the lock is released: that may run anything
  MutexLock lock(&mutex_);
  const auto found = timers_.find(handle);
  if (found != timers_.end()) {
    cancelled = std::move(found->second);
    timers_.erase(found);
    return true;
  }
  if (timer_of_this_thread == this) return false;
  while (running_ == handle.id) {
    ++cancels_waiting_;
    callback_over_.Wait(&mutex_);
    --cancels_waiting_;
  }
  return false;
}

absl::Status DeadlineTimer::StartThreadIfNeeded() {
  if (thread_started_) return absl::OkStatus();
  absl::StatusOr<Thread> thread = StartThread("shmrpc-timer", [this] { Run(); });
  if (!thread.ok()) return thread.status();
  thread->detach();
  thread_started_ = true;
  return absl::OkStatus();
}

void DeadlineTimer::Run() {
  timer_of_this_thread = this;
  const NoUserCodeHere all_timers_wait_for_this_thread;
  mutex_.Lock();
  for (;;) {
    const SteadyTime due = timers_.empty() ? SteadyTime::InfiniteFuture() : timers_.begin()->first.when;
    if (due > SteadyTime::Now()) {
      sleeping_until_ = due;
      earlier_.WaitUntil(&mutex_, due);
      sleeping_until_ = SteadyTime::InfinitePast();
      continue;
    }
    running_ = timers_.begin()->first.id;
    absl::AnyInvocable<void()> callback = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    mutex_.Unlock();
    callback();
    callback = nullptr;
    mutex_.Lock();
    running_ = 0;
    if (cancels_waiting_ > 0) callback_over_.SignalAll();
  }
}

}  // namespace shmrpc::internal
