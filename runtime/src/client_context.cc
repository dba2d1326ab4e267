#include "shmrpc/client_context.h"

#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/src/cancellation_scope.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/fork.h"
#include "runtime/src/misuse.h"
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
  if (call_.load(std::memory_order_relaxed) > kUsed) ClientCallAccess::OnGone(this);
  if (scope_ != nullptr) scope_->Remove(this);
}

const Peer& ClientContext::peer() const {
  static constinit internal::PerProcess<const Peer> nobody;
  return peer_ != nullptr ? *peer_ : nobody.Get();
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
  const uintptr_t state = context->call_.load(std::memory_order_seq_cst);
  if (state <= ClientContext::kUsed) return nullptr;
  auto* const call = reinterpret_cast<internal::CallInProgress*>(state);
  std::shared_ptr<internal::CallInProgress> asynchronous_call = call->KeepAsynchronous();
  if (asynchronous_call == nullptr) call->OnTryCancel();
  return asynchronous_call;
}

bool ClientCallAccess::CancelUnlessInProgress(ClientContext* context) {
  MutexLock lock(&context->mutex_);
  uintptr_t state = ClientContext::kUnused;
  context->call_.compare_exchange_strong(state, ClientContext::kRefused, std::memory_order_seq_cst);
  if (state > ClientContext::kUsed) return false;
  context->cancelled_.store(true, std::memory_order_seq_cst);
  return true;
}

absl::Status ClientCallAccess::Begin(ClientContext* context, internal::CallInProgress* call) {
  uintptr_t state = ClientContext::kUnused;
  if (!context->call_.compare_exchange_strong(state, reinterpret_cast<uintptr_t>(call), std::memory_order_seq_cst)) {
    return CannotBegin(context, state);
  }
  if (!context->cancelled_.load(std::memory_order_seq_cst)) return absl::OkStatus();
  End(context);
  return internal::CancelledByCaller();
}

absl::Status ClientCallAccess::CannotBegin(ClientContext* context, uintptr_t state) {
  if (state == ClientContext::kRefused &&
      context->call_.compare_exchange_strong(state, ClientContext::kUsed, std::memory_order_seq_cst)) {
    return internal::CancelledByCaller();
  }
  return absl::FailedPreconditionError(
      "this ClientContext has been used for another call; make a new one for each call");
}

void ClientCallAccess::ResumeSynchronous(ClientContext* context, internal::CallInProgress* call) {
  context->call_.store(reinterpret_cast<uintptr_t>(call), std::memory_order_seq_cst);
}

void ClientCallAccess::OnGone(ClientContext* context) {
  std::shared_ptr<internal::CallInProgress> asynchronous_call;
  bool waits = false;
  absl::Status misuse;
  {
    MutexLock lock(&context->mutex_);
    const uintptr_t state = context->call_.load(std::memory_order_seq_cst);
    if (state <= ClientContext::kUsed) return;
    auto* const call = reinterpret_cast<internal::CallInProgress*>(state);
    misuse = internal::Misuse(absl::StrCat("a ClientContext was destroyed while its call of ",
                                           call->method_in_progress(), " is in progress: it has to outlive the call"));
    context->cancelled_.store(true, std::memory_order_seq_cst);
    asynchronous_call = call->KeepAsynchronous();
    if (asynchronous_call == nullptr) waits = !call->OnContextGone(misuse);
  }
  if (asynchronous_call != nullptr) asynchronous_call->OnContextGone(std::move(misuse));
  // The caller is on another thread.
  while (waits && context->call_.load(std::memory_order_seq_cst) > ClientContext::kUsed) std::this_thread::yield();
}

// Until whoever cancels has left the call alone.
void ClientCallAccess::WaitForCancel(ClientContext* context) { MutexLock lock(&context->mutex_); }

}  // namespace shmrpc
