#ifndef SHMRPC_TESTS_UNIT_AUTO_RAW_PEER_H_
#define SHMRPC_TESTS_UNIT_AUTO_RAW_PEER_H_

// A peer of a real listener or a real channel that says in its hello what it likes, and sends the frames that it likes:
// over TCP, or over shared memory that it has agreed on at a Unix socket.

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/target.h"
#include "shmrpc/transport.h"
#include "shmrpc/wire.pb.h"
#include "transports/auto/hello.h"
#include "transports/framed/frame.h"
#include "transports/framed/link.h"
#include "transports/shm/fd_passing.h"
#include "transports/shm/shm_link.h"
#include "transports/tcp/connect_socket.h"
#include "transports/tcp/listening_socket.h"
#include "transports/tcp/socket_link.h"

namespace shmrpc::autoselect {

inline constexpr absl::Duration kHangGuard = absl::Seconds(60);

enum class RawWay { kTcp, kShm };
inline std::string RawWayName(RawWay way) { return way == RawWay::kTcp ? "tcp" : "shm"; }

// Where a server of that way listens.
inline std::string RawAddress(RawWay way) {
  static std::atomic<int> next{0};
  return way == RawWay::kTcp ? "127.0.0.1:0" : absl::StrCat("unix-abstract:raw-peer-", getpid(), "-", next++);
}

// The frames of a connection, one by one. Not thread-safe, but for one that sends and one that receives.
class RawFrames {
 public:
  explicit RawFrames(std::unique_ptr<framed::Link> link) : link_(std::move(link)) {}

  // False when the other side is gone, or takes nothing for implausibly long.
  bool Send(framed::FrameHeader header, std::string_view body = "") {
    const size_t size = framed::kFrameHeaderBytes + body.size();
    const SteadyTime give_up = SteadyTime::Now() + kHangGuard;
    uint8_t* frame = nullptr;
    while ((frame = link_->Reserve(size)) == nullptr) {
      if (give_up.HasPassed() || stopped_ || ended_ || link_->HungUp()) return false;
      link_->Flush(/*always_ring=*/true);
      std::this_thread::yield();
    }
    header.length = static_cast<uint32_t>(size);
    framed::StoreFrameHeader(frame, header);
    std::memcpy(frame + framed::kFrameHeaderBytes, body.data(), body.size());
    link_->Commit(size);
    link_->Flush(/*always_ring=*/true);
    while (link_->SendBufferFull()) {
      if (give_up.HasPassed() || stopped_ || ended_) return false;
      std::this_thread::yield();
      link_->Flush(/*always_ring=*/true);
    }
    return true;
  }

  // From now on Send does not wait for room.
  void StopSending() { stopped_ = true; }

  // The next frame's header; none when the other side has hung up. `body`: may be null.
  std::optional<framed::FrameHeader> Receive(std::string* body = nullptr) {
    const SteadyTime give_up = SteadyTime::Now() + kHangGuard;
    while (!give_up.HasPassed()) {
      switch (link_->Receive(&chunk_)) {
        case framed::Link::ReceiveResult::kFrame: {
          const framed::FrameHeader header = framed::LoadFrameHeader(chunk_.data);
          if (body != nullptr) {
            body->assign(reinterpret_cast<const char*>(chunk_.data) + framed::kFrameHeaderBytes,
                         header.length - framed::kFrameHeaderBytes);
          }
          return header;
        }
        case framed::Link::ReceiveResult::kEnd:
          ended_ = true;
          return std::nullopt;
        case framed::Link::ReceiveResult::kEmpty:
          // The end of a ring's socket is found out by looking there.
          link_->DrainWakeups(/*hung_up=*/false);
          absl::SleepFor(absl::Microseconds(200));
      }
    }
    ADD_FAILURE() << "nothing came";
    return std::nullopt;
  }

  // The next frame, which has to be of that type.
  framed::FrameHeader Expect(framed::FrameType type) {
    const std::optional<framed::FrameHeader> header = Receive();
    if (!header.has_value()) {
      ADD_FAILURE() << "hung up where a frame of type " << static_cast<int>(type) << " was expected";
      return {};
    }
    EXPECT_EQ(static_cast<int>(header->type), static_cast<int>(type));
    return *header;
  }

  // Whether the other side hangs up, whatever it sends before.
  bool SeesTheEnd() {
    while (Receive().has_value()) {
    }
    return ended_;
  }

