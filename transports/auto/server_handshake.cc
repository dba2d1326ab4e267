#include "transports/auto/server_handshake.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
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
    progress = over_ ? Progress::kOver : ReadHello();
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
    absl::StatusOr<std::optional<size_t>> received =
        shm::ReceiveWithFds(fd_, absl::MakeSpan(buffer, size), &received_fds_);
    if (!received.ok()) {
      if (absl::IsResourceExhausted(received.status())) RefuseFor(received.status());
      return Progress::kOver;
    }
    if (!received->has_value()) return Progress::kMore;
    if (**received == 0) return Progress::kOver;
    reader_.Feed(absl::string_view(reinterpret_cast<const char*>(buffer), **received));
  }
  wire::ClientHello hello;
  if (reader_.state() == HelloReader::State::kComplete &&
      hello.ParseFromArray(reader_.body().data(), static_cast<int>(reader_.body().size()))) {
    Answer(hello);
    return Progress::kOver;
  }
  if (reader_.state() == HelloReader::State::kHttp2) {
    HandOverHttp2();
    return Progress::kOver;
  }
  static internal::LogLimiter limiter;
  internal::LogWarningLimited(
      limiter, absl::StrCat("closed a connection from ", peer_.address, " to ", listener_->address_.ToString(),
                            ": it does not speak shmrpc, its first bytes were \"",
                            absl::CEscape(reader_.received().substr(0, 32)), "\""));
  return Progress::kOver;
}

void ServerHandshake::HandOverHttp2() {
  if (door_ == Door::kRendezvous) return;
  if (listener_->http2_ == nullptr) {
    static internal::LogLimiter limiter;
    internal::LogWarningLimited(
        limiter, absl::StrCat("closed a connection from ", peer_.address, " to ", listener_->address_.ToString(),
                              ": it speaks HTTP/2, as gRPC clients do; to serve these, link shmrpc::grpc and give the "
                              "server TransportsWithGrpc()"));
    return;
  }
  framed::UniqueFd socket;
  {
    MutexLock lock(&mutex_);
    socket = std::move(socket_);
  }
  listener_->sessions_.poller()->Remove(this);
  place_->KeepUntilClosed(socket.get());
  listener_->http2_->Serve(std::move(socket), peer_, reader_.received());
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
  const absl::StatusOr<std::string> known_boot_id = BootId();
  const std::string boot_id = known_boot_id.value_or("");
  answer.set_boot_id(boot_id);
  answer.set_cpus(framed::AllowedCpus());
  answer.set_instance_id(listener_->instance_id_);
  answer.set_network_namespace(NetworkNamespace());
  const bool may_spin = framed::CanRunTogether(answer.cpus(), client.cpus());
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
  if (door_ == Door::kRendezvous && !listener_->RedeemToken(client.token())) {
    answer.set_refused("the token is unknown, used or too old");
    SendHello(fd_, answer, -1);
    return;
  }
  if (door_ == Door::kTcp) {
    if (!listener_->rendezvous_name_.empty() && client.boot_id() == boot_id) {
      answer.mutable_rendezvous()->set_abstract_name(listener_->rendezvous_name_);
      answer.mutable_rendezvous()->set_token(listener_->IssueToken());
    } else if (listener_->rendezvous_name_.empty()) {
      answer.set_no_shm_reason("the server does not offer shared memory");
    } else if (!known_boot_id.ok()) {
      answer.set_no_shm_reason(absl::StrCat("at the server ", known_boot_id.status().message()));
    }
  } else if (client.has_shm()) {
    // The link owns the socket from here on, and AcceptShm has sent the answer.
    std::unique_ptr<framed::Link> link = AcceptShm(client, &answer);
    if (link != nullptr) {
      peer_.transport = "shm";
      listener_->sessions_.Add(std::move(link), agreed, std::move(peer_), std::move(place_));
      return;
    }
    if (door_ == Door::kRendezvous) {
      SendHello(fd_, answer, -1);
      return;
    }
  }
  if (!SendHello(fd_, answer, -1)) return;
  framed::UniqueFd socket;
  {
    MutexLock lock(&mutex_);
    socket = std::move(socket_);
  }
  listener_->sessions_.poller()->Remove(this);
  const char* const name = door_ == Door::kTcp ? "tcp" : "unix";
  listener_->sessions_.Add(std::make_unique<tcp::SocketLink>(std::move(socket), name, absl::string_view()), agreed,
                           std::move(peer_), std::move(place_));
}

// Takes the client's segment, answers with the server's. Null: no shared memory, `answer` says why, nothing was sent.
std::unique_ptr<framed::Link> ServerHandshake::AcceptShm(const wire::ClientHello& client, wire::ServerHello* answer) {
  const auto refuse = [answer](absl::string_view reason) {
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
  if (absl::Status room = place_->TakeSharedMemory(shm::kSegmentBytes); !room.ok()) return refuse(room.message());
  if (absl::Status left = shm::CheckMemoryLeft(); !left.ok()) {
    return refuse(absl::StrCat("the server's ", left.message()));
  }
  absl::StatusOr<shm::Segment> own = shm::Segment::Create(shm::kSegmentBytes);
  if (!own.ok()) return refuse(absl::StrCat("the server's ", own.status().message()));
  answer->mutable_shm()->set_segment_bytes(shm::kSegmentBytes);
  answer->mutable_shm()->set_ring_bytes(shm::kRingBytes);
  if (!SendHello(fd_, *answer, own->fd())) return refuse("the descriptor could not be sent");
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
