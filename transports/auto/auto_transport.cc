#include "transports/auto/auto_transport.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/access_check.h"
#include "shmrpc/wire.pb.h"
#include "transports/auto/auto_listener.h"
#include "transports/auto/hello.h"
#include "transports/framed/errno_name.h"
#include "transports/framed/framed_connection.h"
#include "transports/shm/fd_passing.h"
#include "transports/shm/memory_left.h"
#include "transports/shm/segment.h"
#include "transports/shm/shm_link.h"
#include "transports/tcp/connect_socket.h"
#include "transports/tcp/socket_address.h"
#include "transports/tcp/socket_link.h"

namespace shmrpc::autoselect {
namespace {

using framed::UniqueFd;

// One attempt to connect.
class Connector {
 public:
  Connector(const Target& target, const ConnectOptions& options) : target_(target), options_(options) {}

  // Once Connect has failed: whether because the server is not one of this library.
  Foreign foreign() const { return foreign_; }

  absl::StatusOr<std::unique_ptr<Connection>> Connect();

 private:
  // What came of trying shared memory on one Unix socket.
  struct ShmAttempt {
    std::unique_ptr<framed::Link> link;  // null: no shared memory, because of
    std::string reason;
    bool socket_usable = false;  // and the socket can carry frames itself
  };

  absl::Status ConnectTcp();
  absl::StatusOr<UniqueFd> ConnectUnixSocket();
  absl::Status ConnectUnix();
  std::string TryRendezvous(const wire::ServerHello& hello, int tcp);
  // `hello`: as MakeHello gives it, perhaps with a token. `instance_id`: of the server that gave it; empty: any.
  absl::StatusOr<ShmAttempt> TryShm(UniqueFd& socket, wire::ClientHello hello, const std::string& instance_id);
  // `near`: the server is on this host.
  wire::ClientHello MakeHello(bool near) const;
  absl::Status Exchange(int socket, const wire::ClientHello& hello, int fd, std::vector<UniqueFd>* fds,
                        wire::ServerHello* answer);
  void UseSocket(UniqueFd socket, const char* name, std::string reason);
  absl::Status InsistedOnShm(std::string_view reason) const;

