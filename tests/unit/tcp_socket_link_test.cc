#include "transports/tcp/socket_link.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/link.h"
#include "transports/framed/unique_fd.h"
#include "transports/tcp/connect_socket.h"
#include "transports/tcp/listening_socket.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::tcp {
namespace {

using framed::Chunk;
using framed::kFrameHeaderBytes;
using framed::kMaxFrameBytes;
using framed::Link;
using framed::UniqueFd;
using Result = framed::Link::ReceiveResult;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kHangGuardMilliseconds = 60'000;

// What a frame of `size` bytes looks like on the wire; `seed` makes it differ from others.
std::string MakeFrame(size_t size, uint32_t seed = 1) {
  std::string frame(size, '\0');
  const uint32_t length = static_cast<uint32_t>(size);
  std::memcpy(frame.data(), &length, sizeof(length));
  for (size_t i = sizeof(length); i < size; ++i) frame[i] = static_cast<char>(seed * 31 + i * 7);
  return frame;
}

std::string ReceivedFrame(const Chunk& chunk) {
  uint32_t length;
  std::memcpy(&length, chunk.data, sizeof(length));
  return std::string(reinterpret_cast<const char*>(chunk.data), std::min<size_t>(length, kMaxFrameBytes));
}

bool SendFrame(SocketLink* link, const std::string& frame) {
  uint8_t* memory = link->Reserve(frame.size());
  if (memory == nullptr) return false;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 8, 0u);
  // The length word is Commit's.
  std::memcpy(memory + sizeof(uint32_t), frame.data() + sizeof(uint32_t), frame.size() - sizeof(uint32_t));
  link->Commit(frame.size());
  return true;
}

void WaitFor(int fd, short events) {
  pollfd wait = {fd, events, 0};
  ASSERT_EQ(poll(&wait, 1, kHangGuardMilliseconds), 1);
}

// An end that writes and reads plain bytes.
void WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      WaitFor(fd, POLLOUT);
      continue;
    }
    ASSERT_GT(sent, 0) << strerror(errno);
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

// Receives until something other than kEmpty comes.
Result ReceiveWaiting(SocketLink* link, Chunk* chunk) {
  while (true) {
    const Result result = link->Receive(chunk);
    if (result != Result::kEmpty) return result;
    pollfd wait = {link->fd(), POLLIN, 0};
    if (poll(&wait, 1, kHangGuardMilliseconds) != 1) {
      ADD_FAILURE() << "nothing came";
      return Result::kEmpty;
    }
  }
}

class SocketLinkTest : public ::testing::TestWithParam<bool> {
 protected:
  SocketLinkTest() : tcp_(GetParam()), chunk_(std::make_unique<Chunk>()) {
    if (tcp_) listening_ = std::move(ListenSockets(*Target::Parse("127.0.0.1:0"), 0600)->front());
  }

  std::pair<UniqueFd, UniqueFd> MakePair() {
    if (!tcp_) {
      int sockets[2];
      EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets), 0);
      return {UniqueFd(sockets[0]), UniqueFd(sockets[1])};
    }
    absl::StatusOr<UniqueFd> client = ConnectSocket(listening_.bound(), SteadyTime::InfiniteFuture());
    EXPECT_TRUE(client.ok()) << client.status();
    WaitFor(listening_.fd(), POLLIN);
    absl::StatusOr<std::optional<UniqueFd>> server = AcceptSocket(listening_.fd());
    EXPECT_TRUE(server.ok() && server->has_value());
    return {*std::move(client), std::move(**server)};
  }

  // A link and the bare socket at its other end.
  std::unique_ptr<SocketLink> MakeLink(std::string_view initial_bytes = "") {
    auto [own, peer] = MakePair();
    peer_ = std::move(peer);
    return std::make_unique<SocketLink>(std::move(own), tcp_ ? "tcp" : "unix", initial_bytes);
  }

  const bool tcp_;
  ListeningSocket listening_;
  UniqueFd peer_;
  const std::unique_ptr<Chunk> chunk_;
};

