// Clients whose peer is the test, and that have many calls in flight: that these take few system calls, and that
// nothing they put off waits for something slow.

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"
#include "tests/conformance/sync.h"
#include "tests/unit/framed_counting_link.h"
#include "tests/unit/framed_raw_peer.h"
#include "transports/framed/framed_connection.h"

namespace shmrpc::framed {
namespace {

using conformance::Event;

// A call whose end does something, on the poller's thread.
class RunningCall final : public CallEvents {
 public:
  explicit RunningCall(std::function<void()> on_end) : on_end_(std::move(on_end)) {}
  void OnHeaders(Metadata) override {}
  void OnMessage(const IncomingMessage&) override {}
  void OnStatus(CallEnd) override {
    const std::function<void()> on_end = std::move(on_end_);
    call.load()->Release();
    delete this;
    on_end();
  }
  bool RunsUserCode() const override { return true; }

  std::atomic<Call*> call = nullptr;

 private:
  ~RunningCall() override = default;
  std::function<void()> on_end_;
};

// A call that a thread waits for.
class WaitingCall final : public CallEvents {
 public:
  void OnHeaders(Metadata) override {}
  void OnMessage(const IncomingMessage&) override {}
  void OnStatus(CallEnd) override { over.Set(); }
  bool RunsUserCode() const override { return false; }

  Event over;
};

class ClientBatchTest : public ::testing::Test {
 protected:
  ClientBatchTest() {
    const SessionOptions options = {.spin_policy = SpinPolicy(WaitMode::kEfficient, /*may_spin=*/false),
                                    .granted_by_peer = kWindows,
                                    .granted_to_peer = kWindows};
    auto link = std::make_unique<CountingLink>(peer_.TakeLink());
    link_ = link.get();
    absl::StatusOr<std::unique_ptr<Connection>> connection =
        MakeConnection(std::move(link), options, TransportChoice(), Peer());
    EXPECT_EQ(connection.status(), absl::OkStatus());
    connection_ = *std::move(connection);
  }

  // Ends what is outstanding.
  ~ClientBatchTest() override { connection_ = nullptr; }

  void StartOn(CallEvents* events, std::atomic<Call*>* call) {
    CallSpec spec;
    spec.method = "/a.Service/Method";
    const google::protobuf::BytesValue request;
    const OutgoingProto message(request);
    connection_->StartCall(spec, &message, events, call);
  }

  void Start(std::function<void()> on_end) {
    auto* const events = new RunningCall(std::move(on_end));
    StartOn(events, &events->call);
  }

  uint64_t ExpectRequest() {
    std::optional<Frame> frame = peer_.Receive();
    if (frame.has_value() && frame->header.type == FrameType::kMethod) frame = peer_.Receive();
    EXPECT_TRUE(frame.has_value() && frame->header.type == FrameType::kRequest);
    return frame.has_value() ? frame->header.call_id : 0;
  }
  std::vector<uint64_t> ExpectRequests(int count) {
    std::vector<uint64_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(ExpectRequest());
    return ids;
  }

  // In one piece.
  void Respond(const std::vector<uint64_t>& ids) {
    std::string bytes;
    for (const uint64_t id : ids) {
      bytes += RawPeer::Encode({.type = FrameType::kResponse, .flags = kFlagNoMessage, .call_id = id});
    }
    peer_.SendBytes(bytes);
  }

  RawPeer peer_;
  CountingLink* link_ = nullptr;  // the session's
  std::unique_ptr<Connection> connection_;
};

TEST_F(ClientBatchTest, CallsThatCallbacksStartTakeFewSends) {
  std::atomic<bool> enough{false};
  conformance::Counter ended;
  std::function<void()> restart = [&] { enough ? ended.Increment() : Start(restart); };
  for (int i = 0; i < kInFlight; ++i) Start(restart);
  std::vector<uint64_t> ids = ExpectRequests(kInFlight);
  int fewest = kInFlight;
  for (int round = 0; round < kRounds && fewest > kFewSends; ++round) {
    const int before = link_->flushes;
    Respond(ids);
    ids = ExpectRequests(kInFlight);
    fewest = std::min(fewest, link_->flushes - before);
  }
  EXPECT_LE(fewest, kFewSends);
  enough = true;
  Respond(ids);
  EXPECT_TRUE(ended.WaitFor(kInFlight));
}

TEST_F(ClientBatchTest, ACallDoesNotWaitForTheCallbackThatHasStartedIt) {
  Event requested, ended;
  Start([&] {
    Start([] {});
    EXPECT_TRUE(requested.Wait());
    ended.Set();
  });
  for (int i = 0; i < 3; ++i) Start([] {});
  Respond(ExpectRequests(4));
  ExpectRequest();
  requested.Set();
  EXPECT_TRUE(ended.Wait());
}

TEST_F(ClientBatchTest, ACallDoesNotWaitForAnotherCallback) {
  Event requested, ended;
  Start([&] { Start([] {}); });
  Start([&] {
    EXPECT_TRUE(requested.Wait());
    ended.Set();
  });
  for (int i = 0; i < 3; ++i) Start([] {});
  Respond(ExpectRequests(5));
  ExpectRequest();
  requested.Set();
  EXPECT_TRUE(ended.Wait());
}

TEST_F(ClientBatchTest, NothingWaitsForACallbackThatMakesACallOfItsOwn) {
  for (int round = 0; round < 20; ++round) {
    Event looked;
    int unflushed = -1;
    Start([&] {
      Start([] {});
      WaitingCall waiting;
      std::atomic<Call*> call = nullptr;
      StartOn(&waiting, &call);
      (void)call.load()->WaitUntil(
          [&] {
            unflushed = link_->unflushed;
            return true;
          },
          SteadyTime::InfiniteFuture());
      call.load()->Cancel(absl::CancelledError("enough"));
      EXPECT_TRUE(waiting.over.Wait());
      call.load()->Release();
      looked.Set();
    });
    for (int i = 0; i < 3; ++i) Start([] {});
    Respond(ExpectRequests(4));
    const std::vector<uint64_t> ids = ExpectRequests(2);
    EXPECT_TRUE(looked.Wait());
    EXPECT_EQ(unflushed, 0);
    peer_.Expect(FrameType::kReset);
    Respond({ids[0]});
  }
}

}  // namespace
}  // namespace shmrpc::framed
