#include "runtime/src/client_synchronous_call.h"

namespace shmrpc {

absl::Status SynchronousCall::Connect() {
  if (!channel_.GetIfReady(&connection_)) {
    absl::Status status = channel_.WaitForConnection(
        parameters_.deadline,
        parameters_.wait_for_ready ? ChannelImpl::Patience::kUntilReady : ChannelImpl::Patience::kThisAttempt, context_,
        &connection_);
    if (!status.ok()) return status;
  }
  if (context_ != nullptr) ClientCallAccess::set_peer(context_, connection_->peer);
  return absl::OkStatus();
}

void SynchronousCall::Start(const OutgoingMessage* request) {
  Call* call = nullptr;
  connection_->connection->StartCall(parameters_.ToSpec(), request, this, &call);
  call_.reset(call);
  if (context_ != nullptr) {
    // TryCancel first sets the flag and then looks for the call: one of the two sees the other.
    started_call_.store(call);
    if (ClientCallAccess::IsCancelled(*context_)) call->Cancel(internal::CancelledByCaller());
  }
}

void SynchronousCall::OnTryCancel() {
  Call* const call = started_call_.load();
  if (call != nullptr) {
    call->Cancel(internal::CancelledByCaller());
  } else {
    channel_.WakeWaiters();
  }
}

}  // namespace shmrpc