INSTANTIATE_TEST_SUITE_P(TcpAndUnix, SocketLinkTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Tcp" : "Unix"; });

TEST_P(SocketLinkTest, EveryPrefixOfAConversationThenClose) {
  const std::vector<std::string> frames = {MakeFrame(16, 1), MakeFrame(61, 2), MakeFrame(40, 3)};
  const std::string conversation = frames[0] + frames[1] + frames[2];
  for (size_t prefix = 0; prefix <= conversation.size(); ++prefix) {
    // Some of it was read together with the handshake.
    for (const size_t initial : {size_t{0}, prefix / 2, prefix}) {
      const std::unique_ptr<SocketLink> link = MakeLink(conversation.substr(0, initial));
      WriteAll(peer_.get(), conversation.substr(initial, prefix - initial));
      peer_.Reset();

      size_t whole = 0;
      for (const std::string& frame : frames) {
        if (whole + frame.size() > prefix) break;
        ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kFrame) << prefix;
        ASSERT_EQ(ReceivedFrame(*chunk_), frame);
        whole += frame.size();
      }
      ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kEnd) << prefix;
      EXPECT_EQ(link->end_status().code(), absl::StatusCode::kUnavailable);
      const std::string message(link->end_status().message());
      if (whole == prefix) {
        EXPECT_THAT(message, AllOf(HasSubstr("closed the connection"), Not(HasSubstr("middle"))));
      } else {
        EXPECT_THAT(message, HasSubstr("closed the connection in the middle of a frame"));
      }
      EXPECT_EQ(link->Receive(chunk_.get()), Result::kEnd);
      EXPECT_EQ(link->Reserve(kFrameHeaderBytes), nullptr);
      EXPECT_FALSE(link->HasRoom());
      EXPECT_FALSE(link->AskForRoom());
    }
  }
}

TEST_P(SocketLinkTest, OneByteAtATime) {
  const std::unique_ptr<SocketLink> link = MakeLink();
  for (const std::string& frame : {MakeFrame(16, 1), MakeFrame(20'001, 2), MakeFrame(17, 3)}) {
    for (size_t i = 0; i < frame.size(); ++i) {
      EXPECT_FALSE(link->HasFrame());
      ASSERT_EQ(link->Receive(chunk_.get()), Result::kEmpty);
      ASSERT_TRUE(link->PrepareToPark());
      ASSERT_EQ(send(peer_.get(), &frame[i], 1, MSG_NOSIGNAL), 1);
      WaitFor(link->fd(), POLLIN);
      link->DrainWakeups(/*hung_up=*/false);
      link->Unpark();
    }
    ASSERT_EQ(link->Receive(chunk_.get()), Result::kFrame);
    ASSERT_EQ(ReceivedFrame(*chunk_), frame);
  }
}

TEST_P(SocketLinkTest, ManyFramesInOneSegment) {
  std::vector<std::string> frames;
  std::string all;
  for (uint32_t i = 0; i < 500; ++i) {
    frames.push_back(MakeFrame(16 + i % 97, i));
    all += frames.back();
  }
  const std::unique_ptr<SocketLink> link = MakeLink();
  WriteAll(peer_.get(), all);
  for (const std::string& frame : frames) {
    ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kFrame);
    ASSERT_EQ(ReceivedFrame(*chunk_), frame);
    // Nobody may sleep before the kernel has been asked once more.
    EXPECT_FALSE(link->PrepareToPark());
  }
  EXPECT_EQ(link->Receive(chunk_.get()), Result::kEmpty);
  EXPECT_TRUE(link->PrepareToPark());
}

TEST_P(SocketLinkTest, BytesReadWithTheHandshakeComeFirst) {
  // As much as there can be, the last frame incomplete.
  std::string bytes;
  for (uint32_t i = 0; i < 5; ++i) bytes += MakeFrame(kMaxFrameBytes, i);
  const size_t cut = bytes.size() - 1000;
  const std::unique_ptr<SocketLink> link = MakeLink(bytes.substr(0, cut));
  EXPECT_TRUE(link->HasFrame());
  EXPECT_FALSE(link->PrepareToPark());
  WriteAll(peer_.get(), bytes.substr(cut));
  for (uint32_t i = 0; i < 5; ++i) {
    ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kFrame);
    ASSERT_EQ(ReceivedFrame(*chunk_), MakeFrame(kMaxFrameBytes, i));
  }
}

