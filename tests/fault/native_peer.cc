#include "native_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "loopback.h"
#include "sync.h"

namespace shmrpc::fault {
namespace {

using conformance::kHangGuard;
using framed::UniqueFd;

constexpr size_t kMostFds = 253;  // the kernel's SCM_MAX_FD

sockaddr_un Abstract(absl::string_view name, socklen_t* size) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  EXPECT_LT(name.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path + 1, name.data(), std::min(name.size(), sizeof address.sun_path - 1));
  *size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

UniqueFd NewSocket(int family) {
  UniqueFd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_TRUE(socket.valid()) << strerror(errno);
  return socket;
}

bool WaitFor(int socket, short events, absl::Duration timeout = kHangGuard) {
  pollfd ready = {socket, events, 0};
  int result;
  do {
    result = poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout)));
  } while (result < 0 && errno == EINTR);
  return result > 0;
}

UniqueFd AcceptAt(int listener) {
  UniqueFd socket(WaitFor(listener, POLLIN) ? accept4(listener, nullptr, nullptr, SOCK_CLOEXEC) : -1);
  EXPECT_TRUE(socket.valid()) << "no client has come";
  return socket;
}

}  // namespace

std::string WayName(Way way) { return way == Way::kShm ? "shm" : "tcp"; }

// ---- Sockets.

UniqueFd ConnectTcpSocket(uint16_t port) {
  UniqueFd socket = NewSocket(AF_INET);
  const sockaddr_in address = Loopback(port);
  EXPECT_EQ(connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << strerror(errno);
  return socket;
}

UniqueFd ConnectAbstractSocket(absl::string_view name) {
  UniqueFd socket = NewSocket(AF_UNIX);
  socklen_t size;
  const sockaddr_un address = Abstract(name, &size);
  EXPECT_EQ(connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size), 0) << strerror(errno);
  return socket;
}

UniqueFd ConnectSocketTo(const Target& address) {
  return address.kind == Target::Kind::kHostPort ? ConnectTcpSocket(address.port) : ConnectAbstractSocket(address.name);
}

bool SendWithFds(int socket, absl::string_view bytes, const std::vector<int>& fds) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMostFds * sizeof(int))] = {};
  size_t with = fds.size();
  while (!bytes.empty()) {
    iovec piece = {const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (with > 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(with * sizeof(int));
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(with * sizeof(int));
      std::memcpy(CMSG_DATA(header), fds.data(), with * sizeof(int));
    }
    const ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      // A peer that has ended the connection, and keeps its descriptor, takes nothing any more.
      pollfd ready = {.fd = socket, .events = POLLOUT | POLLRDHUP, .revents = 0};
      poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(kHangGuard)));
      if ((ready.revents & POLLOUT) == 0) return false;
      continue;
    }
    if (sent < 0 && errno == EPERM && with > 0) {
      // The kernel refuses descriptors for a socket that does not want any (SO_PASSRIGHTS): the bytes go alone.
      with = 0;
      continue;
    }
    if (sent <= 0) return false;
    with = 0;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string ReceiveSome(int socket, size_t size, std::vector<UniqueFd>* fds, bool* ended) {
  *ended = false;
  if (!WaitFor(socket, POLLIN)) return {};
  std::string bytes(size, '\0');
  iovec piece = {bytes.data(), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMostFds * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (received <= 0) {
    *ended = received == 0 || errno == ECONNRESET;
    return {};
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t offset = CMSG_LEN(0); offset < header->cmsg_len; offset += sizeof(int)) {
      int fd;
      std::memcpy(&fd, reinterpret_cast<const char*>(header) + offset, sizeof fd);
      UniqueFd owned(fd);
      if (fds != nullptr) fds->push_back(std::move(owned));
    }
  }
  bytes.resize(static_cast<size_t>(received));
  return bytes;
}

bool SocketSeesTheEnd(int socket) {
  bool ended = false;
  while (!ReceiveSome(socket, 65536, nullptr, &ended).empty()) {
  }
  return ended;
}