 private:
  const std::unique_ptr<framed::Link> link_;
  framed::Chunk chunk_;
  std::atomic<bool> stopped_{false};
  std::atomic<bool> ended_{false};
};

// A client's hello, and a server's, in order but for what a test changes.
template <typename Hello>
Hello OrderlyHello() {
  Hello hello;
  hello.set_version(kProtocolVersion);
  hello.mutable_window()->set_call_bytes(64 * 1024);
  hello.mutable_window()->set_connection_bytes(1024 * 1024);
  return hello;
}

// Connects to a real server. Null when that fails, which fails the test.
inline std::unique_ptr<RawFrames> ConnectRaw(RawWay way, const Target& address, wire::ClientHello hello) {
  absl::StatusOr<framed::UniqueFd> socket = tcp::ConnectSocket(address, SteadyTime::Now() + kHangGuard);
  absl::StatusOr<shm::Segment> own = shm::Segment::Create(shm::kSegmentBytes);
  if (!socket.ok() || !own.ok()) {
    ADD_FAILURE() << socket.status() << own.status();
    return nullptr;
  }
  if (way == RawWay::kShm) {
    hello.mutable_shm()->set_segment_bytes(shm::kSegmentBytes);
    hello.mutable_shm()->set_ring_bytes(shm::kRingBytes);
  }
  wire::ServerHello answer;
  std::vector<framed::UniqueFd> fds;
  Foreign foreign = Foreign::kNo;
  const absl::Status status = ExchangeHellos(socket->get(), hello, way == RawWay::kShm ? own->fd() : -1,
                                             SteadyTime::Now() + kHangGuard, -1, &answer, &fds, &foreign);
  if (!status.ok() || fds.size() != (way == RawWay::kShm ? 1u : 0u)) {
    ADD_FAILURE() << status << "; " << answer.refused() << answer.no_shm_reason();
    return nullptr;
  }
  if (way == RawWay::kTcp) {
    return std::make_unique<RawFrames>(std::make_unique<tcp::SocketLink>(*std::move(socket), "tcp", ""));
  }
  absl::StatusOr<shm::PeerSegment> peer =
      shm::PeerSegment::Map(std::move(fds[0]), shm::kSegmentBytes, shm::kSegmentBytes);
  EXPECT_TRUE(peer.ok()) << peer.status();
  if (!peer.ok()) return nullptr;
  return std::make_unique<RawFrames>(
      std::make_unique<shm::ShmLink>(*std::move(socket), *std::move(own), *std::move(peer)));
}

// Listens for one real client at a time.
class RawServer {
 public:
  explicit RawServer(RawWay way) : way_(way), socket_(Listen(RawAddress(way))) {
    EXPECT_TRUE(socket_.ok()) << socket_.status();
  }

  std::string address() const { return socket_->bound().ToString(); }

  // The next client, answered with `hello`.
  std::unique_ptr<RawFrames> Accept(wire::ServerHello hello) {
    framed::UniqueFd client = AcceptSocket();
    HelloReader reader;
    std::vector<framed::UniqueFd> fds;
    const SteadyTime give_up = SteadyTime::Now() + kHangGuard;
    while (reader.state() == HelloReader::State::kMore && !give_up.HasPassed()) {
      uint8_t buffer[256];
      const auto received =
          shm::ReceiveWithFds(client.get(), std::span(buffer, std::min(reader.Wanted(), sizeof buffer)), &fds);
      if (!received.ok()) break;
      if (!received->has_value()) {
        absl::SleepFor(absl::Milliseconds(1));
      } else {
        reader.Feed(std::string_view(reinterpret_cast<const char*>(buffer), **received));
      }
    }
    absl::StatusOr<shm::Segment> own = shm::Segment::Create(shm::kSegmentBytes);
    if (reader.state() != HelloReader::State::kComplete || !own.ok() || fds.size() != (way_ == RawWay::kShm)) {
      ADD_FAILURE() << "no client has said hello";
      return nullptr;
    }
    if (way_ == RawWay::kShm) {
      hello.mutable_shm()->set_segment_bytes(shm::kSegmentBytes);
      hello.mutable_shm()->set_ring_bytes(shm::kRingBytes);
    }
    const std::string bytes = EncodeHello(hello);
    const auto sent =
        shm::SendWithFd(client.get(), std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()),
                        way_ == RawWay::kShm ? own->fd() : -1);
    EXPECT_TRUE(sent.ok() && *sent == bytes.size());
    if (way_ == RawWay::kTcp) {
      return std::make_unique<RawFrames>(std::make_unique<tcp::SocketLink>(std::move(client), "tcp", ""));
    }
    absl::StatusOr<shm::PeerSegment> peer =
        shm::PeerSegment::Map(std::move(fds[0]), shm::kSegmentBytes, shm::kSegmentBytes);
    EXPECT_TRUE(peer.ok()) << peer.status();
    if (!peer.ok()) return nullptr;
    return std::make_unique<RawFrames>(
        std::make_unique<shm::ShmLink>(std::move(client), *std::move(own), *std::move(peer)));
  }

 private:
  static absl::StatusOr<tcp::ListeningSocket> Listen(const std::string& address) {
    absl::StatusOr<std::vector<tcp::ListeningSocket>> sockets = tcp::ListenSockets(*Target::Parse(address), 0600);
    if (!sockets.ok()) return sockets.status();
    return std::move(sockets->front());
  }

  framed::UniqueFd AcceptSocket() {
    const SteadyTime give_up = SteadyTime::Now() + kHangGuard;
    while (!give_up.HasPassed()) {
      absl::StatusOr<std::optional<framed::UniqueFd>> socket = tcp::AcceptSocket(socket_->fd());
      EXPECT_TRUE(socket.ok()) << socket.status();
      if (!socket.ok()) break;
      if (socket->has_value()) return **std::move(socket);
      absl::SleepFor(absl::Milliseconds(1));
    }
    ADD_FAILURE() << "no client has come";
    return framed::UniqueFd();
  }

  const RawWay way_;
  absl::StatusOr<tcp::ListeningSocket> socket_;
};

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TESTS_UNIT_AUTO_RAW_PEER_H_
