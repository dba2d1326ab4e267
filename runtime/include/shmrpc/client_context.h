#ifndef SHMRPC_CLIENT_CONTEXT_H_
#define SHMRPC_CLIENT_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "shmrpc/metadata.h"
#include "shmrpc/mutex.h"
#include "shmrpc/peer.h"
#include "shmrpc/retry.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"

namespace shmrpc {

namespace internal {
class CallInProgress;
class CancellationScope;
}  // namespace internal

class ServerContext;

// What a call that a handler makes takes over from the handler's own. By default all there is, as in gRPC.
class PropagationOptions {
 public:
  PropagationOptions& enable_deadline_propagation() { return Set(&deadline_, true); }
  PropagationOptions& disable_deadline_propagation() { return Set(&deadline_, false); }
  PropagationOptions& enable_cancellation_propagation() { return Set(&cancellation_, true); }
  PropagationOptions& disable_cancellation_propagation() { return Set(&cancellation_, false); }

  bool deadline() const { return deadline_; }
  bool cancellation() const { return cancellation_; }

 private:
  PropagationOptions& Set(bool* option, bool value) {
    *option = value;
    return *this;
  }

  bool deadline_ = true;
  bool cancellation_ = true;
};

// What a client says of one call beside the request, and learns beside the reply. One object per call; it outlives the
// call. The setters come before the call, the getters after its end; TryCancel at any time from any thread.
//
// One that is destroyed while its call is in progress is a mistake of the program: a library that was built without
// NDEBUG aborts and says so; any other logs it and ends the call with FAILED_PRECONDITION.
class ClientContext final {
 public:
  ClientContext() = default;

  // For a call that a handler makes on behalf of its own: it has the same deadline, and ends with CANCELLED when the
  // handler's call is cancelled or over (the synchronous handler or the coroutine has returned, the reactor has called
  // Finish). A call that is to outlive the handler's disables both. Metadata is not passed on: what the next server is
  // to see, the handler copies.
  //
  // From any thread while `server_context` is valid; the two contexts may end in either order.
  static std::unique_ptr<ClientContext> FromServerContext(const ServerContext& server_context,
                                                          PropagationOptions options = PropagationOptions());
  ~ClientContext();
  ClientContext(const ClientContext&) = delete;
  ClientContext& operator=(const ClientContext&) = delete;

  // The call ends with DEADLINE_EXCEEDED when it is not over by then. Without one a call may last for ever. How long it
  // is until `deadline` is found out here, once: the call takes no notice when the system's clock is stepped
  // afterwards.
  void set_deadline(absl::Time deadline) { deadline_ = SteadyTime::FromSystem(deadline); }
  void set_timeout(absl::Duration timeout) { deadline_ = SteadyTime::Now() + timeout; }
  // What the system's clock will show then, as far as one can tell now; InfiniteFuture when there is none.
  absl::Time deadline() const { return deadline_.ToSystem(); }

  // While there is no connection, wait for one until the deadline instead of failing with UNAVAILABLE.
  void set_wait_for_ready(bool wait_for_ready) { wait_for_ready_ = wait_for_ready; }
  bool wait_for_ready() const { return wait_for_ready_; }

  // The server's handler sees it as client metadata. For the rules see Metadata.
  void AddMetadata(std::string_view key, std::string_view value) { metadata_.Add(key, value); }
  const Metadata& metadata() const { return metadata_; }

  // The channel's limits, for this call only.
  void set_max_send_message_bytes(size_t limit) { max_send_message_bytes_ = limit; }
  void set_max_receive_message_bytes(size_t limit) { max_receive_message_bytes_ = limit; }

  // Instead of the channel's; nullopt: none. The call fails with INVALID_ARGUMENT when the policy is not valid.
  void set_retry_policy(std::optional<RetryPolicy> policy) {
    own_retry_policy_ = true;
    retry_policy_ = policy.has_value() ? std::make_shared<const RetryPolicy>(*std::move(policy)) : nullptr;
  }

  // Ends the call with CANCELLED, unless it is over; before the call begins: it ends as soon as it begins. Never
  // blocks, and runs no callback: that comes on another thread.
  void TryCancel();

  const Metadata& GetServerInitialMetadata() const { return server_initial_metadata_; }
  const Metadata& GetServerTrailingMetadata() const { return server_trailing_metadata_; }

  // Who answered, and over which transport; empty when there was no connection.
  const Peer& peer() const;

 private:
  friend class ClientCallAccess;

  SteadyTime deadline_ = SteadyTime::InfiniteFuture();
  bool wait_for_ready_ = false;
  Metadata metadata_;
  std::optional<size_t> max_send_message_bytes_;
  std::optional<size_t> max_receive_message_bytes_;
  bool own_retry_policy_ = false;
  std::shared_ptr<const RetryPolicy> retry_policy_;  // shared with the call, which may outlive this object

  std::shared_ptr<const std::string> method_;  // of a generic call, which shares it; otherwise null

  Metadata server_initial_metadata_;
  Metadata server_trailing_metadata_;
  std::shared_ptr<const Peer> peer_;  // one object for all calls of a connection; null: no connection

  // The call in progress, or one of these: a call begins and ends without a lock.
  //  1. Who cancels holds mutex_, sets cancelled_, and then looks at call_; what it finds there it uses with the lock
  //     held, if only to get a reference.
  //  2. A call that begins changes call_ from kUnused, and then looks at cancelled_.
  //  3. A call that ends changes call_ to kUsed, and then looks at cancelled_: if that is set it waits for mutex_.
  // All of these are seq_cst. So of a call that begins and somebody who cancels, one sees the other; and a call that
  // was found by somebody who cancels has not ended before that one is done with it.
  static constexpr uintptr_t kUnused = 0;
  static constexpr uintptr_t kRefused = 1;  // no call has begun, and none can
  static constexpr uintptr_t kUsed = 2;     // there was a call
  std::atomic<uintptr_t> call_{kUnused};    // otherwise a CallInProgress*
  std::atomic<bool> cancelled_{false};
  Mutex mutex_;

  std::shared_ptr<internal::CancellationScope> scope_;  // that of the handler's call; null when there is none
};

}  // namespace shmrpc

#endif  // SHMRPC_CLIENT_CONTEXT_H_
