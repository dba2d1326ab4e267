// The link's socket, which is doorbell and notice of the peer's end in one.

#include "transports/shm/shm_link.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include "gtest/gtest.h"

namespace shmrpc::shm {
namespace {

using framed::UniqueFd;

PeerSegment AsPeer(const Segment& segment) {
  return PeerSegment::Map(UniqueFd(fcntl(segment.fd(), F_DUPFD_CLOEXEC, 0)), kSegmentBytes, kSegmentBytes).value();
}

struct Links {
  Links() {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets), 0);
    Segment first = Segment::Create(kSegmentBytes).value();
    Segment second = Segment::Create(kSegmentBytes).value();
    PeerSegment first_as_peer = AsPeer(first);
    PeerSegment second_as_peer = AsPeer(second);
    one = std::make_unique<ShmLink>(UniqueFd(sockets[0]), std::move(first), std::move(second_as_peer));
    other = std::make_unique<ShmLink>(UniqueFd(sockets[1]), std::move(second), std::move(first_as_peer));
  }

  void SendFrame() {
    ASSERT_NE(one->Reserve(framed::kFrameHeaderBytes), nullptr);
    one->Commit(framed::kFrameHeaderBytes);
    one->Flush(/*always_ring=*/true);
  }

  std::unique_ptr<ShmLink> one;
  std::unique_ptr<ShmLink> other;
  framed::Chunk chunk;
};

// Edge-triggered epoll reports the two once, if they come together.
TEST(ShmLinkTest, AHangUpIsSeenBehindADoorbell) {
  Links links;
  links.SendFrame();
  links.one.reset();
  links.other->DrainWakeups(/*hang_up=*/true);
  EXPECT_TRUE(links.other->HungUp());
  EXPECT_EQ(links.other->Receive(&links.chunk), framed::Link::ReceiveResult::kFrame);
  EXPECT_EQ(links.other->Receive(&links.chunk), framed::Link::ReceiveResult::kEnd);
}

TEST(ShmLinkTest, WhoHasFinishedSendingStillReceives) {
  Links links;
  links.SendFrame();
  links.one->FinishSending();
  links.other->DrainWakeups(/*hang_up=*/true);
  EXPECT_EQ(links.other->Receive(&links.chunk), framed::Link::ReceiveResult::kFrame);
  EXPECT_EQ(links.other->Receive(&links.chunk), framed::Link::ReceiveResult::kEnd);
  ASSERT_NE(links.other->Reserve(framed::kFrameHeaderBytes), nullptr);
  links.other->Commit(framed::kFrameHeaderBytes);
  links.other->Flush(/*always_ring=*/true);
  links.one->DrainWakeups(/*hang_up=*/false);
  EXPECT_FALSE(links.one->HungUp());
  EXPECT_EQ(links.one->Receive(&links.chunk), framed::Link::ReceiveResult::kFrame);
  EXPECT_EQ(links.one->Receive(&links.chunk), framed::Link::ReceiveResult::kEmpty);
}

}  // namespace
}  // namespace shmrpc::shm
