// A client's session, whose server is the test.

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/framed_raw_peer.h"
#include "transports/framed/framed_connection.h"

namespace shmrpc::framed {
namespace {

using ::testing::HasSubstr;

// Writes down what happens, one letter per event.
class Recorder final : public CallEvents {
 public:
  void OnHeaders(Metadata metadata) override {
    events_ += 'H';
    initial_metadata_ = std::move(metadata);
  }
  void OnMessage(const IncomingMessage&) override { events_ += 'M'; }
  void OnStatus(CallEnd end) override {
    events_ += 'S';
    status_ = std::move(end.status);
    over_.store(true, std::memory_order_release);
  }
  bool RunsUserCode() const override { return false; }

  bool IsOver() const { return over_.load(std::memory_order_acquire); }
  const std::string& events() const { return events_; }
  const absl::Status& status() const { return status_; }
  const Metadata& initial_metadata() const { return initial_metadata_; }

 private:
  std::string events_;
  Metadata initial_metadata_;
  absl::Status status_;
  std::atomic<bool> over_{false};
};

class ClientSessionTest : public ::testing::Test {
 protected:
  ClientSessionTest() {
    const SessionOptions options = {.spin_policy = SpinPolicy(WaitMode::kEfficient, /*may_spin=*/false),
                                    .granted_by_peer = kWindows,
                                    .granted_to_peer = kWindows};
    absl::StatusOr<std::unique_ptr<Connection>> connection =
        MakeConnection(peer_.TakeLink(), options, TransportChoice(), Peer());
    EXPECT_EQ(connection.status(), absl::OkStatus());
    connection_ = *std::move(connection);
  }

  // Starts a call, whose id is what the request says.
  CallPtr Start(Recorder* recorder, bool streams, uint64_t* id) {
    CallSpec spec;
    spec.method = "/a.Service/Method";
    spec.client_streams = streams;
    spec.server_streams = streams;
    const google::protobuf::BytesValue request;
    const OutgoingProto message(request);
    Call* call = nullptr;
    connection_->StartCall(spec, streams ? nullptr : &message, recorder, &call);
    std::optional<Frame> frame = peer_.Receive();
    if (frame.has_value() && frame->header.type == FrameType::kMethod) frame = peer_.Receive();
    EXPECT_TRUE(frame.has_value() && frame->header.type == FrameType::kRequest);
    if (frame.has_value()) *id = frame->header.call_id;
    return CallPtr(call);
  }

  static void WaitForTheEnd(Call& call, Recorder& recorder) {
    EXPECT_TRUE(call.WaitUntil([&] { return recorder.IsOver(); }, SteadyTime::Now() + kHangGuard));
  }

  void Respond(uint64_t id, absl::StatusCode code = absl::StatusCode::kOk) {
    peer_.Send(
        {.type = FrameType::kResponse, .flags = kFlagNoMessage, .code = static_cast<uint16_t>(code), .call_id = id});
  }

  // The connection is in order: a call on it is answered.
  void ExpectInOrder() {
    Recorder recorder;
    uint64_t id = 0;
    const CallPtr call = Start(&recorder, /*streams=*/false, &id);
    Respond(id);
    WaitForTheEnd(*call, recorder);
    EXPECT_EQ(recorder.status(), absl::OkStatus());
  }

  RawPeer peer_;
  std::unique_ptr<Connection> connection_;
};

TEST_F(ClientSessionTest, CancellationIsToldAndALateResponseFindsNothing) {
  uint64_t cancelled = 0;
  {
    Recorder recorder;
    const CallPtr call = Start(&recorder, /*streams=*/false, &cancelled);
    call->Cancel(absl::CancelledError("enough"));
    EXPECT_EQ(recorder.events(), "S");
    EXPECT_EQ(recorder.status(), absl::CancelledError("enough"));
  }
  const Frame reset = peer_.Expect(FrameType::kReset);
  EXPECT_EQ(reset.header.call_id, cancelled);
  EXPECT_EQ(reset.header.code, static_cast<uint16_t>(absl::StatusCode::kCancelled));
  // The next call takes over everything of the first but its id.
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/false, &id);
  EXPECT_NE(id, cancelled);
  Respond(cancelled, absl::StatusCode::kInternal);
  Respond(id);
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.events(), "S");
  EXPECT_EQ(recorder.status(), absl::OkStatus());
}

