// A client's session, whose server is the test.

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
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
  // From the id of a call to that of the next one in its place.
  static constexpr uint64_t kGeneration = uint64_t{1} << 20;

  ClientSessionTest() : connection_(Connect(&peer_)) {}

  static std::unique_ptr<Connection> Connect(RawPeer* peer) {
    const SessionOptions options = {.spin_policy = SpinPolicy(WaitMode::kEfficient, /*may_spin=*/false),
                                    .granted_by_peer = kWindows,
                                    .granted_to_peer = kWindows};
    absl::StatusOr<std::unique_ptr<Connection>> connection =
        MakeConnection(peer->TakeLink(), options, TransportChoice(), Peer());
    EXPECT_EQ(connection.status(), absl::OkStatus());
    return *std::move(connection);
  }

  // The body of the first piece of a message, of which ten bytes or `more` are to follow.
  static std::string FirstPiece(const std::string& bytes, size_t more = 10) {
    const uint32_t size = static_cast<uint32_t>(bytes.size() + more);
    return std::string(reinterpret_cast<const char*>(&size), sizeof size) + bytes;
  }

  // Starts a call, whose id is what the request says.
  CallPtr Start(Recorder* recorder, bool streams, uint64_t* id) {
    return Start(connection_.get(), &peer_, recorder, streams, id);
  }
  static CallPtr Start(Connection* connection, RawPeer* peer, Recorder* recorder, bool streams, uint64_t* id) {
    CallSpec spec;
    spec.method = "/a.Service/Method";
    spec.client_streams = streams;
    spec.server_streams = streams;
    const google::protobuf::BytesValue request;
    const OutgoingProto message(request);
    std::atomic<Call*> call = nullptr;
    connection->StartCall(spec, streams ? nullptr : &message, recorder, &call);
    std::optional<Frame> frame = peer->Receive();
    while (frame.has_value() &&
           (frame->header.type == FrameType::kMethod || frame->header.type == FrameType::kCredit)) {
      frame = peer->Receive();
    }
    EXPECT_TRUE(frame.has_value() && frame->header.type == FrameType::kRequest);
    if (frame.has_value()) *id = frame->header.call_id;
    return CallPtr(call);
  }

  // Starts calls of a peer that reads nothing, on a thread of its own, until `calls` have ended: each waits for room
  // when the way is full, until it is cancelled.
  class Sender {
   public:
    Sender(Connection* connection, bool cancelled, int calls)
        : cancelled_(cancelled), thread_([this, connection, calls] { Send(connection, calls); }) {}
    ~Sender() { thread_.join(); }
    bool IsDone() const { return done_.load(); }
    // Cancels the call that is being started, if there is one.
    void CancelOne() {
      MutexLock lock(&mutex_);
      Call* const call = call_.load();
      if (call != nullptr) call->Cancel(absl::CancelledError("enough"));
    }

   private:
    void Send(Connection* connection, int calls) {
      google::protobuf::BytesValue request;
      request.set_value(std::string(50'000, 'x'));
      const OutgoingProto message(request);
      CallSpec spec;
      spec.method = "/a.Service/Method";
      spec.cancelled = &cancelled_;
      for (int i = 0; i < calls; ++i) {
        Recorder recorder;
        connection->StartCall(spec, &message, &recorder, &call_);
        call_.load()->Cancel(absl::CancelledError("sent"));
        WaitForTheEnd(*call_.load(), recorder);
        MutexLock lock(&mutex_);  // nobody cancels it any more
        call_.exchange(nullptr)->Release();
      }
      done_ = true;
    }
    const std::atomic<bool> cancelled_;
    Mutex mutex_;
    std::atomic<Call*> call_{nullptr};
    std::atomic<bool> done_{false};
    std::thread thread_;
  };

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

// The server can tell which id comes next. Pieces that it begins for that call are nobody's to their end.
TEST_F(ClientSessionTest, PiecesForACallThatBeginsBetweenThemAreNobodys) {
  const std::string first_piece = FirstPiece("beginning,");
  const FrameHeader of_message = {.type = FrameType::kMessage, .flags = kFlagMore};
  const FrameHeader of_response = {.type = FrameType::kResponse, .flags = kFlagMore};
  const FrameHeader fragment = {.type = FrameType::kFragment};
  const FrameHeader reset = {.type = FrameType::kReset};
  for (const FrameHeader& first : {of_message, of_response}) {
    for (const FrameHeader& last : {fragment, reset}) {
      for (const bool streams : {false, true}) {
        SCOPED_TRACE(testing::Message() << "types " << static_cast<int>(first.type) << " and "
                                        << static_cast<int>(last.type) << ", streams: " << streams);
        Recorder earlier, recorder;
        uint64_t id = 0, next_id = 0;
        FrameHeader header = first;
        {
          const CallPtr call = Start(&earlier, /*streams=*/false, &id);
          header.call_id = id + kGeneration;
          peer_.Send(header, first_piece);
          Respond(id);
          WaitForTheEnd(*call, earlier);
        }
        const CallPtr call = Start(&recorder, streams, &next_id);
        ASSERT_EQ(next_id, header.call_id);
        header = last;
        header.call_id = next_id;
        peer_.Send(header, last.type == FrameType::kFragment ? "and an end" : "");
        Respond(next_id, absl::StatusCode::kAborted);
        WaitForTheEnd(*call, recorder);
        EXPECT_EQ(recorder.events(), "S");
        EXPECT_EQ(recorder.status().code(), absl::StatusCode::kAborted);
      }
    }
  }
  ExpectInOrder();
}

TEST_F(ClientSessionTest, PiecesForACallThatBeginsBetweenThemAreReturnedToTheConnection) {
  Recorder earlier, recorder;
  uint64_t id = 0, next_id = 0;
  {
    const CallPtr call = Start(&earlier, /*streams=*/false, &id);
    peer_.Send({.type = FrameType::kMessage, .flags = kFlagMore, .call_id = id + kGeneration},
               FirstPiece("", kMessageBytes));
    Respond(id);
    WaitForTheEnd(*call, earlier);
  }
  const CallPtr call = Start(&recorder, /*streams=*/true, &next_id);
  ASSERT_EQ(next_id, id + kGeneration);
  peer_.Send({.type = FrameType::kFragment, .call_id = next_id}, std::string(kMessageBytes, 'x'));
  // The call's own window is untouched: two more messages fit.
  peer_.SendMessage(next_id, 0);
  peer_.SendMessage(next_id, 0);
  Respond(next_id);
  call->DropMessages();
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.status(), absl::OkStatus());
  for (const uint64_t of_call : {uint64_t{0}, next_id, next_id}) {
    EXPECT_EQ(peer_.ExpectCredit(of_call).connection_bytes, kMessageCost);
  }
}

TEST_F(ClientSessionTest, NothingButCreditResetAndAnEmptyResponseStandsBetweenPieces) {
  const FrameHeader forbidden[] = {
      {.type = FrameType::kMessage}, {.type = FrameType::kHeaders}, {.type = FrameType::kResponse}};
  for (const FrameHeader& between : forbidden) {
    SCOPED_TRACE(static_cast<int>(between.type));
    RawPeer peer;
    const std::unique_ptr<Connection> connection = Connect(&peer);
    Recorder recorder;
    uint64_t id = 0;
    const CallPtr call = Start(connection.get(), &peer, &recorder, /*streams=*/true, &id);
    peer.Send({.type = FrameType::kMessage, .flags = kFlagMore, .call_id = id}, FirstPiece("beginning,"));
    FrameHeader header = between;
    header.call_id = id;
    peer.Send(header);
    WaitForTheEnd(*call, recorder);
    EXPECT_EQ(recorder.status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(recorder.status().ToString(), HasSubstr("between the pieces"));
    EXPECT_TRUE(peer.SeesTheEnd());
  }
  // A server that shuts down, or finds a message too large, answers a call whose message it is sending.
  Recorder recorder;
  uint64_t id = 0;
  const CallPtr call = Start(&recorder, /*streams=*/true, &id);
  peer_.Send({.type = FrameType::kMessage, .flags = kFlagMore, .call_id = id}, FirstPiece("beginning,"));
  Respond(id, absl::StatusCode::kUnavailable);
  peer_.Send({.type = FrameType::kReset, .call_id = id});
  WaitForTheEnd(*call, recorder);
  EXPECT_EQ(recorder.status().code(), absl::StatusCode::kUnavailable);
  ExpectInOrder();
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

TEST_F(ClientSessionTest, ACallThatWaitsForRoomInItsStartEndsWhenItIsCancelled) {
  Sender sender(connection_.get(), /*cancelled=*/false, /*calls=*/200);  // 10 MB: more than any socket buffer
  while (!sender.IsDone()) {
    sender.CancelOne();
    std::this_thread::yield();
  }
}

TEST_F(ClientSessionTest, ACallThatIsCancelledBeforeItExistsDoesNotWaitForRoom) {
  const Sender sender(connection_.get(), /*cancelled=*/true, /*calls=*/200);
}

}  // namespace
}  // namespace shmrpc::framed
