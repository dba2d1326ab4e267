#include "runtime/src/server_calls.h"

#include "absl/strings/str_cat.h"
#include "runtime/src/log.h"

namespace shmrpc::internal {

absl::Status ServerCalls::TooManyCalls() const {
  absl::Status status = absl::ResourceExhaustedError(
      absl::StrCat("the server runs ", max_concurrent_calls_,
                   " calls already, as many as the option max_concurrent_calls allows; the handler did not run"));
  static LogLimiter limiter;
  LogWarningLimited(limiter, absl::StrCat("refused a call: ", status.message()));
  return status;
}

void AsynchronousCalls::End() {
  if (calls_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  MutexLock lock(&mutex_);
  over_ = true;
  changed_.SignalAll();
}

void AsynchronousCalls::Wait() {
  if (!waiting_.exchange(true)) End();
  MutexLock lock(&mutex_);
  while (!over_) changed_.Wait(&mutex_);
}

}  // namespace shmrpc::internal
