#include "transports/framed/sender.h"

#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::framed {
namespace {

// A link that takes frames into a list, as many as there is room for. The sender's half only.
class FakeLink final : public Link {
 public:
  const std::string& name() const override { return name_; }
  uint8_t* Reserve(size_t size) override {
    if (room <= 0 || broken) return nullptr;
    reserved_.assign(size, 0);
    return reserved_.data();
  }
  void Commit(size_t size) override {
    uint32_t length;
    std::memcpy(&length, reserved_.data(), sizeof length);
    EXPECT_EQ(length, 0u) << "the length word publishes a frame and is written by the link only";
    length = static_cast<uint32_t>(size);
    std::memcpy(reserved_.data(), &length, sizeof length);
    frames.emplace_back(reserved_.begin(), reserved_.begin() + static_cast<ptrdiff_t>(size));
    --room;
  }
  size_t piece_bytes() const override { return piece; }
  void Flush(bool always_ring) override { rings += always_ring; }
  bool SendBufferFull() const override { return false; }
  bool HasRoom() const override { return room > 0 && !broken; }
  bool AskForRoom() override {
    ++asked;
    return room <= 0 && !broken;
  }
  void RingIfPeerBehind() override {}
  void FinishSending() override { finished = true; }
  ReceiveResult Receive(Chunk*) override { return ReceiveResult::kEmpty; }
  bool HasFrame() override { return false; }
  bool PrepareToPark() override { return true; }
  void Unpark() override {}
  void DrainWakeups(bool) override {}
  absl::Status end_status() const override { return absl::OkStatus(); }
  bool PeerBehind() const override { return false; }
  int fd() const override { return -1; }
  bool CheapToPoll() const override { return true; }
  void Shutdown() override {}

  std::atomic<int> room{1'000'000};
  std::atomic<bool> broken{false};
  size_t piece = kMaxFrameBytes;
  int asked = 0;
  int rings = 0;
  bool finished = false;
  std::vector<std::string> frames;

 private:
  const std::string name_ = "fake";
  std::vector<uint8_t> reserved_;
};

class FakeHost final : public Sender::Host {
 public:
  explicit FakeHost(FakeLink* link) : link_(link) {}
  bool WaitForRoom(SteadyTime deadline, absl::FunctionRef<bool()>) override {
    ++waits;
    if (grant > 0) {
      link_->room += grant;
      return true;
    }
    return SteadyTime::Now() < deadline && link_->HasRoom();
  }
  void WatchWritable() override {}

  int waits = 0;
  int grant = 0;  // room that comes with each wait

 private:
  FakeLink* const link_;
};

struct Fixture {
  explicit Fixture(bool may_spill) : host(&link), sender(&host, &link, may_spill, /*may_spin=*/false) {}

  bool Send(uint32_t call_id, size_t bytes, SteadyTime deadline = SteadyTime::InfiniteFuture(), bool stop = false,
            const std::string& control = "control") {
    google::protobuf::BytesValue message;
    message.set_value(std::string(bytes, static_cast<char>('a' + call_id)));
    FrameHeader header;
    header.type = FrameType::kRequest;
    header.call_id = call_id;
    const OutgoingProto outgoing(message);
    return sender.Send(header, control, &outgoing, deadline, [stop] { return stop; }) == Sender::Outcome::kSent;
  }

