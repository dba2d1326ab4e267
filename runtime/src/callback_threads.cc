#include "runtime/src/callback_threads.h"

#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/src/fork.h"
#include "runtime/src/thread.h"

namespace shmrpc::internal {
namespace {

constexpr absl::Duration kIdleTime = absl::Seconds(10);

constinit PerProcess<CallbackThreads> process_threads;

}  // namespace

CallbackThreads& CallbackThreads::Get() { return process_threads.Get(); }

void CallbackThreads::Run(absl::AnyInvocable<void()> callback) {
  {
    MutexLock lock(&mutex_);
    if (idle_ > callbacks_.size() || threads_ == kMaxThreads) {
      callbacks_.push_back(std::move(callback));
      added_.Signal();
      return;
    }
    ++threads_;
    callbacks_.push_back(std::move(callback));
  }
  absl::StatusOr<std::thread> thread = StartThread("shmrpc-reaction", [this] { Serve(); });
  if (thread.ok()) return thread->detach();
  {
    MutexLock lock(&mutex_);
    --threads_;
    if (threads_ > 0 || callbacks_.empty()) return;  // another thread will come to it, or has
    callback = std::move(callbacks_.front());
    callbacks_.pop_front();
  }
  callback();
}

void CallbackThreads::Serve() {
  mutex_.Lock();
  for (;;) {
    const absl::Time idle_until = absl::Now() + kIdleTime;
    bool expired = false;
    ++idle_;
    while (callbacks_.empty() && !expired) expired = added_.WaitWithDeadline(&mutex_, idle_until);
    --idle_;
    if (callbacks_.empty()) break;
    absl::AnyInvocable<void()> callback = std::move(callbacks_.front());
    callbacks_.pop_front();
    mutex_.Unlock();
    callback();
    callback = nullptr;
    mutex_.Lock();
  }
  --threads_;
  mutex_.Unlock();
}

}  // namespace shmrpc::internal
