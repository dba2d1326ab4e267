#include "runtime/src/callback_threads.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "runtime/src/deadline_timer.h"
#include "runtime/src/fork.h"
#include "runtime/src/log.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {
namespace {

constexpr absl::Duration kIdleTime = absl::Seconds(10);
constexpr absl::Duration kPatienceAtLimit = absl::Seconds(1);

constinit PerProcess<CallbackThreads> process_threads;

}  // namespace

constinit thread_local int NoUserCodeHere::depth = 0;

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

bool CallbackThreads::StartThread() {
  absl::StatusOr<Thread> thread = internal::StartThread("shmrpc-callback", [this] { Serve(); });
  if (thread.ok()) {
    thread->detach();
    return true;
  }
  {
    MutexLock lock(&mutex_);
    --threads_;
    ScheduleCheck();  // which tries again
  }
  static LogLimiter limiter;
  LogWarningLimited(limiter, absl::StrCat("callbacks are late: ", thread.status().message()));
  return false;
}

void CallbackThreads::ScheduleCheck() {
  if (check_scheduled_) return;
  check_scheduled_ = true;
  taken_before_check_ = taken_;
  const absl::Duration patience = threads_ < kMaxThreads ? kPatience : kPatienceAtLimit;
  DeadlineTimer::Get().Schedule(SteadyTime::Now() + patience, [this] { CheckProgress(); });
}

void CallbackThreads::CheckProgress() {
  int more = 0;
  {
    MutexLock lock(&mutex_);
    check_scheduled_ = false;
    if (callbacks_.empty()) return;
    const bool stuck = taken_ == taken_before_check_ && idle_ == 0;
    ScheduleCheck();
    if (!stuck) return;
    more = std::min({std::max(threads_, 1), static_cast<int>(callbacks_.size()), kMaxThreads - threads_});
    threads_ += more;
  }
  if (more == 0) {
    static LogLimiter limiter;
    LogWarningLimited(limiter, absl::StrCat(kMaxThreads,
                                            " callbacks of asynchronous calls block, as many as may at the "
                                            "same time; others wait for them to return"));
  }
  for (; more > 0; --more) {
    if (StartThread()) continue;
    MutexLock lock(&mutex_);
    threads_ -= more - 1;
    return;
  }
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