TEST_P(SocketLinkTest, Lengths) {
  for (const uint32_t length : {uint32_t{16}, uint32_t{17}, uint32_t{kMaxFrameBytes - 1}, uint32_t{kMaxFrameBytes}}) {
    const std::unique_ptr<SocketLink> link = MakeLink();
    const std::string frame = MakeFrame(length);
    WriteAll(peer_.get(), frame);
    ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kFrame) << length;
    EXPECT_EQ(ReceivedFrame(*chunk_), frame);
  }
  for (const uint32_t length :
       {uint32_t{0}, uint32_t{1}, uint32_t{15}, uint32_t{kMaxFrameBytes + 1}, uint32_t{0xFFFFFFFF}}) {
    const std::string word(reinterpret_cast<const char*>(&length), sizeof(length));
    // In each of the ways that bytes come: into the chunk, behind another frame, byte by byte, with the handshake.
    for (int way = 0; way < 4; ++way) {
      const std::unique_ptr<SocketLink> link = MakeLink(way == 3 ? word : "");
      if (way == 0) WriteAll(peer_.get(), word);
      if (way == 1) {
        WriteAll(peer_.get(), MakeFrame(16) + word);
        ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kFrame);
      }
      if (way == 2) {
        for (const char byte : word) {
          ASSERT_EQ(link->Receive(chunk_.get()), Result::kEmpty);
          ASSERT_EQ(send(peer_.get(), &byte, 1, MSG_NOSIGNAL), 1);
          WaitFor(link->fd(), POLLIN);
        }
      }
      if (way == 3) {
        EXPECT_FALSE(link->PrepareToPark());
      }
      ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kEnd) << length << ", way " << way;
      EXPECT_EQ(link->end_status().code(), absl::StatusCode::kInternal);
      EXPECT_THAT(std::string(link->end_status().message()),
                  AllOf(HasSubstr(std::to_string(length)), HasSubstr("16"), HasSubstr("65536")));
    }
  }
}

TEST_P(SocketLinkTest, FramesOfAllSizesAreAlignedAndKeepTheirOrder) {
  const std::unique_ptr<SocketLink> link = MakeLink();
  std::string expected;
  // Many frames for each Flush, with gaps behind most of them.
  for (uint32_t i = 0; i < 2000; ++i) {
    const std::string frame = MakeFrame(16 + i % 41, i);
    ASSERT_TRUE(SendFrame(link.get(), frame));
    expected += frame;
  }
  link->Flush(false);
  std::string received;
  while (received.size() < expected.size()) {
    char buffer[4096];
    WaitFor(peer_.get(), POLLIN);
    const ssize_t size = recv(peer_.get(), buffer, sizeof(buffer), 0);
    ASSERT_GT(size, 0);
    received.append(buffer, static_cast<size_t>(size));
    link->Flush(false);
  }
  EXPECT_TRUE(received == expected);
  EXPECT_FALSE(link->SendBufferFull());
}

