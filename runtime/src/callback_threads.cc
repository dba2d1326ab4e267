#include "runtime/src/callback_threads.h"

#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/src/deadline_timer.h"
#include "runtime/src/fork.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {
namespace {

constexpr absl::Duration kIdleTime = absl::Seconds(10);

constinit PerProcess<CallbackThreads> process_threads;

}  // namespace

CallbackThreads& CallbackThreads::Get() { return process_threads.Get(); }

void CallbackThreads::Run(absl::AnyInvocable<void()> callback) {
  {
    MutexLock lock(&mutex_);
    callbacks_.push_back(std::move(callback));
    if (threads_ > 0) {
      if (idle_ > 0) added_.Signal();
      return ScheduleCheck();
    }
    ++threads_;
  }
  StartThread();
}

// Counted in threads_ already. Without a thread to be had, and with no other, callbacks run here.
void CallbackThreads::StartThread() {
  absl::StatusOr<std::thread> thread = internal::StartThread("shmrpc-callback", [this] { Serve(); });
  if (thread.ok()) return thread->detach();
  absl::AnyInvocable<void()> callback;
  {
    MutexLock lock(&mutex_);
    --threads_;
    if (threads_ > 0 || callbacks_.empty()) return;
    callback = std::move(callbacks_.front());
    callbacks_.pop_front();
  }
  callback();
}

void CallbackThreads::ScheduleCheck() {
  if (check_scheduled_ || threads_ == kMaxThreads) return;
  check_scheduled_ = true;
  taken_before_check_ = taken_;
  DeadlineTimer::Get().Schedule(SteadyTime::Now() + kPatience, [this] { CheckProgress(); });
}

void CallbackThreads::CheckProgress() {
  {
    MutexLock lock(&mutex_);
    check_scheduled_ = false;
    if (callbacks_.empty()) return;
    const bool stuck = taken_ == taken_before_check_ && idle_ == 0;
    ScheduleCheck();
    if (!stuck || threads_ == kMaxThreads) return;
    ++threads_;
  }
  StartThread();
}

void CallbackThreads::Serve() {
  mutex_.Lock();
  for (;;) {
    const SteadyTime idle_until = SteadyTime::Now() + kIdleTime;
    bool expired = false;
    ++idle_;
    while (callbacks_.empty() && !expired) expired = added_.WaitUntil(&mutex_, idle_until);
    --idle_;
    if (callbacks_.empty()) break;
    absl::AnyInvocable<void()> callback = std::move(callbacks_.front());
    callbacks_.pop_front();
    ++taken_;
    mutex_.Unlock();
    callback();
    callback = nullptr;
    mutex_.Lock();
  }
  --threads_;
  mutex_.Unlock();
}

}  // namespace shmrpc::internal