  FakeLink link;
  FakeHost host;
  Sender sender;
};

TEST(SenderTest, AControlPartThatIsTooLargeIsAnError) {
  Fixture fixture(/*may_spill=*/true);
  FrameHeader header;
  header.type = FrameType::kResponse;
  header.flags = kFlagNoMessage;
  for (const size_t bytes : {kMaxEncodedControlBytes, kMaxEncodedControlBytes + 1, size_t{70000}}) {
    EXPECT_EQ(fixture.sender.Send(header, std::string(bytes, 'c'), nullptr, SteadyTime::InfiniteFuture(),
                                  [] { return false; }),
              bytes <= kMaxEncodedControlBytes ? Sender::Outcome::kSent : Sender::Outcome::kTooLarge);
  }
  EXPECT_EQ(fixture.link.frames.size(), 1u);
}

FrameHeader HeaderOf(const std::string& frame) {
  return LoadFrameHeader(reinterpret_cast<const uint8_t*>(frame.data()));
}

// The message whose pieces the frames hold, checking the rules for fragments.
std::string Reassemble(const std::vector<std::string>& frames, size_t control_bytes) {
  std::string message;
  // A message in pieces begins with its size.
  if (frames.size() > 1) control_bytes += sizeof(uint32_t);
  for (size_t i = 0; i < frames.size(); ++i) {
    const FrameHeader header = HeaderOf(frames[i]);
    EXPECT_EQ(header.length, frames[i].size());
    EXPECT_LE(frames[i].size(), kMaxFrameBytes);
    EXPECT_EQ(header.type, i == 0 ? FrameType::kRequest : FrameType::kFragment);
    EXPECT_EQ((header.flags & kFlagMore) != 0, i + 1 < frames.size());
    message += frames[i].substr(kFrameHeaderBytes + (i == 0 ? control_bytes : 0));
  }
  if (frames.size() > 1) {
    uint32_t announced;
    std::memcpy(&announced, frames[0].data() + kFrameHeaderBytes, sizeof announced);
    EXPECT_EQ(announced, message.size());
  }
  return message;
}

TEST(SenderTest, MessagesOfEverySizeArriveWhole) {
  for (const size_t bytes : {size_t{0}, size_t{1}, kMaxFrameBytes - 100, kMaxFrameBytes - 27, kMaxFrameBytes - 26,
                             kMaxFrameBytes, 2 * kMaxFrameBytes - 50, 2 * kMaxFrameBytes - 40, size_t{1'000'000}}) {
    Fixture fixture(false);
    ASSERT_TRUE(fixture.Send(1, bytes)) << bytes;
    google::protobuf::BytesValue received;
    ASSERT_TRUE(received.ParseFromString(Reassemble(fixture.link.frames, 7)));
    EXPECT_EQ(received.value(), std::string(bytes, 'b'));
  }
}

TEST(SenderTest, PiecesAreAsLongAsTheLinkWantsThem) {
  Fixture fixture(/*may_spill=*/false);
  fixture.link.piece = 1000;
  ASSERT_TRUE(fixture.Send(1, kMaxFrameBytes));
  ASSERT_GT(fixture.link.frames.size(), 60);
  for (size_t i = 0; i + 1 < fixture.link.frames.size(); ++i) EXPECT_EQ(fixture.link.frames[i].size(), 1000) << i;
  google::protobuf::BytesValue message;
  ASSERT_TRUE(message.ParseFromString(Reassemble(fixture.link.frames, strlen("control"))));
  EXPECT_EQ(message.value(), std::string(kMaxFrameBytes, 'b'));
}

TEST(SenderTest, AControlPartLongerThanAPieceGoesWithAByteOfTheMessage) {
  Fixture fixture(/*may_spill=*/false);
  fixture.link.piece = 1000;
  const std::string control(5000, 'c');
  ASSERT_TRUE(fixture.Send(1, kMaxFrameBytes, SteadyTime::InfiniteFuture(), /*stop=*/false, control));
  EXPECT_EQ(fixture.link.frames[0].size(), kFrameHeaderBytes + sizeof(uint32_t) + control.size() + 1);
  google::protobuf::BytesValue message;
  ASSERT_TRUE(message.ParseFromString(Reassemble(fixture.link.frames, control.size())));
  EXPECT_EQ(message.value(), std::string(kMaxFrameBytes, 'b'));
}

TEST(SenderTest, WaitsForRoomAsOftenAsNeeded) {
  Fixture fixture(false);
  fixture.link.room = 0;
  fixture.host.grant = 1;
  ASSERT_TRUE(fixture.Send(1, 500'000));
  EXPECT_EQ(fixture.host.waits, static_cast<int>(fixture.link.frames.size()));
  google::protobuf::BytesValue received;
  EXPECT_TRUE(received.ParseFromString(Reassemble(fixture.link.frames, 7)));
}

TEST(SenderTest, AWaitingSenderGivesUpAtItsDeadlineAndSendsNothing) {
  Fixture fixture(false);
  fixture.link.room = 0;
  EXPECT_FALSE(fixture.Send(1, 10, SteadyTime::InfinitePast()));
  EXPECT_TRUE(fixture.link.frames.empty());
  fixture.link.room = 10;
  EXPECT_TRUE(fixture.Send(2, 10));
  EXPECT_EQ(fixture.link.frames.size(), 1u);
}

TEST(SenderTest, WhatIsSentOnlyIfThereIsRoomIsOtherwiseDropped) {
  for (const bool may_spill : {false, true}) {
    Fixture fixture(may_spill);
    FrameHeader alive;
    alive.type = FrameType::kAlive;
    fixture.sender.SendIfRoom(alive);
    ASSERT_EQ(fixture.link.frames.size(), 1u);
    EXPECT_EQ(HeaderOf(fixture.link.frames[0]).type, FrameType::kAlive);
    EXPECT_EQ(HeaderOf(fixture.link.frames[0]).length, kFrameHeaderBytes);

    fixture.link.room = 0;
    for (int i = 0; i < 100; ++i) fixture.sender.SendIfRoom(alive);
    FrameHeader reset;
    reset.type = FrameType::kReset;
    fixture.sender.SendControl(reset);
    const size_t one_frame = fixture.sender.SpilledBytes();
    EXPECT_GE(one_frame, kFrameHeaderBytes);
    EXPECT_LT(one_frame, 10 * kFrameHeaderBytes);
    // Nor does it overtake what waits for room.
    fixture.sender.SendIfRoom(alive);
    fixture.link.room = 10;
    fixture.sender.SendIfRoom(alive);
    ASSERT_EQ(fixture.link.frames.size(), 3u);
    EXPECT_EQ(HeaderOf(fixture.link.frames[1]).type, FrameType::kReset);
    EXPECT_EQ(HeaderOf(fixture.link.frames[2]).type, FrameType::kAlive);
  }
}

TEST(SenderTest, AMessageCutOffInTheMiddleIsFollowedByAReset) {
  Fixture fixture(false);
  fixture.link.room = 2;
  EXPECT_FALSE(fixture.Send(3, 500'000, SteadyTime::InfinitePast()));
  EXPECT_EQ(fixture.link.frames.size(), 2u);
  EXPECT_TRUE(fixture.sender.HasLeftover()) << "the reset has no room yet";
  fixture.link.room = 2;
  EXPECT_TRUE(fixture.Send(4, 10));
  ASSERT_EQ(fixture.link.frames.size(), 4u);
  EXPECT_EQ(HeaderOf(fixture.link.frames[2]).type, FrameType::kReset);
  EXPECT_EQ(HeaderOf(fixture.link.frames[2]).call_id, 3u);
  EXPECT_EQ(HeaderOf(fixture.link.frames[3]).call_id, 4u) << "the reset goes before anything else";
}

TEST(SenderTest, NothingOfAMessageFollowsAResetThatWasSentWhileItWaitedForRoom) {
  for (const bool may_spill : {false, true}) {
    for (const size_t bytes : {size_t{10}, size_t{500'000}}) {
      Fixture fixture(may_spill);
      fixture.link.room = bytes == 10 ? 0 : 2;
      fixture.host.grant = may_spill ? 0 : 100;
      google::protobuf::BytesValue message;
      message.set_value(std::string(bytes, 'x'));
      const OutgoingProto outgoing(message);
      FrameHeader header;
      header.type = FrameType::kRequest;
      header.call_id = 7;
      // Cancelled as soon as the sender has waited.
      EXPECT_EQ(fixture.sender.Send(header, "", &outgoing, SteadyTime::InfiniteFuture(),
                                    [&] { return fixture.host.waits > 0; }),
                bytes == 10 ? Sender::Outcome::kNothingSent : Sender::Outcome::kCutOff);
      fixture.link.room = 100;
      EXPECT_TRUE(fixture.sender.Continue());
      bool reset = false;
      for (const std::string& frame : fixture.link.frames) {
        EXPECT_FALSE(reset) << "a frame after the reset";
        EXPECT_GE(HeaderOf(frame).length, kFrameHeaderBytes);
        reset = HeaderOf(frame).type == FrameType::kReset;
      }
      EXPECT_EQ(fixture.link.frames.size(), bytes == 10 ? 0u : 3u);
    }
  }
}

TEST(SenderTest, StopEndsALargeMessage) {
  Fixture fixture(false);
  EXPECT_FALSE(fixture.Send(1, 500'000, SteadyTime::InfiniteFuture(), /*stop=*/true));
  EXPECT_TRUE(fixture.link.frames.empty());
}

TEST(SenderTest, ASpillingSenderTakesEverythingAndKeepsTheOrder) {
  Fixture fixture(true);
  fixture.link.room = 1;
  ASSERT_TRUE(fixture.Send(1, 10));
  ASSERT_TRUE(fixture.Send(2, 200'000));
  ASSERT_TRUE(fixture.Send(3, 10));
  EXPECT_EQ(fixture.host.waits, 1) << "patience is spent once, not per frame";
  EXPECT_EQ(fixture.link.frames.size(), 1u);
  EXPECT_TRUE(fixture.sender.HasLeftover());
  EXPECT_GT(fixture.link.asked, 0);
  EXPECT_FALSE(fixture.sender.Continue());
  fixture.link.room = 2;
  EXPECT_FALSE(fixture.sender.Continue());
  EXPECT_EQ(fixture.link.frames.size(), 3u);
  fixture.link.room = 100;
  EXPECT_TRUE(fixture.sender.Continue());
  EXPECT_FALSE(fixture.sender.HasLeftover());
  EXPECT_EQ(HeaderOf(fixture.link.frames.front()).call_id, 1u);
  EXPECT_EQ(HeaderOf(fixture.link.frames.back()).call_id, 3u);
  const std::vector<std::string> second(fixture.link.frames.begin() + 1, fixture.link.frames.end() - 1);
  google::protobuf::BytesValue received;
  EXPECT_TRUE(received.ParseFromString(Reassemble(second, 7)));
}

TEST(SenderTest, ControlFramesNeverWaitAndAlwaysRing) {
  Fixture fixture(false);
  fixture.link.room = 0;
  FrameHeader header;
  header.type = FrameType::kGoAway;
  fixture.sender.SendControl(header);
  EXPECT_EQ(fixture.host.waits, 0);
  fixture.link.room = 1;
  EXPECT_TRUE(fixture.sender.Continue());
  ASSERT_EQ(fixture.link.frames.size(), 1u);
  EXPECT_GT(fixture.link.rings, 0);
}

TEST(SenderTest, ABrokenLinkAndAClosedSenderRefuse) {
  Fixture broken(false);
  broken.link.broken = true;
  EXPECT_FALSE(broken.Send(1, 10));
  Fixture closed(true);
  closed.sender.Close();
  EXPECT_FALSE(closed.Send(1, 10));
  EXPECT_TRUE(closed.link.frames.empty());
}

TEST(SenderTest, SmallMessagesGoBetweenThePiecesOfLargeOnesAndPiecesNeverMix) {
  Fixture fixture(false);
  std::vector<std::thread> threads;
  for (uint32_t id = 1; id <= 4; ++id) {
    threads.emplace_back([&fixture, id] {
      for (int i = 0; i < 20; ++i) EXPECT_TRUE(fixture.Send(id, id <= 2 ? 300'000 : 10));
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t in_pieces = 0;
  for (const std::string& frame : fixture.link.frames) {
    const FrameHeader header = HeaderOf(frame);
    const bool more = (header.flags & kFlagMore) != 0;
    if (header.type == FrameType::kFragment) {
      ASSERT_EQ(header.call_id, in_pieces);
      if (!more) in_pieces = 0;
    } else if (more) {
      ASSERT_EQ(in_pieces, 0u) << "a second message in pieces inside the first";
      in_pieces = header.call_id;
    }
  }
  EXPECT_EQ(in_pieces, 0u);
}

}  // namespace
}  // namespace shmrpc::framed
