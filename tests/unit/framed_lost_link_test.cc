// A client's connection that ends at the very moment at which a call begins on it, or that does other things to it: the
// call ends once, and says truthfully whether its request may have reached a handler.

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"
#include "tests/conformance/sync.h"
#include "tests/unit/framed_forwarding_link.h"
#include "tests/unit/framed_raw_peer.h"
#include "transports/framed/framed_connection.h"

namespace shmrpc::framed {
namespace {

// A link with something that happens, once, at a certain moment of sending.
class InterruptedLink final : public ForwardingLink {
 public:
  enum class Moment { kNever, kBeforeReserve, kBeforeCommit, kAfterFlush };

  using ForwardingLink::ForwardingLink;

  // Not while something is being sent.
  void Interrupt(Moment moment, std::function<void()> with) {
    with_ = std::move(with);
    moment_ = moment;
  }

  // Whether there is no room to send.
  void SetFull(bool full) { full_ = full; }

  // From now on there is always one more beat to be received.
  void BeginEndlessBeats() { endless_beats_ = true; }

  uint8_t* Reserve(size_t size) override {
    At(Moment::kBeforeReserve);
    return full_ ? nullptr : ForwardingLink::Reserve(size);
  }
  bool HasRoom() const override { return !full_ && ForwardingLink::HasRoom(); }
  bool AskForRoom() override { return true; }
  void Commit(size_t size) override {
    At(Moment::kBeforeCommit);
    ForwardingLink::Commit(size);
  }
  void Flush(bool always_ring) override {
    ForwardingLink::Flush(always_ring);
    At(Moment::kAfterFlush);
  }
  ReceiveResult Receive(Chunk* chunk) override {
    if (!endless_beats_) return ForwardingLink::Receive(chunk);
    FrameHeader beat = {.length = kFrameHeaderBytes, .type = FrameType::kAlive};
    StoreFrameHeader(chunk->data, beat);
    std::memcpy(chunk->data, &beat.length, sizeof beat.length);
    return ReceiveResult::kFrame;
  }

 private:
  void At(Moment moment) {
    Moment expected = moment;
    if (moment_.compare_exchange_strong(expected, Moment::kNever)) with_();
  }

  std::atomic<Moment> moment_{Moment::kNever};
  std::function<void()> with_;
  std::atomic<bool> full_{false};
  std::atomic<bool> endless_beats_{false};
};

class Recorder final : public CallEvents {
 public:
  explicit Recorder(bool runs_user_code) : runs_user_code_(runs_user_code) {}
  void OnHeaders(Metadata) override { ADD_FAILURE() << "headers"; }
  void OnMessage(const IncomingMessage&) override { ADD_FAILURE() << "a message"; }
  void OnStatus(CallEnd end) override {
    end_ = std::move(end);
    ends_.fetch_add(1, std::memory_order_release);
  }
  bool RunsUserCode() const override { return runs_user_code_; }

  int ends() const { return ends_.load(std::memory_order_acquire); }
  const CallEnd& end() const { return end_; }

 private:
  const bool runs_user_code_;
  CallEnd end_;
  std::atomic<int> ends_{0};
};

// The parameter: whether the call is one whose events run user code, which come from the poller's threads.
class LostLinkTest : public ::testing::TestWithParam<bool> {
 protected:
  using Moment = InterruptedLink::Moment;

  LostLinkTest() {
    const SessionOptions options = {.spin_policy = SpinPolicy(WaitMode::kEfficient, /*may_spin=*/false),
                                    .granted_by_peer = kWindows,
                                    .granted_to_peer = kWindows};
    auto link = std::make_unique<InterruptedLink>(peer_->TakeLink());
    link_ = link.get();
    absl::StatusOr<std::unique_ptr<Connection>> connection =
        MakeConnection(std::move(link), options, TransportChoice(), Peer());
    EXPECT_EQ(connection.status(), absl::OkStatus());
    connection_ = *std::move(connection);
  }

  // The peer hangs up, and the connection notices it, before the sending thread goes on.
  void LoseConnection() {
    peer_ = nullptr;
    EXPECT_TRUE(conformance::Eventually([this] { return connection_->IsOver(); }));
  }

  CallEnd RunCall() {
    Recorder recorder(GetParam());
    CallSpec spec;
    spec.method = "/a.Service/Method";
    const google::protobuf::BytesValue request;
    const OutgoingProto message(request);
    std::atomic<Call*> started = nullptr;
    connection_->StartCall(spec, &message, &recorder, &started);
    const CallPtr call(started);
    EXPECT_TRUE(call->WaitUntil([&] { return recorder.ends() > 0; }, SteadyTime::Now() + kHangGuard));
    call->Cancel(absl::CancelledError("too late"));
    EXPECT_EQ(recorder.ends(), 1);
    return recorder.end();
  }

  CallEnd RunCallThatIsInterrupted(Moment moment) {
    link_->Interrupt(moment, [this] { LoseConnection(); });
    return RunCall();
  }

