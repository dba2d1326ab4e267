#ifndef SHMRPC_TRANSPORTS_AUTO_AUTO_LISTENER_H_
#define SHMRPC_TRANSPORTS_AUTO_AUTO_LISTENER_H_

#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "runtime/src/connection_limiter.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "shmrpc/wire.pb.h"
#include "transports/auto/http2.h"
#include "transports/framed/poller.h"
#include "transports/framed/server_sessions.h"
#include "transports/tcp/listening_socket.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::autoselect {

class Acceptor;
class ServerHandshake;

// The server's ear at one host:port or unix: address, with the rendezvous socket for shared memory beside it.
// Thread-safe.
class AutoListener final : public Listener {
 public:
  // What a listening socket is for.
  enum class Door {
    kTcp,         // the address itself
    kUnix,        // the address itself
    kRendezvous,  // shared memory for clients that come with a token
  };

  // `http2` may be null; it is used only until this returns.
  static absl::StatusOr<std::unique_ptr<Listener>> Start(const Target& target, const ListenOptions& options,
                                                         CallHandler* handler, Http2Transport* http2);
  // One whose clients all speak HTTP/2, perhaps inside TLS: connections are served as they come.
  static absl::StatusOr<std::unique_ptr<Listener>> StartHttp2Only(const Target& target, const ListenOptions& options,
                                                                  CallHandler* handler,
                                                                  std::unique_ptr<Http2Server> server);
  ~AutoListener() override;

  const Target& address() const override { return address_; }
  void Shutdown(SteadyTime deadline) override;

 private:
  friend class Acceptor;
  friend class ServerHandshake;

  AutoListener(const ListenOptions& options, CallHandler* handler, std::unique_ptr<Http2Server> http2, bool http2_only)
      : options_(options),
        limiter_(options.connection_limiter != nullptr ? options.connection_limiter
                                                       : std::make_shared<internal::ConnectionLimiter>(options.limits)),
        http2_(std::move(http2)),
        http2_only_(http2_only),
        sessions_(options, handler) {}
  absl::Status Init(const Target& target);
  // `*bound`: where the first of its sockets listens; a host name may have several.
  absl::Status OpenDoor(const Target& target, Door door, Target* bound);
  bool OffersShm(Door door) const;
  // Whether calls that come over anything but shared memory are refused.
  bool InsistsOnShm() const { return options_.transport == TransportPreference::kShm; }

  // A token for the client that has just said hello on the TCP connection `socket`. And empty, or why this token is not
  // good for shared memory with the client on this connection; it is good once, and for the handshake time-out.
  std::string IssueToken(int socket) ABSL_LOCKS_EXCLUDED(mutex_);
  std::string RedeemToken(const std::string& token, const wire::TcpConnection& connection) ABSL_LOCKS_EXCLUDED(mutex_);
  void ForgetOldTokens(SteadyTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void Accepted(framed::UniqueFd socket, Door door);
  // A place for a connection that has come, or why it is refused.
  absl::StatusOr<internal::ConnectionLimiter::PlacePtr> Admit(int socket, const Peer& peer, Door door);
  void Refuse(framed::UniqueFd socket, const Peer& peer, Door door, std::string_view reason);
  static Peer PeerOf(int socket, Door door);
  void HandshakeOver(ServerHandshake* handshake);

  const ListenOptions options_;
  const std::shared_ptr<internal::ConnectionLimiter> limiter_;
  const std::unique_ptr<Http2Server> http2_;  // null: such clients are not served
  const bool http2_only_;
  Target address_;
  std::string rendezvous_name_;  // of the abstract socket; empty: there is none
  std::string instance_id_;
  framed::ServerSessions sessions_;

  Mutex mutex_;
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Acceptor>> acceptors_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ServerHandshake*, std::shared_ptr<ServerHandshake>> handshakes_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, tcp::TcpEnds> tokens_ ABSL_GUARDED_BY(mutex_);      // of the connection that got it
  std::deque<std::pair<SteadyTime, std::string>> token_ages_ ABSL_GUARDED_BY(mutex_);  // oldest first
};

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TRANSPORTS_AUTO_AUTO_LISTENER_H_
