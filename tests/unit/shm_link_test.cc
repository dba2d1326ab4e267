#include "transports/shm/shm_link.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include "gtest/gtest.h"
#include "transports/framed/chunk_pool.h"
#include "transports/framed/frame.h"
#include "transports/framed/unique_fd.h"
#include "transports/shm/segment.h"

namespace shmrpc::shm {
namespace {

using framed::Link;
using framed::UniqueFd;

PeerSegment AsPeer(const Segment& segment) {
  auto peer = PeerSegment::Map(UniqueFd(fcntl(segment.fd(), F_DUPFD_CLOEXEC, 0)), kSegmentBytes, kSegmentBytes);
  EXPECT_TRUE(peer.ok()) << peer.status();
  return *std::move(peer);
}

// Two ends of a link in one process; the near one's descriptor is watched as a session has it watched.
class ShmLinkTest : public testing::Test {
 protected:
  ShmLinkTest() {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets), 0);
    auto near_segment = Segment::Create(kSegmentBytes);
    auto far_segment = Segment::Create(kSegmentBytes);
    PeerSegment near_as_peer = AsPeer(*near_segment), far_as_peer = AsPeer(*far_segment);
    near_ = std::make_unique<ShmLink>(UniqueFd(sockets[0]), *std::move(near_segment), std::move(far_as_peer), "shm");
    far_ = std::make_unique<ShmLink>(UniqueFd(sockets[1]), *std::move(far_segment), std::move(near_as_peer), "shm");
    epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event = {};
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
    EXPECT_EQ(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, near_->fd(), &event), 0);
  }

  static void SendFrame(Link* link) {
    framed::FrameHeader header;
    header.type = framed::FrameType::kGoAway;
    uint8_t* const frame = link->Reserve(framed::kFrameHeaderBytes);
    ASSERT_NE(frame, nullptr);
    framed::StoreFrameHeader(frame, header);
    link->Commit(framed::kFrameHeaderBytes);
    link->Flush(/*always_ring=*/true);
  }

  // Takes what epoll reports now, which must be something, as a session does.
  void TakeEvents() {
    epoll_event event = {};
    ASSERT_EQ(epoll_wait(epoll_.get(), &event, 1, 0), 1);
    near_->DrainWakeups((event.events & (EPOLLRDHUP | EPOLLHUP)) != 0);
  }

  Link::ReceiveResult Receive() {
    framed::ChunkPtr chunk = framed::ChunkPool::TakeForThread();
    return near_->Receive(chunk.get());
  }

  std::unique_ptr<ShmLink> near_, far_;
  UniqueFd epoll_;
};

TEST_F(ShmLinkTest, ReceivesWhatWasSentBeforeAHangUpThatIsReportedWithTheDoorbell) {
  SendFrame(far_.get());
  far_ = nullptr;
  TakeEvents();
  EXPECT_EQ(Receive(), Link::ReceiveResult::kFrame);
  EXPECT_EQ(Receive(), Link::ReceiveResult::kEnd);
  EXPECT_TRUE(near_->HungUp());
}

TEST_F(ShmLinkTest, NoticesAHangUpBehindMoreDoorbellsThanAreTakenAtOnce) {
  const char bells[8000] = {};
  ASSERT_EQ(send(far_->fd(), bells, sizeof bells, 0), static_cast<ssize_t>(sizeof bells));
  far_ = nullptr;
  TakeEvents();
  EXPECT_EQ(Receive(), Link::ReceiveResult::kEnd);
}

TEST_F(ShmLinkTest, ADoorbellAloneIsNoHangUp) {
  SendFrame(far_.get());
  TakeEvents();
  EXPECT_EQ(Receive(), Link::ReceiveResult::kFrame);
  EXPECT_EQ(Receive(), Link::ReceiveResult::kEmpty);
  EXPECT_TRUE(near_->PrepareToPark());
  far_ = nullptr;
  TakeEvents();
  EXPECT_EQ(Receive(), Link::ReceiveResult::kEnd);
}

}  // namespace
}  // namespace shmrpc::shm
