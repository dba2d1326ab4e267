#ifndef SHMRPC_SERVER_CONTEXT_H_
#define SHMRPC_SERVER_CONTEXT_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <stop_token>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "shmrpc/metadata.h"
#include "shmrpc/peer.h"
#include "shmrpc/transport.h"

namespace shmrpc {

class ServerUnaryReactor;

namespace internal {

class CancellationScope;

// What a ServerContext asks of the code that runs its call.
class ServerCallControl {
 public:
  virtual void SetCancellationCallback(absl::AnyInvocable<void()> callback) = 0;
  virtual void ClearCancellationCallback() = 0;
  // Of calls that are to be cancelled with this one. From any thread.
  virtual std::shared_ptr<CancellationScope> cancellation_scope() = 0;
  virtual std::stop_token stop_token() = 0;
  virtual ServerUnaryReactor* DefaultReactor() = 0;

 protected:
  ~ServerCallControl() = default;
};

}  // namespace internal

// What a handler knows of its call beside the messages, and says beside them. Belongs to the call; valid until a
// synchronous handler or the coroutine returns, or the reactor's Finish is called. Not synchronised, but IsCancelled
// and the getters of what came from the client may be asked from any thread.
class ServerContext final {
 public:
  explicit ServerContext(ServerCall* call, internal::ServerCallControl* control = nullptr)
      : call_(call), control_(control) {}
  ServerContext(const ServerContext&) = delete;
  ServerContext& operator=(const ServerContext&) = delete;

  // "/package.Service/Method".
  std::string_view method() const { return call_->method(); }

  // InfiniteFuture when the client set none; otherwise what this machine's clock will show then, as far as one can tell
  // now. What travels is the time left.
  absl::Time deadline() const { return call_->deadline().ToSystem(); }

  // True once nobody waits for the reply: cancelled, past the deadline, or the client is gone. A handler that works
  // for long asks now and then, and returns.
  bool IsCancelled() const { return call_->IsCancelled(); }

  // Has `callback` called once IsCancelled would say true; at once, on this thread, if it does already. For handlers
  // of every style; once per call, and from the thread or the reaction that the handler runs in.
  //
  // It is called at most once, otherwise on a thread of the library and never on one that this call's handler occupies.
  // A synchronous handler runs meanwhile, so the two have to synchronise. In the other styles it counts as a reaction:
  // it never runs at the same time as another reaction of this call, nor as a coroutine that was resumed by this call.
  // It does not begin after the call is finished (a synchronous handler or the coroutine has returned, Finish was
  // called), and what the library owns of the call outlives one that runs at that moment. The handler's local variables
  // do not: a handler whose callback uses them calls ClearCancellationCallback before they go. The callback should be
  // short and must not throw.
  void SetCancellationCallback(absl::AnyInvocable<void()> callback);

  // Afterwards the callback will not begin and, unless this is called from within it, is not running.
  void ClearCancellationCallback() {
    if (control() != nullptr) control()->ClearCancellationCallback();
  }

  // The same news as a std::stop_token, any number of times: for what coroutines wait for (see shmrpc/wait.h), for
  // std::condition_variable_any in a synchronous handler, and for std::stop_callback, whose functions run where
  // a cancellation callback would. Outlives the call, and is not stopped by its regular end.
  std::stop_token stop_token() const { return GetControl().stop_token(); }

  const Metadata& client_metadata() const { return call_->metadata(); }
  const Peer& peer() const { return call_->peer(); }
  // Who the client is, by the kernel's word; none over TCP. The same for all calls of a connection: it is taken when
  // the client connects. See PeerCredentials.
  const std::optional<PeerCredentials>& peer_credentials() const { return call_->peer().credentials; }

  // Sent with the first message, with SendInitialMetadata, or with the reply, whichever comes first; what is added
  // afterwards, like whatever breaks a rule of Metadata, makes the call fail with INTERNAL.
  void AddInitialMetadata(std::string_view key, std::string_view value) { initial_metadata_.Add(key, value); }
  // Sent with the status. For the rules see Metadata; breaking one makes the call fail with INTERNAL.
  void AddTrailingMetadata(std::string_view key, std::string_view value) { trailing_metadata_.Add(key, value); }

  const Metadata& initial_metadata() const { return initial_metadata_; }
  const Metadata& trailing_metadata() const { return trailing_metadata_; }

  // For methods of callback services that need no reactor of their own: one whose Finish is all there is to do. Belongs
  // to the call. Null for methods of other styles.
  ServerUnaryReactor* DefaultReactor() { return control() != nullptr ? control()->DefaultReactor() : nullptr; }

 private:
  friend class ServerContextAccess;

  internal::ServerCallControl* control() const { return control_.load(std::memory_order_acquire); }
  // Makes one if there is none.
  internal::ServerCallControl& GetControl() const;

  ServerCall* const call_;
  // Null for a synchronous unary call until it wants to be told of its cancellation: most need nothing but their reply.
  mutable std::atomic<internal::ServerCallControl*> control_;
  Metadata initial_metadata_;
  Metadata trailing_metadata_;
  // How many pairs of the initial metadata have been sent, once they have been.
  std::optional<size_t> initial_metadata_sent_;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVER_CONTEXT_H_
