#include "shmrpc/client_context.h"

#include "runtime/src/cancellation_scope.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/server_context_access.h"
#include "shmrpc/server_context.h"

namespace shmrpc {

absl::Status internal::CancelledByCaller() { return absl::CancelledError("the caller cancelled the call"); }

std::unique_ptr<ClientContext> ClientContext::FromServerContext(const ServerContext& server_context,
                                                                PropagationOptions options) {
  auto context = std::make_unique<ClientContext>();
  if (options.deadline()) context->deadline_ = ServerContextAccess::deadline(server_context);
  if (options.cancellation()) {
    context->scope_ = ServerContextAccess::cancellation_scope(server_context);
    context->scope_->Add(context.get());
  }
  return context;
}

ClientContext::~ClientContext() {
  if (scope_ != nullptr) scope_->Remove(this);
}

const Peer& ClientContext::peer() const {
  static const Peer* const nobody = new Peer;
  return peer_ != nullptr ? *peer_ : *nobody;
}

void ClientContext::TryCancel() {
  const std::shared_ptr<internal::CallInProgress> asynchronous_call = ClientCallAccess::BeginCancel(this);
  // This object may be gone from here on.
  if (asynchronous_call != nullptr) asynchronous_call->OnTryCancel();
}

std::shared_ptr<internal::CallInProgress> ClientCallAccess::BeginCancel(ClientContext* context) {
  MutexLock lock(&context->mutex_);
  // seq_cst, as SynchronousCall's looks: first the flag, then the look whether the call has started. A call that starts
  // does the same the other way round, so one of the two sees the other.
  context->cancelled_.store(true, std::memory_order_seq_cst);
  if (context->synchronous_call_ != nullptr) context->synchronous_call_->OnTryCancel();
  return context->asynchronous_call_;
}

bool ClientCallAccess::CancelUnlessInProgress(ClientContext* context) {
  MutexLock lock(&context->mutex_);
  if (context->synchronous_call_ != nullptr || context->asynchronous_call_ != nullptr) return false;
  context->cancelled_.store(true, std::memory_order_release);
  return true;
}

absl::Status ClientCallAccess::Begin(ClientContext* context) {
  if (context->begun_) {
    return absl::FailedPreconditionError(
        "this ClientContext has been used for another call; make a new one for each call");
  }
  context->begun_ = true;
  return IsCancelled(*context) ? internal::CancelledByCaller() : absl::OkStatus();
}

absl::Status ClientCallAccess::BeginSynchronous(ClientContext* context, internal::CallInProgress* call) {
  MutexLock lock(&context->mutex_);
  absl::Status status = Begin(context);
  if (status.ok()) context->synchronous_call_ = call;
  return status;
}

void ClientCallAccess::ResumeSynchronous(ClientContext* context, internal::CallInProgress* call) {
  MutexLock lock(&context->mutex_);
  context->synchronous_call_ = call;
}

absl::Status ClientCallAccess::BeginAsynchronous(ClientContext* context,
                                                 std::shared_ptr<internal::CallInProgress> call) {
  MutexLock lock(&context->mutex_);
  absl::Status status = Begin(context);
  if (status.ok()) context->asynchronous_call_ = std::move(call);
  return status;
}

void ClientCallAccess::End(ClientContext* context) {
  std::shared_ptr<internal::CallInProgress> asynchronous_call;  // released after the lock
  MutexLock lock(&context->mutex_);
  context->synchronous_call_ = nullptr;
  asynchronous_call = std::move(context->asynchronous_call_);
}

}  // namespace shmrpc