TEST_P(SocketLinkTest, WhatWasNotCommittedIsForgotten) {
  const std::unique_ptr<SocketLink> link = MakeLink();
  uint8_t* memory = link->Reserve(1000);
  ASSERT_NE(memory, nullptr);
  std::memset(memory, 'x', 1000);
  const std::string first = MakeFrame(20, 1);
  const std::string second = MakeFrame(30, 2);
  ASSERT_TRUE(SendFrame(link.get(), first));
  memory = link->Reserve(5000);
  ASSERT_NE(memory, nullptr);
  std::memcpy(memory, second.data(), second.size());
  link->Commit(second.size());  // fewer bytes than reserved
  link->Flush(false);
  char buffer[4096];
  size_t size = 0;
  while (size < 50) {
    WaitFor(peer_.get(), POLLIN);
    const ssize_t result = recv(peer_.get(), buffer + size, sizeof(buffer) - size, 0);
    ASSERT_GT(result, 0);
    size += static_cast<size_t>(result);
  }
  EXPECT_EQ(std::string(buffer, size), first + second);
}

TEST_P(SocketLinkTest, AFullSocketFillsTheBufferAndLaterThereIsRoom) {
  const std::unique_ptr<SocketLink> link = MakeLink();
  EXPECT_TRUE(link->HasRoom());
  EXPECT_FALSE(link->AskForRoom());
  std::mt19937 random(1);
  std::string sent;
  uint32_t count = 0;
  const auto fill = [&] {
    while (true) {
      const std::string frame = MakeFrame(16 + random() % (kMaxFrameBytes - 15), ++count);
      if (!SendFrame(link.get(), frame)) {
        if (link->AskForRoom()) return;
        continue;
      }
      sent += frame;
      link->Flush(false);
    }
  };
  std::string received;
  const auto drain = [&](size_t wanted) {
    std::vector<char> buffer(100'000);
    while (received.size() < wanted) {
      WaitFor(peer_.get(), POLLIN);
      const ssize_t size = recv(peer_.get(), buffer.data(), buffer.size(), 0);
      ASSERT_GT(size, 0);
      received.append(buffer.data(), static_cast<size_t>(size));
      link->Flush(false);
    }
  };
  for (int round = 0; round < 5; ++round) {
    fill();
    EXPECT_TRUE(link->SendBufferFull());
    EXPECT_FALSE(link->HasRoom());
    drain(received.size() + (sent.size() - received.size()) * 3 / 4);
  }
  drain(sent.size());
  EXPECT_TRUE(received == sent);
  EXPECT_FALSE(link->SendBufferFull());
  EXPECT_TRUE(link->HasRoom());
  EXPECT_NE(link->Reserve(kMaxFrameBytes), nullptr);
}

TEST_P(SocketLinkTest, FramesAndEndInOneEdgeAreBothSeen) {
  const std::unique_ptr<SocketLink> link = MakeLink();
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, link->fd(), &event), 0);
  WriteAll(peer_.get(), MakeFrame(16));
  peer_.Reset();
  absl::SleepFor(absl::Milliseconds(20));  // so that the end has most likely come, too; either order must work
  bool ended = false;
  int frames = 0;
  while (!ended) {
    ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, kHangGuardMilliseconds), 1);
    Result result;
    while ((result = link->Receive(chunk_.get())) == Result::kFrame) ++frames;
    ended = result == Result::kEnd;
  }
  EXPECT_EQ(frames, 1);
}

