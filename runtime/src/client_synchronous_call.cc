#include "runtime/src/client_synchronous_call.h"

#include <algorithm>
#include <optional>

#include "shmrpc/steady_time.h"

namespace shmrpc {

absl::Status SynchronousCall::Connect() {
  if (!channel_.GetIfReady(&connection_)) {
    parameters_.waited = true;
    absl::Status status = channel_.WaitForConnection(
        parameters_.deadline,
        parameters_.wait_for_ready ? ChannelImpl::Patience::kUntilReady : ChannelImpl::Patience::kThisAttempt, context_,
        &connection_);
    if (!status.ok()) {
      attempt_end_ = AttemptEnd::kNotConnected;
      return status;
    }
  }
  if (context_ != nullptr) ClientCallAccess::set_peer(context_, connection_->peer);
  return absl::OkStatus();
}

void SynchronousCall::Start(const OutgoingMessage* request) {
  CallSpec spec = parameters_.ToSpec();
  // TryCancel first sets the flag and then looks for the call: here it is the other way round, so one sees the other.
  if (context_ != nullptr) spec.cancelled = &ClientCallAccess::cancelled(*context_);
  connection_->connection->StartCall(spec, request, this, &started_call_);
  call_.reset(started_call_.load(std::memory_order_relaxed));
  if (context_ != nullptr && ClientCallAccess::IsCancelled(*context_)) call_->Cancel(internal::CancelledByCaller());
}

void SynchronousCall::StartAnswered(internal::CallAnswer answer) {
  connection_ = std::make_shared<EstablishedConnection>(
      std::make_unique<internal::AnsweredConnection>(std::move(answer)), Target());
  Start(nullptr);
}

bool SynchronousCall::PrepareNextAttempt(absl::Status* status) {
  const std::optional<absl::Duration> pause =
      attempts_.NextAfter(std::exchange(attempt_end_, AttemptEnd::kMayHaveRun), *status, parameters_.retry_policy,
                          channel_.retry_throttle());
  if (!pause.has_value()) return false;
  parameters_.waited = true;
  parameters_.metadata = attempts_.KeepMetadata(parameters_.metadata);
  if (call_ != nullptr) {
    // Not while TryCancel is inside the call that is about to go.
    if (context_ != nullptr) ClientCallAccess::PauseSynchronous(context_);
    started_call_.store(nullptr);
    call_.reset();
    connection_.reset();
    if (context_ != nullptr) ClientCallAccess::ResumeSynchronous(context_, this);
  }
  const SteadyTime next = *pause > absl::ZeroDuration() ? SteadyTime::Now() + *pause : SteadyTime::InfinitePast();
  absl::Status paused = channel_.Pause(std::min(next, parameters_.deadline), context_);
  if (paused.ok() && parameters_.deadline.HasPassed()) paused = parameters_.TooLate();
  if (paused.ok()) {
    over_.store(false, std::memory_order_relaxed);
    return true;
  }
  *status = std::move(paused);
  return false;
}

void SynchronousCall::LetGo() {
  started_call_.store(nullptr);
  static_cast<void>(call_.release());
  static_cast<void>(new ConnectionPtr(std::move(connection_)));
  attempt_end_ = AttemptEnd::kMayHaveRun;  // never again
  EndUnstarted(channel_.CheckProcess());
}

bool SynchronousCall::OnContextGone(absl::Status status) {
  if (!channel_.CheckProcess().ok()) return true;  // in a fork()ed child: it is the parent's call
  Call* const call = started_call_.load();
  if (call != nullptr) {
    call->Cancel(std::move(status));
  } else {
    channel_.WakeWaiters();
  }
  return false;
}

void SynchronousCall::OnTryCancel() {
  if (!channel_.CheckProcess().ok()) return;  // in a fork()ed child: it is the parent's call
  Call* const call = started_call_.load();
  if (call != nullptr) {
    call->Cancel(internal::CancelledByCaller());
  } else {
    channel_.WakeWaiters();
  }
}

}  // namespace shmrpc
