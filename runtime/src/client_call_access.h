#ifndef SHMRPC_RUNTIME_SRC_CLIENT_CALL_ACCESS_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_CALL_ACCESS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {

namespace internal {

// A call that a ClientContext can cancel.
class CallInProgress {
 public:
  virtual ~CallInProgress() = default;

  // Ends the call with CANCELLED unless it is over. For a synchronous call it runs with the context's lock held and
  // must not use the context.
  virtual void OnTryCancel() = 0;

  // A reference to an asynchronous call, which is cancelled without the context's lock, because its callback may run
  // inside and may destroy the context. Null for a synchronous one, which lives on its caller's stack and is cancelled
  // with the lock held, so that it does not end meanwhile.
  virtual std::shared_ptr<CallInProgress> KeepAsynchronous() { return nullptr; }

  // "/package.Service/Method".
  virtual const char* method_in_progress() const = 0;
  // The context is being destroyed, too early: ends the call with `status`, and uses the context no more when this
  // returns. For a synchronous call as OnTryCancel, but false: it has ended, and its caller is about to take note.
  virtual bool OnContextGone(absl::Status status) = 0;
};

// The status of a call that TryCancel ended.
absl::Status CancelledByCaller();

}  // namespace internal

// What calls do with their ClientContext. `context` is never null here.
class ClientCallAccess {
 public:
  // Marks the context as used by `call`, which TryCancel reaches from now on. FAILED_PRECONDITION when another call
  // has used the context, CANCELLED when TryCancel came first; then there is nothing to end.
  static absl::Status Begin(ClientContext* context, internal::CallInProgress* call);

  // Between two attempts of a synchronous call: as End, and then as if it had begun anew.
  static void PauseSynchronous(ClientContext* context) { End(context); }
  static void ResumeSynchronous(ClientContext* context, internal::CallInProgress* call);

  // After it TryCancel does not reach the call any more; for a synchronous call none is running inside it either.
  static void End(ClientContext* context) {
    context->call_.exchange(ClientContext::kUsed, std::memory_order_seq_cst);
    if (context->cancelled_.load(std::memory_order_seq_cst)) WaitForCancel(context);
  }

  // The first part of TryCancel: afterwards a synchronous call is cancelled, and no call can begin. Runs no user code.
  // An asynchronous call (null when there is none) is yet to be told, by its OnTryCancel, which may destroy `context`.
  static std::shared_ptr<internal::CallInProgress> BeginCancel(ClientContext* context);

  // Sees to it that no call can begin. False, and nothing has happened: there is one in progress.
  static bool CancelUnlessInProgress(ClientContext* context);

  static const std::atomic<bool>& cancelled(const ClientContext& context) { return context.cancelled_; }
  // The context goes. If there is a call in progress, that is a mistake: see internal::Misuse.
  static void OnGone(ClientContext* context);

  static bool IsCancelled(const ClientContext& context) { return context.cancelled_.load(std::memory_order_seq_cst); }

  // Keeps the path of a generic call, for its CallParameters to share.
  static const char* KeepMethod(ClientContext* context, std::string_view method) {
    context->method_ = std::make_shared<const std::string>(method);
    return context->method_->c_str();
  }
  static const std::shared_ptr<const std::string>& method(const ClientContext& context) { return context.method_; }

  static SteadyTime deadline(const ClientContext& context) { return context.deadline_; }
  static const std::optional<size_t>& max_send_message_bytes(const ClientContext& context) {
    return context.max_send_message_bytes_;
  }
  static const std::optional<size_t>& max_receive_message_bytes(const ClientContext& context) {
    return context.max_receive_message_bytes_;
  }

  // Whether the context has a policy of its own, or none, instead of the channel's.
  static bool has_own_retry_policy(const ClientContext& context) { return context.own_retry_policy_; }
  static const std::shared_ptr<const RetryPolicy>& retry_policy(const ClientContext& context) {
    return context.retry_policy_;
  }

  static void set_peer(ClientContext* context, std::shared_ptr<const Peer> peer) { context->peer_ = std::move(peer); }
  static void set_server_initial_metadata(ClientContext* context, Metadata metadata) {
    context->server_initial_metadata_ = std::move(metadata);
  }
  static void set_server_trailing_metadata(ClientContext* context, Metadata metadata) {
    context->server_trailing_metadata_ = std::move(metadata);
  }

 private:
  static absl::Status CannotBegin(ClientContext* context, uintptr_t state);
  static void WaitForCancel(ClientContext* context);
};

// The channel behind the public class.
class ChannelAccess {
 public:
  static ChannelImpl& impl(const Channel& channel) { return *channel.impl_; }
  // A channel whose calls fail with `status`.
  static std::shared_ptr<Channel> Unusable(absl::Status status);
  static const std::shared_ptr<ChannelImpl>& shared_impl(const Channel& channel) { return channel.impl_; }
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_CALL_ACCESS_H_