std::optional<std::string> ReceiveHelloMessage(int socket, std::vector<UniqueFd>* fds) {
  std::string received;
  size_t wanted = kHelloPrefixBytes;
  while (received.size() < wanted) {
    bool ended;
    const std::string some = ReceiveSome(socket, wanted - received.size(), fds, &ended);
    if (some.empty()) {
      EXPECT_TRUE(ended) << "nothing comes";
      return std::nullopt;
    }
    received += some;
    if (received.size() < kHelloPrefixBytes || wanted > kHelloPrefixBytes) continue;
    EXPECT_EQ(received.substr(0, kMagic.size()), kMagic);
    uint32_t length;
    std::memcpy(&length, received.data() + kMagic.size(), sizeof length);
    EXPECT_LE(length, 4096u);
    wanted += length;
  }
  return received.substr(kHelloPrefixBytes);
}

// ---- Connections.

NativeConnection::NativeConnection(UniqueFd socket) : socket_(std::move(socket)) {}

NativeConnection::NativeConnection(UniqueFd socket, NativeSegment own, NativeSegment peer)
    : socket_(std::move(socket)),
      own_(std::move(own)),
      peer_(std::move(peer)),
      producer_(std::make_unique<NativeProducer>(&own_, &peer_)),
      consumer_(std::make_unique<NativeConsumer>(&own_, &peer_)) {}

