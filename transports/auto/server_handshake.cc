#include "transports/auto/server_handshake.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/access_check.h"
#include "runtime/src/log.h"
#include "shmrpc/steady_time.h"
#include "transports/shm/fd_passing.h"
#include "transports/shm/memory_left.h"
#include "transports/shm/segment.h"
#include "transports/shm/shm_link.h"
#include "transports/tcp/socket_address.h"
#include "transports/tcp/socket_link.h"

namespace shmrpc::autoselect {

using Door = AutoListener::Door;

namespace {

// What is thrown away of a client that is not served, before the connection is closed all the same.
constexpr size_t kMostDiscarded = 64 * 1024;

std::string Http1Answer(std::string_view text) {
  return absl::StrCat("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ",
                      text.size(), "\r\nConnection: close\r\n\r\n", text);
}

}  // namespace

ServerHandshake::ServerHandshake(AutoListener* listener, framed::UniqueFd socket, Door door, Peer peer,
                                 internal::ConnectionLimiter::PlacePtr place)
    : listener_(listener),
      door_(door),
      fd_(socket.get()),
      peer_(std::move(peer)),
      place_(std::move(place)),
      socket_(std::move(socket)) {}

ServerHandshake::~ServerHandshake() {
  internal::DeadlineTimer::Handle timeout;
  {
    MutexLock lock(&mutex_);
    timeout = timeout_;
  }
  internal::DeadlineTimer::Get().Cancel(timeout);
}

absl::Status ServerHandshake::Start() {
  {
    MutexLock lock(&mutex_);
    timeout_ = internal::DeadlineTimer::Get().Schedule(SteadyTime::Now() + listener_->options_.limits.handshake_timeout,
                                                       [weak = weak_from_this()] {
                                                         if (auto self = weak.lock()) {
                                                           static_cast<ServerHandshake*>(self.get())->Abort();
                                                         }
                                                       });
  }
  absl::Status status = listener_->sessions_.poller()->Add(shared_from_this(), EPOLLIN);
  if (status.ok()) listener_->sessions_.poller()->Kick(shared_from_this());
  return status;
}

void ServerHandshake::Abort() {
  MutexLock lock(&mutex_);
  if (socket_.valid() && !answering_) ::shutdown(socket_.get(), SHUT_RDWR);
}

framed::Pollable::Outcome ServerHandshake::Poll(bool, framed::Task**) {
  Progress progress;
  do {
    if (!right_.TryAcquire()) return Outcome::kElsewhere;
    progress = over_ ? Progress::kOver : discarding_ ? Discard() : ReadHello();
    if (progress == Progress::kOver && !over_) {
      over_ = true;
      Finish();
    }
  } while (right_.Release());
  return progress == Progress::kOver ? Outcome::kOver : Outcome::kEmpty;
}

ServerHandshake::Progress ServerHandshake::ReadHello() {
  while (reader_.state() == HelloReader::State::kMore) {
    uint8_t buffer[512];
    const size_t size = std::min(reader_.Wanted(), sizeof buffer);
    absl::StatusOr<std::optional<size_t>> received = shm::ReceiveWithFds(fd_, std::span(buffer, size), &received_fds_);
    if (!received.ok()) {
      if (!absl::IsUnavailable(received.status()) && !absl::IsAborted(received.status())) RefuseFor(received.status());
      return Progress::kOver;
    }
    if (!received->has_value()) return Progress::kMore;
    if (**received == 0) return Progress::kOver;
    reader_.Feed(std::string_view(reinterpret_cast<const char*>(buffer), **received));
  }
  wire::ClientHello hello;
  if (reader_.state() == HelloReader::State::kComplete &&
      hello.ParseFromArray(reader_.body().data(), static_cast<int>(reader_.body().size()))) {
    Answer(hello);
    return Progress::kOver;
  }
  if (reader_.state() == HelloReader::State::kHttp2) return HandOverHttp2();
  static internal::LogLimiter limiter;
  internal::LogWarningLimited(
      limiter, absl::StrCat("closed a connection from ", peer_.address, " to ", listener_->address_.ToString(),
                            ": it does not speak shmrpc, its first bytes were \"",
                            absl::CEscape(reader_.received().substr(0, 32)), "\""));
  if (reader_.state() != HelloReader::State::kHttp1 || door_ == Door::kRendezvous) return Progress::kOver;
  return SayFarewell(Http1Answer(absl::StrCat(
      "This is the port of a shmrpc server. It speaks shmrpc's own protocol",
      listener_->http2_ != nullptr ? " and gRPC's (HTTP/2 with prior knowledge)" : "", ", not HTTP/1.\n")));
}

ServerHandshake::Progress ServerHandshake::HandOverHttp2() {
  if (door_ == Door::kRendezvous) return Progress::kOver;
  // In HTTP/2 there is no answer: a client that had one would take it for a server's, and come back at once.
  const char* refused = nullptr;
  if (listener_->http2_ == nullptr) {
    refused = "to serve gRPC clients, link shmrpc::grpc and give the server TransportsWithGrpc()";
  } else if (listener_->InsistsOnShm()) {
    refused = "the server takes calls over shared memory only (the option transport), which gRPC clients cannot make";
  }
  if (refused != nullptr) {
    static internal::LogLimiter limiter;
    internal::LogWarningLimited(
        limiter, absl::StrCat("closed a connection from ", peer_.address, " to ", listener_->address_.ToString(),
                              ": it speaks HTTP/2, as gRPC clients do; ", refused));
    return Progress::kOver;
  }
  framed::UniqueFd socket;
  {
    MutexLock lock(&mutex_);
    socket = std::move(socket_);
  }
  listener_->sessions_.poller()->Remove(this);
  place_->KeepUntilClosed(socket.get());
  listener_->http2_->Serve(std::move(socket), peer_, reader_.received());
  return Progress::kOver;
}

ServerHandshake::Progress ServerHandshake::SayFarewell(const std::string& answer) {
  // It is short, and the socket's buffer empty.
  if (send(fd_, answer.data(), answer.size(), MSG_DONTWAIT | MSG_NOSIGNAL) != static_cast<ssize_t>(answer.size()) ||
      ::shutdown(fd_, SHUT_WR) != 0) {
    return Progress::kOver;
  }
  discarding_ = true;
  return Discard();
}

ServerHandshake::Progress ServerHandshake::Discard() {
  char buffer[4096];
  while (discarded_ < kMostDiscarded) {
    const ssize_t size = recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return Progress::kMore;
    if (size <= 0) break;
    discarded_ += static_cast<size_t>(size);
  }
  return Progress::kOver;
}

// Answers the hello and makes the session.
void ServerHandshake::Answer(const wire::ClientHello& client) {
  {
    // A client that has the answer may begin to call. From here on the connection ends through its session, which tells
    // what has become of the calls.
    MutexLock lock(&mutex_);
    answering_ = true;
  }
  wire::ServerHello answer;
  answer.set_version(kProtocolVersion);
  // Who is on another host need not know what this one is.
  const bool near = door_ != Door::kTcp || tcp::PeerIsOnThisHost(fd_);
  const absl::StatusOr<std::string> host_id = HostId();
  const std::string cpus = framed::AllowedCpus();
  if (near) {
    answer.set_host_id(host_id.value_or(""));
    answer.set_cpus(cpus);
  }
  answer.set_instance_id(listener_->instance_id_);
  const bool may_spin = framed::CanRunTogether(cpus, client.cpus());
  SetWindow(listener_->options_.flow_control, answer.mutable_window());
  answer.set_keepalive_ms(ToKeepaliveMs(listener_->options_.keepalive_timeout));
  if (client.version() != kProtocolVersion) {
    answer.set_refused(absl::StrCat("the server speaks version ", kProtocolVersion, " of the protocol, the client ",
                                    client.version()));
    SendHello(fd_, answer, -1);
    return;
  }
  const absl::StatusOr<FlowControlOptions> window = GetWindow(client.window());
  if (!window.ok()) {
    answer.set_refused(std::string(window.status().message()));
    SendHello(fd_, answer, -1);
    return;
  }
  const framed::ServerSessions::Agreed agreed = {
      .may_spin = may_spin, .granted_by_peer = *window, .peers_keepalive_timeout = GetKeepaliveTimeout(client)};
  if (door_ == Door::kRendezvous) {
    const std::string why_not = listener_->RedeemToken(client.token(), client.token_connection());
    if (!why_not.empty()) {
      answer.set_refused(why_not);
      SendHello(fd_, answer, -1);
      return;
    }
  }
  if (door_ == Door::kTcp) {
    const std::string why_not = WhyNoRendezvous(client, near, host_id);
    if (listener_->InsistsOnShm() && !why_not.empty()) return RefuseWithoutShm(&answer, why_not);
    if (why_not.empty()) {
      answer.mutable_rendezvous()->set_abstract_name(listener_->rendezvous_name_);
      answer.mutable_rendezvous()->set_token(listener_->IssueToken(fd_));
    } else {
      answer.set_no_shm_reason(why_not);
    }
    if (listener_->InsistsOnShm()) {
      answer.set_shm_only(true);
      SendHello(fd_, answer, -1);
      return;
    }
  } else if (client.has_shm()) {
    // The link owns the socket from here on, and AcceptShm has sent the answer.
    std::unique_ptr<framed::Link> link = AcceptShm(client, &answer);
    if (link != nullptr) {
      shm::RefuseFds(link->fd());
      peer_.transport = "shm";
      listener_->sessions_.Add(std::move(link), agreed, std::move(peer_), std::move(place_));
      return;
    }
    if (!answer.has_shm() && door_ == Door::kRendezvous) SendHello(fd_, answer, -1);
    if (answer.has_shm() || door_ == Door::kRendezvous) return;
  }
  if (listener_->InsistsOnShm()) {
    return RefuseWithoutShm(&answer, client.has_shm() ? answer.no_shm_reason() : "the client does not offer any");
  }
  if (door_ == Door::kUnix) shm::RefuseFds(fd_);
  if (!SendHello(fd_, answer, -1)) return;
  framed::UniqueFd socket;
  {
    MutexLock lock(&mutex_);
    socket = std::move(socket_);
  }
  listener_->sessions_.poller()->Remove(this);
  const char* const name = door_ == Door::kTcp ? "tcp" : "unix";
  listener_->sessions_.Add(std::make_unique<tcp::SocketLink>(std::move(socket), name, std::string_view()), agreed,
                           std::move(peer_), std::move(place_));
}

void ServerHandshake::RefuseWithoutShm(wire::ServerHello* answer, std::string_view reason) {
  static internal::LogLimiter limiter;
  internal::LogWarningLimited(
      limiter, absl::StrCat("refused a connection from ", peer_.address, " to ", listener_->address_.ToString(),
                            ", because its calls cannot come ", "over shared memory: ", reason));
  answer->set_refused(
      absl::StrCat("the server takes calls over shared memory only (the option transport), and: ", reason));
  SendHello(fd_, *answer, -1);
}

std::string ServerHandshake::WhyNoRendezvous(const wire::ClientHello& client, bool near,
                                             const absl::StatusOr<std::string>& host_id) {
  if (listener_->rendezvous_name_.empty()) return "the server does not offer shared memory";
  if (!near) {
    return absl::StrCat("peer on another host, or in another network namespace: the client's address, ", peer_.address,
                        ", is none of the server's side");
  }
  if (!host_id.ok()) return absl::StrCat("at the server ", host_id.status().message());
  if (client.host_id().empty()) return "the client does not say which host it is on";
  if (client.host_id() != *host_id) return "peer on another host";
  return std::string();
}

// Takes the client's segment, answers with the server's. Null: no shared memory; `answer` says why, and is still to be
// sent. If it has `shm` all the same, it was sent in part, and the connection is of no use.
std::unique_ptr<framed::Link> ServerHandshake::AcceptShm(const wire::ClientHello& client, wire::ServerHello* answer) {
  const auto refuse = [answer](std::string_view reason) {
    answer->clear_shm();
    answer->set_no_shm_reason(std::string(reason.data(), reason.size()));
    return nullptr;
  };
  if (!listener_->OffersShm(door_)) return refuse("the server does not offer shared memory");
  const std::string stranger =
      internal::WhyNotLetIn(listener_->options_.shared_memory_access, peer_.credentials, "the client",
                            "the server shares memory with", "the option shared_memory_access");
  if (!stranger.empty()) {
    static internal::LogLimiter limiter;
    internal::LogWarningLimited(limiter, absl::StrCat("no shared memory for a client (", peer_.address, ") of ",
                                                      listener_->address_.ToString(), ": ", stranger));
    return refuse(stranger);
  }
  if (received_fds_.size() != 1) {
    return refuse(absl::StrCat("the client sent ", received_fds_.size(), " descriptors where 1 is expected"));
  }
  if (client.shm().ring_bytes() != shm::kRingBytes || client.shm().segment_bytes() != shm::kSegmentBytes) {
    return refuse(absl::StrCat("the client offers a ring of ", client.shm().ring_bytes(), " bytes where ",
                               shm::kRingBytes, " are expected"));
  }
  absl::StatusOr<shm::PeerSegment> peer =
      shm::PeerSegment::Map(std::move(received_fds_[0]), shm::kSegmentBytes, shm::kSegmentBytes);
  received_fds_.clear();
  if (!peer.ok()) return refuse(absl::StrCat("the server refused the client's memory: ", peer.status().message()));
  if (absl::Status left = shm::CheckMemoryLeft(); !left.ok()) {
    return refuse(absl::StrCat("the server's ", left.message()));
  }
  absl::StatusOr<shm::Segment> own = shm::Segment::Create(shm::kSegmentBytes);
  if (!own.ok()) return refuse(absl::StrCat("the server's ", own.status().message()));
  // Last, because the connection keeps it.
  if (absl::Status room = place_->TakeSharedMemory(shm::kSegmentBytes); !room.ok()) return refuse(room.message());
  answer->mutable_shm()->set_segment_bytes(shm::kSegmentBytes);
  answer->mutable_shm()->set_ring_bytes(shm::kRingBytes);
  if (!SendHello(fd_, *answer, own->fd())) return nullptr;
  own->ReleaseFd();
  framed::UniqueFd socket;
  {
    MutexLock lock(&mutex_);
    socket = std::move(socket_);
  }
  listener_->sessions_.poller()->Remove(this);
  return std::make_unique<shm::ShmLink>(std::move(socket), *std::move(own), *std::move(peer));
}

// A client whose hello cannot be received.
void ServerHandshake::RefuseFor(const absl::Status& reason) {
  static internal::LogLimiter limiter;
  internal::LogWarningLimited(limiter, absl::StrCat("refused a connection from ", peer_.address, " to ",
                                                    listener_->address_.ToString(), ": ", reason.message()));
  wire::ServerHello answer;
  answer.set_version(kProtocolVersion);
  answer.set_refused(absl::StrCat("the server could not receive the client's hello: ", reason.message()));
  SendHello(fd_, answer, -1);
}

void ServerHandshake::Finish() {
  for (framed::UniqueFd& fd : received_fds_) shm::CloseReceived(std::move(fd));
  received_fds_.clear();
  place_.reset();
  internal::DeadlineTimer::Handle timeout;
  framed::UniqueFd socket;
  {
    MutexLock lock(&mutex_);
    timeout = std::exchange(timeout_, {});
    socket = std::move(socket_);
  }
  internal::DeadlineTimer::Get().Cancel(timeout);
  if (socket.valid()) listener_->sessions_.poller()->Remove(this);
  listener_->HandshakeOver(this);
}

}  // namespace shmrpc::autoselect