TEST_F(ClientSessionTest, ACallEndsOnce) {
  for (const bool streams : {false, true}) {
    Recorder recorder;
    uint64_t id = 0;
    const CallPtr call = Start(&recorder, streams, &id);
    Respond(id, absl::StatusCode::kAborted);
    Respond(id);
    WaitForTheEnd(*call, recorder);
    call->Cancel(absl::CancelledError("too late"));
    if (streams) call->DropMessages();
    ExpectInOrder();
    EXPECT_EQ(recorder.events(), "S");
    EXPECT_EQ(recorder.status().code(), absl::StatusCode::kAborted);
  }
}

TEST_F(ClientSessionTest, HeadersThatComeTwiceEndTheConnection) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  peer_.Send({.type = FrameType::kHeaders, .call_id = id});
  peer_.Send({.type = FrameType::kHeaders, .call_id = id});
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(recorder.status().ToString(), HasSubstr("the peer broke the protocol: headers"));
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ClientSessionTest, HeadersAfterAMessageEndTheConnection) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  peer_.SendMessage(id, 0);
  peer_.Send({.type = FrameType::kHeaders, .call_id = id});
  WaitForTheEnd(*call, recorder);
  EXPECT_THAT(recorder.status().ToString(), HasSubstr("the peer broke the protocol: headers"));
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ClientSessionTest, InitialMetadataInAResponseAfterHeadersIsIgnored) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  const Metadata first = {{"key", "first"}};
  const Metadata late = {{"key", "late"}};
  FrameHeader headers = {.type = FrameType::kHeaders, .call_id = id};
  std::string control;
  EncodeHeaders(first, &headers.flags, &control);
  peer_.Send(headers, control);
  FrameHeader response = {.type = FrameType::kResponse, .flags = kFlagNoMessage, .call_id = id};
  EncodeResponseControl(&late, absl::OkStatus(), nullptr, &response.flags, &response.code, &control);
  peer_.Send(response, control);
  call->DropMessages();
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.events(), "HS");
  EXPECT_EQ(recorder.status(), absl::OkStatus());
  EXPECT_EQ(recorder.initial_metadata(), first);
  ExpectInOrder();
}

TEST_F(ClientSessionTest, AMessageBeyondTheWindowEndsTheConnection) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  for (int i = 0; i < 3; ++i) peer_.SendMessage(id, 0);
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(recorder.status().ToString(), HasSubstr("without credit"));
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ClientSessionTest, MessagesOfUnknownCallsAreReturnedToTheConnection) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/false, &id);
  peer_.SendMessage(id + 1, 0);
  Respond(id);
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
}

TEST_F(ClientSessionTest, WhatIsLeftUnreadIsReturnedWhenTheCallIsCancelled) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  peer_.SendMessage(id, 0);
  peer_.SendMessage(id, 0);
  ExpectInOrder();  // so the messages have come
  call->Cancel(absl::CancelledError("enough"));
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.events(), "HS");
  peer_.Expect(FrameType::kReset);
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
}

TEST_F(ClientSessionTest, WhatIsLeftUnreadIsReturnedWhenItIsNotWantedAnyMore) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  peer_.SendMessage(id, 0);
  Respond(id);
  ExpectInOrder();  // so message and response have come
  EXPECT_EQ(recorder.events(), "H");
  call->DropMessages();
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.events(), "HS");
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
}

TEST_F(ClientSessionTest, ACancelledCallThatLosesMessagesDoesNotEndAsIfItHadNot) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  peer_.SendMessage(id, 0);
  Respond(id);
  ExpectInOrder();  // so message and response have come
  call->Cancel(absl::CancelledError("enough"));
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.events(), "HS");
  EXPECT_EQ(recorder.status(), absl::CancelledError("enough"));
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
}

TEST_F(ClientSessionTest, ACancelledCallWhoseMessagesNobodyWantsKeepsItsStatus) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  call->DropMessages();
  peer_.SendMessage(id, 0);
  Respond(id);
  WaitForTheEnd(*call, recorder);
  call->Cancel(absl::CancelledError("too late"));
  EXPECT_EQ(recorder.events(), "HS");
  EXPECT_EQ(recorder.status(), absl::OkStatus());
}

TEST_F(ClientSessionTest, AfterAGoAwayCallsInProgressGoOnAndNoneBegins) {
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/false, &id);
  peer_.Send({.type = FrameType::kGoAway});
  Respond(id);
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.status(), absl::OkStatus());
  EXPECT_TRUE(connection_->IsOver());
  EXPECT_EQ(connection_->reason_over(), absl::UnavailableError("the server is shutting down"));
}

}  // namespace
}  // namespace shmrpc::framed