  const Target& target_;
  const ConnectOptions& options_;
  Foreign foreign_ = Foreign::kNo;
  std::string server_cpus_;
  FlowControlOptions granted_by_server_;
  std::optional<absl::Duration> servers_keepalive_timeout_;
  std::unique_ptr<framed::Link> link_;
  TransportChoice choice_;
  Peer peer_;
};

wire::ClientHello Connector::MakeHello(bool near) const {
  wire::ClientHello hello;
  hello.set_version(kProtocolVersion);
  if (near) {
    hello.set_host_id(HostId().value_or(""));
    hello.set_cpus(framed::AllowedCpus());
  }
  SetWindow(options_.flow_control, hello.mutable_window());
  hello.set_keepalive_ms(ToKeepaliveMs(options_.keepalive_timeout));
  return hello;
}

absl::Status Connector::Exchange(int socket, const wire::ClientHello& hello, int fd, std::vector<UniqueFd>* fds,
                                 wire::ServerHello* answer) {
  absl::Status status =
      ExchangeHellos(socket, hello, fd, options_.deadline, options_.interrupt_fd, answer, fds, &foreign_);
  if (!status.ok()) return status;
  if (!answer->refused().empty()) {
    return absl::UnavailableError(absl::StrCat("the server refused the connection: ", answer->refused()));
  }
  if (answer->version() != kProtocolVersion) {
    return absl::UnavailableError(absl::StrCat("the server speaks version ", answer->version(),
                                               " of the protocol, this client version ", kProtocolVersion));
  }
  server_cpus_ = answer->cpus();
  const absl::StatusOr<FlowControlOptions> window = GetWindow(answer->window());
  if (!window.ok()) {
    return absl::UnavailableError(window.status().message());
  }
  granted_by_server_ = *window;
  servers_keepalive_timeout_ = GetKeepaliveTimeout(*answer);
  return absl::OkStatus();
}

void Connector::UseSocket(UniqueFd socket, const char* name, std::string reason) {
  peer_.transport = name;
  peer_.address = tcp::PeerAddress(socket.get());
  choice_ = {name, std::move(reason)};
  shm::RefuseFds(socket.get());
  link_ = std::make_unique<tcp::SocketLink>(std::move(socket), name, std::string_view());
}

absl::Status Connector::InsistedOnShm(std::string_view reason) const {
  return absl::UnavailableError(
      absl::StrCat("shared memory with ", target_.ToString(), " was asked for, but: ", ToAbsl(reason),
                   ". Leave the choice of the transport to the library, or remove the cause"));
}

// Offers shared memory over a Unix socket, which is moved into the link if that is accepted. An error means that not
// even the hellos could be exchanged.
absl::StatusOr<Connector::ShmAttempt> Connector::TryShm(UniqueFd& socket, wire::ClientHello hello,
                                                        const std::string& instance_id) {
  ShmAttempt attempt;
  absl::StatusOr<shm::Segment> own = absl::FailedPreconditionError("");
  peer_.credentials = tcp::GetPeerCredentials(socket.get());
  attempt.reason = internal::WhyNotLetIn(options_.shared_memory_access, peer_.credentials, "the server",
                                         "this channel shares memory with", "the option shared_memory_access");
  if (attempt.reason.empty()) {
    const absl::Status left = shm::CheckMemoryLeft();
    own = left.ok() ? shm::Segment::Create(shm::kSegmentBytes) : left;
    if (!own.ok()) attempt.reason = std::string(own.status().message());
  }
  if (own.ok()) {
    hello.mutable_shm()->set_segment_bytes(shm::kSegmentBytes);
    hello.mutable_shm()->set_ring_bytes(shm::kRingBytes);
  } else if (!hello.token().empty()) {
    return attempt;  // a socket that is for shared memory only
  }
  std::vector<UniqueFd> fds;
  wire::ServerHello answer;
  absl::Status status = Exchange(socket.get(), hello, own.ok() ? own->fd() : -1, &fds, &answer);
  if (!status.ok()) return status;
  if (!instance_id.empty() && answer.instance_id() != instance_id) {
    attempt.reason = "another server answers at the rendezvous socket than over TCP";
    return attempt;
  }
  if (!answer.has_shm()) {
    if (attempt.reason.empty()) attempt.reason = answer.no_shm_reason();
    attempt.socket_usable = true;
    return attempt;
  }
  if (!own.ok() || fds.size() != 1 || answer.shm().ring_bytes() != shm::kRingBytes) {
    attempt.reason = absl::StrCat("the server's shared memory does not fit: ", fds.size(), " descriptors, a ring of ",
                                  answer.shm().ring_bytes(), " bytes where 1 and ", shm::kRingBytes, " are expected");
    return attempt;
  }
  absl::StatusOr<shm::PeerSegment> peer =
      shm::PeerSegment::Map(std::move(fds[0]), answer.shm().segment_bytes(), shm::kSegmentBytes);
  if (peer.ok() && peer->size() != shm::kSegmentBytes) peer = absl::InvalidArgumentError("memfd of the wrong size");
  if (!peer.ok()) {
    attempt.reason = std::string(peer.status().message());
    return attempt;
  }
  own->ReleaseFd();
  shm::RefuseFds(socket.get());
  attempt.link = std::make_unique<shm::ShmLink>(std::move(socket), *std::move(own), *std::move(peer));
  return attempt;
}

// To the address itself, whose server has to be one that this channel talks to.
absl::StatusOr<UniqueFd> Connector::ConnectUnixSocket() {
  absl::StatusOr<UniqueFd> socket = tcp::ConnectSocket(target_, options_.deadline, options_.interrupt_fd);
  if (!socket.ok()) return socket;
  peer_.credentials = tcp::GetPeerCredentials(socket->get());
  const std::string why_not =
      internal::WhyNotLetIn(options_.unix_socket_access, peer_.credentials, "the server",
                            "this channel talks to over Unix sockets", "the option unix_socket_access");
  if (!why_not.empty()) return absl::UnavailableError(why_not);
  return socket;
}

absl::Status Connector::ConnectUnix() {
  absl::StatusOr<UniqueFd> socket = ConnectUnixSocket();
  if (!socket.ok()) return socket.status();
  std::string reason = "asked for";
  if (options_.transport != TransportPreference::kUnix) {
    absl::StatusOr<ShmAttempt> attempt = TryShm(*socket, MakeHello(/*near=*/true), /*instance_id=*/"");
    if (!attempt.ok()) return attempt.status();
    if (attempt->link != nullptr) {
      link_ = std::move(attempt->link);
      choice_.name = "shm";
      peer_.transport = "shm";
      peer_.address = target_.ToString();
      return absl::OkStatus();
    }
    if (options_.transport == TransportPreference::kShm) return InsistedOnShm(attempt->reason);
    reason = attempt->reason;
    if (attempt->socket_usable) {
      UseSocket(*std::move(socket), "unix", std::move(reason));
      peer_.address = target_.ToString();
      return absl::OkStatus();
    }
    // The server took the offer, but this side could not: once more, without one.
    socket = ConnectUnixSocket();
    if (!socket.ok()) return socket.status();
  }
  wire::ServerHello answer;
  std::vector<UniqueFd> fds;
  absl::Status status = Exchange(socket->get(), MakeHello(/*near=*/true), -1, &fds, &answer);
  if (!status.ok()) return status;
  UseSocket(*std::move(socket), "unix", std::move(reason));
  peer_.address = target_.ToString();
  return absl::OkStatus();
}

// Moves on to shared memory if the server at the other end of the connection `tcp` is on this host. Empty, or why not.
//
// Nothing that the server says is enough for this: a server elsewhere could name any socket of this host, and one that
// passes on another one's hello would have this client talk to that. So the address says whether the server is here,
// the name cannot be that of just any socket, and the server at the rendezvous compares the connection that it gave the
// token to with the one that this client got it by.
std::string Connector::TryRendezvous(const wire::ServerHello& hello, int tcp) {
  if (!tcp::PeerIsOnThisHost(tcp)) {
    return absl::StrCat("peer on another host, or in another network namespace: its address, ", tcp::PeerAddress(tcp),
                        ", is none of this side's");
  }
  const absl::StatusOr<std::string> host_id = HostId();
  if (!host_id.ok()) return std::string(host_id.status().message());
  if (hello.host_id() != *host_id && !hello.host_id().empty()) return "peer on another host";
  if (!hello.has_rendezvous()) {
    return hello.no_shm_reason().empty() ? "the server offers no shared memory" : hello.no_shm_reason();
  }
  if (hello.host_id().empty()) return "the server does not say which host it is on";
  if (!IsRendezvousName(hello.rendezvous().abstract_name()) || hello.rendezvous().token().size() != kTokenBytes ||
      hello.instance_id().size() != kTokenBytes) {
    return "what the server says of its rendezvous socket is not what servers of this library say";
  }
  Target rendezvous;
  rendezvous.kind = Target::Kind::kUnixAbstract;
  rendezvous.name = hello.rendezvous().abstract_name();
  absl::StatusOr<UniqueFd> socket = tcp::ConnectSocket(rendezvous, options_.deadline, options_.interrupt_fd);
  if (!socket.ok()) {
    return absl::StrCat("the server's rendezvous socket cannot be reached: ", socket.status().message());
  }
  wire::ClientHello own_hello = MakeHello(/*near=*/true);
  own_hello.set_token(hello.rendezvous().token());
  tcp::TcpEnds ends = tcp::EndsOf(tcp);
  own_hello.mutable_token_connection()->set_client(std::move(ends.local));
  own_hello.mutable_token_connection()->set_server(std::move(ends.peer));
  absl::StatusOr<ShmAttempt> attempt = TryShm(*socket, std::move(own_hello), hello.instance_id());
  if (!attempt.ok()) return std::string(attempt.status().message());
  if (attempt->link == nullptr) return attempt->reason;
  link_ = std::move(attempt->link);
  return std::string();
}

absl::Status Connector::ConnectTcp() {
  absl::StatusOr<UniqueFd> socket = tcp::ConnectSocket(target_, options_.deadline, options_.interrupt_fd);
  if (!socket.ok()) return socket.status();
  wire::ServerHello hello;
  std::vector<UniqueFd> fds;
  absl::Status status = Exchange(socket->get(), MakeHello(tcp::PeerIsOnThisHost(socket->get())), -1, &fds, &hello);
  if (!status.ok()) return status;
  const bool tcp_only = options_.transport == TransportPreference::kTcp;
  const std::string address = tcp::PeerAddress(socket->get());
  std::string reason = tcp_only ? "asked for" : TryRendezvous(hello, socket->get());
  if (link_ != nullptr) {
    choice_.name = "shm";
    peer_.transport = "shm";
    peer_.address = address;
    return absl::OkStatus();
  }
  if (options_.transport == TransportPreference::kShm) return InsistedOnShm(reason);
  if (hello.shm_only()) {
    return absl::UnavailableError(absl::StrCat("the server at ", target_.ToString(),
                                               " takes calls over shared memory only (the option transport), and: ",
                                               tcp_only ? "this channel was told to use TCP" : reason));
  }
  peer_.credentials.reset();
  UseSocket(*std::move(socket), "tcp", std::move(reason));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Connection>> Connector::Connect() {
  const bool unix_socket = target_.kind != Target::Kind::kHostPort;
  if (unix_socket && options_.transport == TransportPreference::kTcp) {
    return absl::InvalidArgumentError(absl::StrCat("transport tcp was asked for, but ", target_.ToString(),
                                                   " is a Unix socket: use host:port, or transport unix"));
  }
  if (!unix_socket && options_.transport == TransportPreference::kUnix) {
    return absl::InvalidArgumentError(
        absl::StrCat("transport unix was asked for, but ", target_.ToString(),
                     " is not a Unix socket: use unix:path or unix-abstract:name, or transport tcp"));
  }
  absl::Status status = unix_socket ? ConnectUnix() : ConnectTcp();
  if (!status.ok()) return status;
  const framed::SessionOptions session_options{
      .spin_policy =
          framed::SpinPolicy(options_.wait_mode, framed::CanRunTogether(framed::AllowedCpus(), server_cpus_)),
      .granted_by_peer = granted_by_server_,
      .granted_to_peer = options_.flow_control,
      .keepalive_timeout = options_.keepalive_timeout,
      .peers_keepalive_timeout = servers_keepalive_timeout_};
  absl::StatusOr<std::unique_ptr<Connection>> connection =
      framed::MakeConnection(std::move(link_), session_options, std::move(choice_), std::move(peer_));
  if (connection.ok()) return connection;
  return absl::UnavailableError(connection.status().message());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> AutoTransport::Connect(const Target& target,
                                                                   const ConnectOptions& options) {
  if (options.transport == TransportPreference::kGrpc) {
    if (http2_ != nullptr) return http2_->Connect(target, options, "asked for");
    return absl::InvalidArgumentError(
        absl::StrCat("transport grpc was asked for ", target.ToString(),
                     ", but the channel's transports do not have it: link shmrpc::grpc and give the channel "
                     "TransportsWithGrpc()"));
  }
  Connector connector(target, options);
  absl::StatusOr<std::unique_ptr<Connection>> connection = connector.Connect();
  // Who insists on another way does not get this one.
  if (connection.ok() || http2_ == nullptr || connector.foreign() == Foreign::kNo ||
      options.transport != TransportPreference::kAuto) {
    return connection;
  }
  absl::StatusOr<std::unique_ptr<Connection>> foreign = http2_->Connect(target, options, "the server speaks gRPC only");
  if (foreign.ok() && connector.foreign() != Foreign::kHttp2) {
    // A server of this library that was just starting or ending may have hung up as well.
    connection = Connector(target, options).Connect();
    if (connection.ok()) return connection;
  }
  if (foreign.ok() || connector.foreign() == Foreign::kHttp2) return foreign;
  return absl::Status(connection.status().code(),
                      absl::StrCat(connection.status().message(), "; through gRPC: ", foreign.status().message()));
}

absl::StatusOr<std::unique_ptr<Listener>> AutoTransport::Listen(const Target& target, const ListenOptions& options,
                                                                CallHandler* handler) {
  return AutoListener::Start(target, options, handler, http2_.get());
}

}  // namespace shmrpc::autoselect
