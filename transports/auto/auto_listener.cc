#include "transports/auto/auto_listener.h"

#include <sys/epoll.h>
#include <sys/random.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/access_check.h"
#include "runtime/src/log.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"
#include "transports/auto/acceptor.h"
#include "transports/auto/hello.h"
#include "transports/auto/server_handshake.h"
#include "transports/shm/fd_passing.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::autoselect {
namespace {

std::string RandomBytes(size_t size) {
  std::string bytes(size, '\0');
  size_t filled = 0;
  while (filled < size) {
    const ssize_t got = getrandom(bytes.data() + filled, size - filled, 0);
    if (got > 0) filled += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> AutoListener::Start(const Target& target, const ListenOptions& options,
                                                              CallHandler* handler, Http2Transport* http2) {
  std::unique_ptr<Http2Server> server;
  if (http2 != nullptr) server = http2->NewServer(options, handler);
  std::unique_ptr<AutoListener> listener(new AutoListener(options, handler, std::move(server), /*http2_only=*/false));
  absl::Status status = listener->Init(target);
  if (!status.ok()) return status;
  return listener;
}

absl::StatusOr<std::unique_ptr<Listener>> AutoListener::StartHttp2Only(const Target& target,
                                                                       const ListenOptions& options,
                                                                       CallHandler* handler,
                                                                       std::unique_ptr<Http2Server> server) {
  std::unique_ptr<AutoListener> listener(new AutoListener(options, handler, std::move(server), /*http2_only=*/true));
  absl::Status status = listener->Init(target);
  if (!status.ok()) return status;
  return listener;
}

absl::Status AutoListener::Init(const Target& target) {
  const bool tcp = target.kind == Target::Kind::kHostPort;
  if (tcp && options_.transport == TransportPreference::kUnix) {
    return absl::InvalidArgumentError(
        absl::StrCat("transport unix was asked for, but ", target.ToString(), " is not a Unix socket"));
  }
  if (!tcp && options_.transport == TransportPreference::kTcp) {
    return absl::InvalidArgumentError(
        absl::StrCat("transport tcp was asked for, but ", target.ToString(), " is a Unix socket"));
  }
  if (options_.transport == TransportPreference::kGrpc && !http2_only_) {
    return absl::InvalidArgumentError(
        absl::StrCat("transport grpc was asked for, but ", target.ToString(),
                     " is an address for all transports: write grpc:", target.ToString()));
  }
  instance_id_ = RandomBytes(kTokenBytes);
  absl::Status threads = sessions_.Init();
  if (!threads.ok()) return threads;
  // The rendezvous comes first, so that the first client over TCP can be told of it.
  if (tcp && OffersShm(Door::kRendezvous)) {
    Target rendezvous;
    rendezvous.kind = Target::Kind::kUnixAbstract;
    rendezvous.name = RendezvousName(RandomBytes(kTokenBytes));
    Target bound;
    absl::Status status = OpenDoor(rendezvous, Door::kRendezvous, &bound);
    if (status.ok()) {
      rendezvous_name_ = rendezvous.name;
    } else if (InsistsOnShm()) {
      return status;
    } else {
      internal::LogWarning(absl::StrCat("no shared memory for clients of ", target.ToString(), ": ", status.message()));
    }
  }
  return OpenDoor(target, tcp ? Door::kTcp : Door::kUnix, &address_);
}

absl::Status AutoListener::OpenDoor(const Target& target, Door door, Target* bound) {
  absl::StatusOr<std::vector<tcp::ListeningSocket>> sockets = tcp::ListenSockets(target, options_.unix_socket_mode);
  if (!sockets.ok()) return sockets.status();
  *bound = sockets->front().bound();
  for (tcp::ListeningSocket& socket : *sockets) {
    if (http2_only_) shm::RefuseFds(socket.fd());  // other clients may offer shared memory before they know
    auto acceptor =
        std::make_shared<Acceptor>(std::move(socket), sessions_.poller(),
                                   [this, door](framed::UniqueFd accepted) { Accepted(std::move(accepted), door); });
    absl::Status status = sessions_.poller()->Add(acceptor, EPOLLIN);
    if (!status.ok()) return status;
    MutexLock lock(&mutex_);
    acceptors_.push_back(std::move(acceptor));
  }
  return absl::OkStatus();
}

AutoListener::~AutoListener() { Shutdown(SteadyTime::InfinitePast()); }

bool AutoListener::OffersShm(Door door) const {
  return door != Door::kTcp && !http2_only_ &&
         (options_.transport == TransportPreference::kAuto || options_.transport == TransportPreference::kShm);
}

void AutoListener::ForgetOldTokens(SteadyTime now) {
  while (!token_ages_.empty() && now - token_ages_.front().first > options_.limits.handshake_timeout) {
    tokens_.erase(token_ages_.front().second);
    token_ages_.pop_front();
  }
}

std::string AutoListener::IssueToken(int socket) {
  std::string token = RandomBytes(kTokenBytes);
  const SteadyTime now = SteadyTime::Now();
  MutexLock lock(&mutex_);
  ForgetOldTokens(now);
  tokens_.emplace(token, tcp::EndsOf(socket));
  token_ages_.emplace_back(now, token);
  return token;
}

std::string AutoListener::RedeemToken(const std::string& token, const wire::TcpConnection& connection) {
  MutexLock lock(&mutex_);
  ForgetOldTokens(SteadyTime::Now());
  const auto found = tokens_.find(token);
  if (found == tokens_.end()) return "the token is unknown, used or too old";
  const tcp::TcpEnds ends = std::move(found->second);
  tokens_.erase(found);
  if (ends.local == connection.server() && ends.peer == connection.client()) return std::string();
  return "the token is of another TCP connection than the client's: something between the two passes on what they say, "
         "or changes their addresses";
}

void AutoListener::Accepted(framed::UniqueFd socket, Door door) {
  Peer peer = PeerOf(socket.get(), door);
  absl::StatusOr<internal::ConnectionLimiter::PlacePtr> place = Admit(socket.get(), peer, door);
  if (!place.ok()) return Refuse(std::move(socket), peer, door, place.status().message());
  if (http2_only_) {
    (*place)->KeepUntilClosed(socket.get());
    return http2_->Serve(std::move(socket), peer, std::string_view());
  }
  auto handshake = std::make_shared<ServerHandshake>(this, std::move(socket), door, std::move(peer), *std::move(place));
  {
    MutexLock lock(&mutex_);
    if (shutting_down_) return;
    handshakes_.emplace(handshake.get(), handshake);
  }
  if (!handshake->Start().ok()) HandshakeOver(handshake.get());
}

absl::StatusOr<internal::ConnectionLimiter::PlacePtr> AutoListener::Admit(int socket, const Peer& peer, Door door) {
  // A stranger is sent away before anything of his is received: it might be a descriptor.
  std::string why_not;
  if (door == Door::kUnix) {
    why_not = internal::WhyNotLetIn(options_.unix_socket_access, peer.credentials, "the client",
                                    "may connect to the server's Unix socket", "the option unix_socket_access");
  } else if (door == Door::kRendezvous) {
    why_not = internal::WhyNotLetIn(options_.shared_memory_access, peer.credentials, "the client",
                                    "the server shares memory with", "the option shared_memory_access");
  }
  if (!why_not.empty()) return absl::PermissionDeniedError(why_not);
  internal::ConnectionLimiter::Origin origin;
  if (peer.credentials.has_value()) origin.user = peer.credentials->uid;
  origin.address = tcp::PeerHost(socket);
  origin.second = door == Door::kRendezvous;
  return limiter_->Admit(std::move(origin));
}

// At once, and without the client's hello: that of a client that is not admitted is not worth waiting for.
void AutoListener::Refuse(framed::UniqueFd socket, const Peer& peer, Door door, std::string_view reason) {
  static internal::LogLimiter limiter;
  internal::LogWarningLimited(
      limiter,
      door == Door::kRendezvous
          ? absl::StrCat("no shared memory for a client (", peer.address, ") of ", address_.ToString(), ": ", reason)
          : absl::StrCat("refused a connection from ", peer.address, " to ", address_.ToString(), ": ", reason));
  if (!http2_only_) {
    wire::ServerHello answer;
    answer.set_version(kProtocolVersion);
    answer.set_refused(std::string(reason));
    (void)SendHello(socket.get(), answer, -1);  // a client that has gone need not be told
  }
  if (door != Door::kTcp) shm::CloseUnread(std::move(socket));
}

Peer AutoListener::PeerOf(int socket, Door door) {
  Peer peer;
  peer.transport = door == Door::kTcp ? "tcp" : "unix";
  peer.address = tcp::PeerAddress(socket);
  peer.credentials = tcp::GetPeerCredentials(socket);
  if (peer.credentials.has_value()) {
    peer.address = absl::StrCat("unix:pid=", peer.credentials->pid.value_or(0), ",uid=", peer.credentials->uid);
  }
  return peer;
}

void AutoListener::HandshakeOver(ServerHandshake* handshake) {
  std::shared_ptr<ServerHandshake> over;  // destroyed without the lock
  MutexLock lock(&mutex_);
  auto found = handshakes_.find(handshake);
  if (found == handshakes_.end()) return;
  over = std::move(found->second);
  handshakes_.erase(found);
}

void AutoListener::Shutdown(SteadyTime deadline) {
  std::vector<std::shared_ptr<Acceptor>> acceptors;
  std::vector<std::shared_ptr<ServerHandshake>> handshakes;
  {
    MutexLock lock(&mutex_);
    shutting_down_ = true;
    acceptors.swap(acceptors_);
    for (auto& [key, handshake] : handshakes_) handshakes.push_back(handshake);
  }
  for (auto& acceptor : acceptors) {
    acceptor->Stop();
    sessions_.poller()->Remove(acceptor.get());
  }
  acceptors.clear();
  for (auto& handshake : handshakes) handshake->Abort();
  handshakes.clear();
  // Both at the same time: each may take until the deadline.
  absl::StatusOr<std::thread> http2_shutdown = absl::UnavailableError("");
  if (http2_ != nullptr) {
    http2_shutdown = internal::StartThread("shmrpc-shutdown", [this, deadline] { http2_->Shutdown(deadline); });
  }
  sessions_.Shutdown(deadline);
  if (http2_shutdown.ok()) http2_shutdown->join();
  if (http2_ != nullptr && !http2_shutdown.ok()) http2_->Shutdown(deadline);
  absl::flat_hash_map<ServerHandshake*, std::shared_ptr<ServerHandshake>> left;  // destroyed without the lock
  MutexLock lock(&mutex_);
  left.swap(handshakes_);
}

}  // namespace shmrpc::autoselect