void NativeConnection::RingDoorbell() {
  const char bell = 'b';
  (void)!send(socket_.get(), &bell, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool NativeConnection::TrySendBytes(absl::string_view frame) {
  if (over_shm()) {
    if (!producer_->Publish(frame)) return false;
    if (producer_->TakeParked()) {
      rung_at_ = producer_->produced();
      RingDoorbell();
    }
    return true;
  }
  const auto send_unsent = [this] {
    const ssize_t sent = send(socket_.get(), unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) unsent_.erase(0, static_cast<size_t>(sent));
    return unsent_.empty();
  };
  if (!unsent_.empty() && !send_unsent()) return false;
  unsent_ = std::string(frame);
  send_unsent();
  return true;
}

bool NativeConnection::SendBytes(absl::string_view frame) {
  if (!over_shm()) return SendWithFds(socket_.get(), std::exchange(unsent_, {}) + std::string(frame));
  return conformance::Eventually([&] {
           if (TrySendBytes(frame)) return true;
           producer_->AskForRoom();
           if (TrySendBytes(frame)) return true;
           return HasEnded();
         }) &&
         !ended_;
}

std::optional<std::string> NativeConnection::ReceiveFromStream(size_t size) {
  std::string bytes;
  while (bytes.size() < size) {
    const std::string some = ReceiveSome(socket_.get(), size - bytes.size(), nullptr, &ended_);
    if (some.empty()) return std::nullopt;
    bytes += some;
  }
  return bytes;
}

std::optional<std::string> NativeConnection::ReceiveRecord() {
  for (;;) {
    std::optional<std::string> record = consumer_->Take();
    if (consumer_->TakeRoomRequest()) RingDoorbell();
    if (record.has_value() || ended_) return record;
    if (!consumer_->Park()) continue;
    if (producer_->PeerBehind() && rung_at_ != producer_->produced()) {
      rung_at_ = producer_->produced();
      RingDoorbell();
    }
    const bool readable = WaitFor(socket_.get(), POLLIN | POLLRDHUP);
    consumer_->Unpark();
    if (!readable) return std::nullopt;
    (void)HasEnded();
  }
}

std::optional<NativeFrame> NativeConnection::Receive() {
  std::optional<std::string> frame;
  if (over_shm()) {
    frame = ReceiveRecord();
  } else {
    frame = ReceiveFromStream(sizeof(uint32_t));
    if (!frame.has_value()) return std::nullopt;
    uint32_t length;
    std::memcpy(&length, frame->data(), sizeof length);
    EXPECT_GE(length, kFrameHeader);
    EXPECT_LE(length, kLargestFrame);
    const std::optional<std::string> rest = ReceiveFromStream(length - sizeof length);
    if (!rest.has_value()) return std::nullopt;
    *frame += *rest;
  }
  if (!frame.has_value()) return std::nullopt;
  return DecodeFrame(*frame);
}

std::optional<NativeFrame> NativeConnection::TryReceive() {
  const std::optional<std::string> record = consumer_->Take();
  if (consumer_->TakeRoomRequest()) RingDoorbell();
  if (!record.has_value()) return std::nullopt;
  return DecodeFrame(*record);
}

bool NativeConnection::HasEnded() {
  char bells[4096];
  const ssize_t taken = recv(socket_.get(), bells, sizeof bells, MSG_DONTWAIT);
  if (taken == 0 || (taken < 0 && errno != EAGAIN && errno != EINTR)) ended_ = true;
  return ended_;
}

NativeFrame NativeConnection::Expect(FrameType type, uint64_t call_id) {
  for (;;) {
    std::optional<NativeFrame> frame = Receive();
    if (!frame.has_value()) {
      ADD_FAILURE() << (ended_ ? "closed" : "silent") << " where a frame of type " << int{type} << " was expected";
      return {};
    }
    if (frame->type == kAliveFrame || (frame->type == kCreditFrame && type != kCreditFrame)) continue;
    EXPECT_EQ(int{frame->type}, int{type});
    EXPECT_EQ(frame->call_id, call_id);
    return *std::move(frame);
  }
}

bool NativeConnection::SeesTheEnd() {
  while (Receive().has_value()) {
  }
  return ended_;
}

// ---- A client.

std::optional<Hello> ExchangeHellos(int socket, const Hello& hello, const std::vector<int>& fds_to_pass,
                                    std::vector<UniqueFd>* fds) {
  if (!SendWithFds(socket, hello.EncodeAsClient(), fds_to_pass)) return std::nullopt;
  const std::optional<std::string> message = ReceiveHelloMessage(socket, fds);
  if (!message.has_value()) return std::nullopt;
  std::optional<Hello> answer = Hello::FromServer(*message);
  EXPECT_TRUE(answer.has_value()) << "the server's hello cannot be read";
  return answer;
}

Invitation AskForInvitation(uint16_t port) {
  Invitation invitation;
  invitation.tcp = ConnectTcpSocket(port);
  const std::optional<Hello> answer = ExchangeHellos(invitation.tcp.get(), Hello());
  EXPECT_TRUE(answer.has_value() && answer->refused.empty() && answer->rendezvous.has_value());
  if (answer.has_value()) invitation.hello = *answer;
  if (!invitation.hello.rendezvous.has_value()) invitation.hello.rendezvous.emplace();
  return invitation;
}

Hello::Connection ConnectionOf(int client) {
  const auto encode = [client](auto get) {
    sockaddr_in end = {};
    socklen_t size = sizeof end;
    EXPECT_EQ(get(client, reinterpret_cast<sockaddr*>(&end), &size), 0);
    return absl::StrCat(std::string(10, '\0'), "\xff\xff",
                        absl::string_view(reinterpret_cast<const char*>(&end.sin_addr), 4),
                        absl::string_view(reinterpret_cast<const char*>(&end.sin_port), 2));
  };
  return {encode(getsockname), encode(getpeername)};
}

Hello Invitation::Acceptance() const {
  Hello acceptance;
  acceptance.token = hello.rendezvous->token;
  acceptance.token_connection = ConnectionOf(tcp.get());
  return acceptance;
}

std::unique_ptr<NativeConnection> ConnectNative(Way way, const Target& address) {
  if (way == Way::kTcp) {
    UniqueFd socket = ConnectSocketTo(address);
    const std::optional<Hello> answer = ExchangeHellos(socket.get(), Hello());
    EXPECT_TRUE(answer.has_value() && answer->version == 1 && answer->refused.empty());
    return answer.has_value() ? std::make_unique<NativeConnection>(std::move(socket)) : nullptr;
  }
  Hello hello;
  Invitation invitation;
  UniqueFd socket;
  if (address.kind == Target::Kind::kHostPort) {
    invitation = AskForInvitation(address.port);
    hello = invitation.Acceptance();
    socket = ConnectAbstractSocket(invitation.hello.rendezvous->abstract_name);
  } else {
    socket = ConnectSocketTo(address);
  }
  hello.shm.emplace();
  NativeSegment own = NativeSegment::Own();
  std::vector<UniqueFd> fds;
  const std::optional<Hello> answer = ExchangeHellos(socket.get(), hello, {own.fd()}, &fds);
  if (!answer.has_value() || !answer->shm.has_value() || fds.size() != 1) {
    ADD_FAILURE() << "no shared memory: "
                  << (answer.has_value() ? absl::StrCat(answer->refused, answer->no_shm_reason) : "closed");
    return nullptr;
  }
  EXPECT_EQ(answer->shm->segment_bytes, kSegmentBytes);
  EXPECT_EQ(answer->shm->ring_bytes, kRingBytes);
  return std::make_unique<NativeConnection>(std::move(socket), std::move(own),
                                            NativeSegment::OfPeer(std::move(fds[0])));
}

// ---- A server.

NativeServer::NativeServer(Way way)
    : way_(way),
      rendezvous_name_([] {
        static std::atomic<int> next{0};
        return absl::StrCat("shmrpc-", absl::Hex(getpid(), absl::kZeroPad16), absl::Hex(next++, absl::kZeroPad16));
      }()),
      tcp_(NewSocket(AF_INET)) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(tcp_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(tcp_.get(), 16), 0);
  EXPECT_EQ(getsockname(tcp_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  port_ = ntohs(address.sin_port);
  if (way == Way::kTcp) return;
  rendezvous_ = NewSocket(AF_UNIX);
  socklen_t name_size;
  const sockaddr_un name = Abstract(rendezvous_name_, &name_size);
  EXPECT_EQ(bind(rendezvous_.get(), reinterpret_cast<const sockaddr*>(&name), name_size), 0);
  EXPECT_EQ(listen(rendezvous_.get(), 16), 0);
}

std::string NativeServer::address() const { return absl::StrCat("127.0.0.1:", port_); }

UniqueFd NativeServer::AcceptTcp() { return AcceptAt(tcp_.get()); }
UniqueFd NativeServer::AcceptAtRendezvous() { return AcceptAt(rendezvous_.get()); }

bool NativeServer::AnswerHello(int socket, const Hello& answer) {
  const std::optional<std::string> message = ReceiveHelloMessage(socket, nullptr);
  if (!message.has_value()) return false;
  const std::optional<Hello> hello = Hello::FromClient(*message);
  EXPECT_TRUE(hello.has_value() && hello->version == 1);
  return SendWithFds(socket, answer.EncodeAsServer());
}

Hello NativeServer::Invite() const {
  Hello hello;
  hello.rendezvous = {rendezvous_name_, std::string(16, 't')};
  return hello;
}

std::unique_ptr<NativeConnection> NativeServer::Accept(Hello answer) {
  UniqueFd tcp = AcceptTcp();
  if (!tcp.valid() || !AnswerHello(tcp.get(), way_ == Way::kTcp ? answer : Invite())) return nullptr;
  if (way_ == Way::kTcp) return std::make_unique<NativeConnection>(std::move(tcp));
  UniqueFd socket = AcceptAtRendezvous();
  std::vector<UniqueFd> fds;
  const std::optional<std::string> message = ReceiveHelloMessage(socket.get(), &fds);
  const std::optional<Hello> hello = message.has_value() ? Hello::FromClient(*message) : std::nullopt;
  if (!hello.has_value() || !hello->shm.has_value() || fds.size() != 1) {
    ADD_FAILURE() << "the client does not offer shared memory";
    return nullptr;
  }
  EXPECT_EQ(hello->token, std::string(16, 't'));
  EXPECT_EQ(hello->shm->segment_bytes, kSegmentBytes);
  EXPECT_EQ(hello->shm->ring_bytes, kRingBytes);
  NativeSegment own = NativeSegment::Own();
  answer.shm.emplace();
  EXPECT_TRUE(SendWithFds(socket.get(), answer.EncodeAsServer(), {own.fd()}));
  return std::make_unique<NativeConnection>(std::move(socket), std::move(own),
                                            NativeSegment::OfPeer(std::move(fds[0])));
}

}  // namespace shmrpc::fault