TEST_P(SocketLinkTest, AFailedSendLosesNothingThatThePeerSentBefore) {
  const std::unique_ptr<SocketLink> link = MakeLink();
  // The peer does not read what is sent to it: closing with unread bytes resets the connection.
  ASSERT_TRUE(SendFrame(link.get(), MakeFrame(1000)));
  link->Flush(false);
  WaitFor(peer_.get(), POLLIN);
  const std::vector<std::string> frames = {MakeFrame(100, 1), MakeFrame(30'000, 2), MakeFrame(16, 3)};
  for (const std::string& frame : frames) WriteAll(peer_.get(), frame);
  peer_.Reset();
  WaitFor(link->fd(), POLLHUP);

  int attempts = 0;
  while (link->Reserve(1000) != nullptr) {
    ASSERT_LT(++attempts, 1000);
    link->Commit(1000);
    link->Flush(false);
  }
  EXPECT_FALSE(link->SendBufferFull());
  EXPECT_FALSE(link->HasRoom());
  for (const std::string& frame : frames) {
    ASSERT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kFrame);
    ASSERT_EQ(ReceivedFrame(*chunk_), frame);
  }
  EXPECT_EQ(ReceiveWaiting(link.get(), chunk_.get()), Result::kEnd);
  EXPECT_EQ(link->end_status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(SocketLinkTest, ShutdownIsSeenAtBothEnds) {
  auto [a, b] = MakePair();
  SocketLink left(std::move(a), "tcp", "");
  SocketLink right(std::move(b), "tcp", "");
  ASSERT_TRUE(SendFrame(&left, MakeFrame(50)));
  left.Flush(false);
  std::thread other([&left] { left.Shutdown(); });
  EXPECT_EQ(ReceiveWaiting(&left, chunk_.get()), Result::kEnd);
  other.join();
  EXPECT_THAT(std::string(left.end_status().message()), HasSubstr("this side closed"));
  EXPECT_EQ(left.Reserve(16), nullptr);
  EXPECT_EQ(ReceiveWaiting(&right, chunk_.get()), Result::kFrame);
  EXPECT_EQ(ReceiveWaiting(&right, chunk_.get()), Result::kEnd);
  EXPECT_THAT(std::string(right.end_status().message()), HasSubstr("closed the connection"));
  left.Shutdown();
}

std::string RandomFrame(std::mt19937* random) {
  const size_t limit = (*random)() % 8 == 0 ? kMaxFrameBytes : 300;
  const size_t size = kFrameHeaderBytes + (*random)() % (limit - kFrameHeaderBytes + 1);
  return MakeFrame(size, static_cast<uint32_t>((*random)()));
}

// Sends `count` frames whose sizes and contents follow from `seed`, waiting as a session does: edge-triggered.
void SendRandomFrames(SocketLink* link, uint32_t seed, int count) {
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLOUT | EPOLLET;
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, link->fd(), &event), 0);
  std::mt19937 random(seed);
  for (int i = 0; i < count; ++i) {
    const std::string frame = RandomFrame(&random);
    while (!SendFrame(link, frame)) {
      if (!link->AskForRoom()) continue;
      ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, kHangGuardMilliseconds), 1);
    }
    if (i % 4 == 0) link->Flush(false);
  }
  link->Flush(false);
  while (link->SendBufferFull()) {
    ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, kHangGuardMilliseconds), 1);
    link->Flush(false);
  }
}

void ReceiveRandomFrames(SocketLink* link, uint32_t seed, int count) {
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, link->fd(), &event), 0);
  const auto chunk = std::make_unique<Chunk>();
  std::mt19937 random(seed);
  for (int i = 0; i < count; ++i) {
    const std::string frame = RandomFrame(&random);
    Result result;
    while ((result = link->Receive(chunk.get())) == Result::kEmpty) {
      if (!link->PrepareToPark()) continue;
      ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, kHangGuardMilliseconds), 1);
      link->Unpark();
    }
    ASSERT_EQ(result, Result::kFrame) << link->end_status();
    ASSERT_TRUE(ReceivedFrame(*chunk) == frame) << "frame " << i;
  }
}

TEST_P(SocketLinkTest, BothEndsAtFullSpeed) {
  constexpr int kFrames = 20'000;
  auto [a, b] = MakePair();
  SocketLink left(std::move(a), tcp_ ? "tcp" : "unix", "");
  SocketLink right(std::move(b), tcp_ ? "tcp" : "unix", "");
  std::vector<std::thread> threads;
  threads.emplace_back([&left] { SendRandomFrames(&left, 1, kFrames); });
  threads.emplace_back([&right] { SendRandomFrames(&right, 2, kFrames); });
  threads.emplace_back([&right] { ReceiveRandomFrames(&right, 1, kFrames); });
  threads.emplace_back([&left] { ReceiveRandomFrames(&left, 2, kFrames); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace shmrpc::tcp
