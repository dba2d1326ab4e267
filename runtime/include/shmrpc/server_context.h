#ifndef SHMRPC_SERVER_CONTEXT_H_
#define SHMRPC_SERVER_CONTEXT_H_

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shmrpc/metadata.h"
#include "shmrpc/peer.h"
#include "shmrpc/transport.h"

namespace shmrpc {

// What a handler knows of its call beside the request, and says beside the reply. Belongs to the call; valid until the
// handler returns. Only the handler's thread may use it, but IsCancelled may be asked from any.
class ServerContext final {
 public:
  explicit ServerContext(ServerCall* call) : call_(call) {}
  ServerContext(const ServerContext&) = delete;
  ServerContext& operator=(const ServerContext&) = delete;

  // "/package.Service/Method".
  absl::string_view method() const { return call_->method(); }

  // InfiniteFuture when the client set none. By this machine's clock: what travels is the time left.
  absl::Time deadline() const { return call_->deadline(); }

  // True once nobody waits for the reply: cancelled, past the deadline, or the client is gone. A handler that works
  // for long asks now and then, and returns.
  bool IsCancelled() const { return call_->IsCancelled(); }

  const Metadata& client_metadata() const { return call_->metadata(); }
  const Peer& peer() const { return call_->peer(); }

  // Sent with the reply. For the rules see Metadata; breaking one makes the call fail with INTERNAL.
  void AddInitialMetadata(absl::string_view key, absl::string_view value) { initial_metadata_.Add(key, value); }
  void AddTrailingMetadata(absl::string_view key, absl::string_view value) { trailing_metadata_.Add(key, value); }

  const Metadata& initial_metadata() const { return initial_metadata_; }
  const Metadata& trailing_metadata() const { return trailing_metadata_; }

 private:
  ServerCall* const call_;
  Metadata initial_metadata_;
  Metadata trailing_metadata_;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVER_CONTEXT_H_