  // So that the method's number is known, and the request is all that a further call sends.
  void RunCallInOrder() {
    std::thread server([this] {
      peer_->Expect(FrameType::kMethod);
      const uint64_t id = peer_->Expect(FrameType::kRequest).header.call_id;
      peer_->Send({.type = FrameType::kResponse,
                   .flags = kFlagNoMessage,
                   .code = static_cast<uint16_t>(absl::StatusCode::kAborted),
                   .call_id = id});
    });
    EXPECT_EQ(RunCall().status.code(), absl::StatusCode::kAborted);
    server.join();
  }

  std::unique_ptr<RawPeer> peer_ = std::make_unique<RawPeer>();
  InterruptedLink* link_;  // the connection's
  std::unique_ptr<Connection> connection_;
};

INSTANTIATE_TEST_SUITE_P(Calls, LostLinkTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "RunUserCode" : "AreWaitedFor"; });

TEST_P(LostLinkTest, BeforeTheCall) {
  LoseConnection();
  const CallEnd end = RunCall();
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(end.not_processed);
}

TEST_P(LostLinkTest, BeforeTheMethodIsAnnounced) {
  const CallEnd end = RunCallThatIsInterrupted(Moment::kBeforeReserve);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(end.not_processed);
}

TEST_P(LostLinkTest, BeforeTheRequestIsSent) {
  RunCallInOrder();
  const CallEnd end = RunCallThatIsInterrupted(Moment::kBeforeReserve);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(end.not_processed);
}

// What has been handed to the link may have reached the server: nobody can tell.
TEST_P(LostLinkTest, AfterTheRequestWasSent) {
  RunCallInOrder();
  const CallEnd end = RunCallThatIsInterrupted(Moment::kAfterFlush);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(end.not_processed);
}

TEST_P(LostLinkTest, WhileTheRequestIsHandedOver) {
  RunCallInOrder();
  const CallEnd end = RunCallThatIsInterrupted(Moment::kBeforeCommit);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(end.not_processed) << "a ring's memory would be read by the server until it sees the end";
}

TEST_P(LostLinkTest, TheLastGoAwayTellsThatNothingWasProcessed) {
  Recorder recorder(GetParam());
  CallSpec spec;
  spec.method = "/a.Service/Method";
  const google::protobuf::BytesValue request;
  const OutgoingProto message(request);
  std::atomic<Call*> started = nullptr;
  connection_->StartCall(spec, &message, &recorder, &started);
  const CallPtr call(started);
  peer_->Expect(FrameType::kMethod);
  peer_->Expect(FrameType::kRequest);
  peer_->Send({.type = FrameType::kGoAway, .flags = kFlagNotProcessed});
  EXPECT_TRUE(call->WaitUntil([&] { return recorder.ends() > 0; }, SteadyTime::Now() + kHangGuard));
  EXPECT_EQ(recorder.end().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(recorder.end().not_processed);
  EXPECT_TRUE(peer_->SeesTheEnd());
}

// Nor does a link that always has something keep a thread that receives from its deadline.
TEST_P(LostLinkTest, FramesWithoutEndKeepNobodyFromItsDeadline) {
  Recorder recorder(/*runs_user_code=*/false);
  CallSpec spec;
  spec.method = "/a.Service/Method";
  const google::protobuf::BytesValue request;
  const OutgoingProto message(request);
  std::atomic<Call*> started = nullptr;
  connection_->StartCall(spec, &message, &recorder, &started);
  const CallPtr call(started);
  link_->BeginEndlessBeats();
  EXPECT_FALSE(call->WaitUntil([&] { return recorder.ends() > 0; }, SteadyTime::Now() + absl::Milliseconds(20)));
  call->Cancel(absl::CancelledError("enough"));
  EXPECT_EQ(recorder.ends(), 1);
}

// A stream that has lost a message must not look as if it were whole: to a handler the half-close would say so.
TEST_P(LostLinkTest, NothingFollowsAMessageThatFoundNoRoomUntilTheDeadline) {
  Recorder recorder(GetParam());
  const google::protobuf::BytesValue request;
  const OutgoingProto message(request);
  CallSpec spec;
  spec.method = "/a.Service/Method";
  spec.client_streams = true;
  spec.deadline = SteadyTime::Now() + absl::Milliseconds(200);
  std::atomic<Call*> started = nullptr;
  connection_->StartCall(spec, &message, &recorder, &started);
  const CallPtr call(started);
  peer_->Expect(FrameType::kMethod);
  peer_->Expect(FrameType::kRequest);
  link_->SetFull(true);
  EXPECT_EQ(call->Send(message, /*last=*/false), SendResult::kOver);
  link_->SetFull(false);
  EXPECT_EQ(call->Send(message, /*last=*/false), SendResult::kOver);
  call->HalfClose();
  // The runtime, which keeps the deadline, notices it only now.
  call->Cancel(absl::DeadlineExceededError("too late"));
  peer_->Expect(FrameType::kReset);
  EXPECT_TRUE(call->WaitUntil([&] { return recorder.ends() > 0; }, SteadyTime::Now() + kHangGuard));
}

}  // namespace
}  // namespace shmrpc::framed
