// A server's session, whose client is the test.

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/message.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "tests/conformance/sync.h"
#include "tests/unit/framed_forwarding_link.h"
#include "tests/unit/framed_raw_peer.h"
#include "transports/framed/server_sessions.h"

namespace shmrpc::framed {
namespace {

// Keeps the calls that come, and finishes them when told to.
class KeepingHandler final : public CallHandler {
 public:
  void OnCall(ServerCallPtr call, const IncomingMessage*) override {
    {
      MutexLock lock(&mutex_);
      if (keeps_more_) {
        calls_.push_back(std::move(call));
        changed_.SignalAll();
        return;
      }
    }
    FinishCall(std::move(call), ServerCall::Reply());
  }

  // Tells the first method that is asked for from others, and counts.
  const ResolvedMethod* ResolveMethod(std::string_view method) const override {
    struct Known final : ResolvedMethod {};
    static const Known known;
    MutexLock lock(&mutex_);
    resolved_.emplace_back(method);
    return resolved_.size() == 1 ? &known : nullptr;
  }
  std::vector<std::string> resolved() const {
    MutexLock lock(&mutex_);
    return resolved_;
  }

  // What comes from now on is finished at once, with OK.
  void KeepNoMore() {
    MutexLock lock(&mutex_);
    keeps_more_ = false;
  }

  // The call that came as the `index`th, which is awaited.
  ServerCall* Get(size_t index) {
    const SteadyTime give_up = SteadyTime::Now() + kHangGuard;
    MutexLock lock(&mutex_);
    while (calls_.size() <= index) {
      if (changed_.WaitUntil(&mutex_, give_up)) {
        ADD_FAILURE() << "no call came";
        return nullptr;
      }
    }
    return calls_[index].get();
  }

  void Finish(size_t index, const absl::Status& status, const OutgoingMessage* message = nullptr) {
    Get(index);
    ServerCallPtr call;
    {
      MutexLock lock(&mutex_);
      call = std::move(calls_[index]);
    }
    ServerCall::Reply reply;
    reply.status = status;
    reply.message = message;
    FinishCall(std::move(call), reply);
  }

  // Lets go of all calls.
  void Clear() {
    MutexLock lock(&mutex_);
    calls_.clear();
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  mutable std::vector<std::string> resolved_ ABSL_GUARDED_BY(mutex_);
  bool keeps_more_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<ServerCallPtr> calls_ ABSL_GUARDED_BY(mutex_);
};

class ServerSessionTest : public ::testing::Test {
 protected:
  ServerSessionTest() : sessions_(Options(), &handler_) {
    EXPECT_EQ(sessions_.Init(), absl::OkStatus());
    sessions_.Add(peer_.TakeLink(), {.granted_by_peer = kWindows}, Peer());
    peer_.SendMethod();
  }
  // A call of a connection that has ended may come only now.
  ~ServerSessionTest() override {
    handler_.KeepNoMore();
    handler_.Clear();
  }

  static ListenOptions Options() {
    ListenOptions options;
    options.max_threads = 4;
    options.flow_control = kWindows;
    options.keepalive_timeout = absl::InfiniteDuration();
    return options;
  }

  // The peer may see the connection end a moment before the calls are told.
  static bool IsCancelledSoon(const ServerCall& call) {
    return conformance::Eventually([&call] { return call.IsCancelled(); });
  }

  RawPeer peer_;
  KeepingHandler handler_;
  ServerSessions sessions_;
};

// What waits for a client that does not read is bounded: then the connection is ended, and what waited is dropped.
TEST(ServerSessionLimitsTest, AClientThatTakesNoRepliesIsGivenUpWhenTooMuchWaits) {
  constexpr size_t kReplyBytes = 60 * 1024;
  constexpr int kCalls = 100;
  for (const size_t max_unsent : {size_t{256} * 1024, size_t{64} << 20}) {
    RawPeer peer;
    KeepingHandler handler;
    ListenOptions options;
    options.max_threads = 4;
    options.flow_control = kWindows;
    options.keepalive_timeout = absl::InfiniteDuration();
    options.limits.hold_back_bytes = std::min(max_unsent, size_t{1} << 20);
    options.limits.max_unsent_bytes = max_unsent;
    ServerSessions sessions(options, &handler);
    ASSERT_EQ(sessions.Init(), absl::OkStatus());
    sessions.Add(peer.TakeLink(), {.granted_by_peer = kWindows}, Peer());
    peer.SendMethod();
    for (uint64_t id = 1; id <= kCalls; ++id) peer.SendRequest(id, 0);
    ASSERT_NE(handler.Get(kCalls - 1), nullptr);
    google::protobuf::BytesValue reply;
    reply.set_value(std::string(kReplyBytes, 'r'));
    const OutgoingProto message(reply);
    ServerCall* const last = handler.Get(kCalls - 1);
    for (int i = 0; i < kCalls - 1; ++i) handler.Finish(i, absl::OkStatus(), &message);
    const bool given_up = max_unsent < kCalls * kReplyBytes / 2;
    if (given_up) {
      EXPECT_TRUE(conformance::Eventually([&] { return last->IsCancelled(); }));
    } else {
      EXPECT_FALSE(last->IsCancelled());
      handler.Finish(kCalls - 1, absl::OkStatus(), nullptr);
    }
    int replies = 0;
    for (; replies < kCalls; ++replies) {
      if (!peer.Receive().has_value()) break;
    }
    if (given_up) {
      EXPECT_LT(replies, kCalls / 2);
      EXPECT_TRUE(peer.SeesTheEnd());
    } else {
      EXPECT_EQ(replies, kCalls) << "nothing is lost below the limit";
    }
    handler.Clear();
  }
}

TEST_F(ServerSessionTest, AMessageAfterTheLastOneEndsTheConnection) {
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  peer_.SendMessage(1, kFlagOpen);
  peer_.SendMessage(1, 0);
  ServerCall* const call = handler_.Get(0);
  EXPECT_FALSE(call->IsCancelled());
  peer_.SendMessage(1, 0);
  EXPECT_TRUE(peer_.SeesTheEnd());
  EXPECT_TRUE(IsCancelledSoon(*call));
}

TEST_F(ServerSessionTest, AMessageAfterAHalfCloseWithoutMessageEndsTheConnection) {
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  peer_.SendMessage(1, kFlagNoMessage, 0);
  peer_.SendMessage(1, kFlagOpen);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, AMessageAfterAUnaryRequestEndsTheConnection) {
  peer_.SendRequest(1, 0);
  handler_.Get(0);
  peer_.SendMessage(1, 0);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, AMessageBeyondTheWindowEndsTheConnection) {
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  peer_.SendMessage(1, kFlagOpen);
  peer_.SendMessage(1, kFlagOpen);
  peer_.SendMessage(1, kFlagOpen);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, CreditForWhatWasNotSentEndsTheConnection) {
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  handler_.Get(0);
  peer_.SendCredit(1, {.connection_bytes = 1});
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, ASecondRequestForACallInProgressEndsTheConnection) {
  peer_.SendRequest(1, 0);
  handler_.Get(0);
  peer_.SendRequest(1, 0);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, AMethodThatWasNotAnnouncedEndsTheConnection) {
  peer_.Send({.type = FrameType::kRequest, .code = 1, .call_id = 1});
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, AMethodIsResolvedOnceAndEachOfItsCallsIsTold) {
  peer_.Send({.type = FrameType::kMethod, .code = 1}, "/a.Service/Other");
  peer_.SendRequest(1, 0);
  peer_.SendRequest(2, 0);
  peer_.Send({.type = FrameType::kRequest, .code = 1, .call_id = 3});
  ASSERT_NE(handler_.Get(2), nullptr);
  EXPECT_EQ(handler_.resolved(), (std::vector<std::string>{"/a.Service/Method", "/a.Service/Other"}));
  for (size_t i = 0; i < 3; ++i) {
    const ServerCall& call = *handler_.Get(i);
    EXPECT_EQ(call.resolved_method() != nullptr, call.method() == "/a.Service/Method") << call.method();
  }
}

// A thread that computes a deadline from the time left has looked at the clock: the handler need not look again.
TEST_F(ServerSessionTest, ACallWithADeadlineTellsWhenItCame) {
  const SteadyTime before = SteadyTime::Now();
  const uint64_t left = 1'000'000'000;
  const std::string_view body(reinterpret_cast<const char*>(&left), sizeof left);
  peer_.Send({.type = FrameType::kRequest, .flags = kFlagDeadline, .call_id = 1}, body);
  const ServerCall* const call = handler_.Get(0);
  EXPECT_GE(call->arrival(), before);
  EXPECT_LE(call->arrival(), SteadyTime::Now());
  EXPECT_EQ(call->deadline(), call->arrival() + absl::Seconds(1));
  peer_.SendRequest(2, 0);
  EXPECT_EQ(handler_.Get(1)->arrival(), SteadyTime::InfinitePast());
}

TEST_F(ServerSessionTest, MessagesOfUnknownCallsAreReturnedToTheConnection) {
  peer_.SendMessage(7, 0);
  const Credit credit = peer_.ExpectCredit(0);
  EXPECT_EQ(credit.call_bytes, 0u);
  EXPECT_EQ(credit.connection_bytes, kMessageCost);
}

TEST_F(ServerSessionTest, WhatAHandlerLeavesUnreadIsReturnedWhenItIsDone) {
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  peer_.SendMessage(1, kFlagOpen);
  peer_.SendMessage(1, 0);
  handler_.Get(0);
  // The answer to the second request shows that the messages before it have come.
  peer_.SendRequest(2, 0);
  handler_.Finish(1, absl::OkStatus());
  EXPECT_EQ(peer_.Expect(FrameType::kResponse).header.call_id, 2u);
  handler_.Finish(0, absl::OkStatus());
  EXPECT_EQ(peer_.Expect(FrameType::kResponse).header.call_id, 1u);
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, 2 * kMessageCost);
}

TEST_F(ServerSessionTest, MessagesAfterACancellationAreReturnedAtOnce) {
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  handler_.Get(0);
  peer_.Send({.type = FrameType::kReset, .code = static_cast<uint16_t>(absl::StatusCode::kCancelled), .call_id = 1});
  peer_.SendMessage(1, kFlagOpen);
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
}

TEST_F(ServerSessionTest, ACancelledCallIsNotAnswered) {
  peer_.SendRequest(1, 0);
  ServerCall* const call = handler_.Get(0);
  peer_.Send({.type = FrameType::kReset, .code = static_cast<uint16_t>(absl::StatusCode::kCancelled), .call_id = 1});
  peer_.SendRequest(2, 0);
  handler_.Get(1);  // so the reset has come
  EXPECT_TRUE(call->IsCancelled());
  handler_.Finish(0, absl::OkStatus());
  handler_.Finish(1, absl::OkStatus());
  EXPECT_EQ(peer_.Expect(FrameType::kResponse).header.call_id, 2u);
}

TEST_F(ServerSessionTest, AResetInTheMiddleOfARequestStartsNoHandler) {
  const uint32_t size = 20;
  const std::string first_piece = std::string(reinterpret_cast<const char*>(&size), sizeof size) + "beginning,";
  peer_.Send({.type = FrameType::kRequest, .flags = kFlagMore, .call_id = 1}, first_piece);
  peer_.Send({.type = FrameType::kReset, .code = static_cast<uint16_t>(absl::StatusCode::kCancelled), .call_id = 1});
  // Another message may be in pieces now.
  peer_.Send({.type = FrameType::kRequest, .flags = kFlagMore, .call_id = 2}, first_piece);
  peer_.Send({.type = FrameType::kFragment, .call_id = 2}, "and an end");
  handler_.Finish(0, absl::OkStatus());
  EXPECT_EQ(peer_.Expect(FrameType::kResponse).header.call_id, 2u);
}

TEST_F(ServerSessionTest, AResetInTheMiddleOfAMessageReturnsItsBytes) {
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  ServerCall* const call = handler_.Get(0);
  const uint32_t size = kMessageBytes;
  const std::string first_piece(reinterpret_cast<const char*>(&size), sizeof size);
  peer_.Send({.type = FrameType::kMessage, .flags = kFlagMore | kFlagOpen, .call_id = 1}, first_piece + "beginning");
  peer_.Send({.type = FrameType::kReset, .code = static_cast<uint16_t>(absl::StatusCode::kCancelled), .call_id = 1});
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
  // The cancellation is noted right after that, by the thread that has received the reset.
  peer_.SendRequest(2, 0);
  handler_.Get(1);
  EXPECT_TRUE(call->IsCancelled());
}

// A client that begins a message before its call, or uses an id again, puts pieces of one call into another.
TEST_F(ServerSessionTest, ARequestBetweenThePiecesOfAMessageOfItsCallEndsTheConnection) {
  const uint32_t size = 20;
  const std::string first_piece = std::string(reinterpret_cast<const char*>(&size), sizeof size) + "beginning,";
  peer_.Send({.type = FrameType::kMessage, .flags = kFlagMore | kFlagOpen, .call_id = 1}, first_piece);
  peer_.SendRequest(2, 0);  // of another call: as it should be
  handler_.Finish(0, absl::OkStatus());
  EXPECT_EQ(peer_.Expect(FrameType::kResponse).header.call_id, 2u);
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, AMessageBetweenThePiecesOfItsRequestEndsTheConnection) {
  const uint32_t size = 20;
  const std::string first_piece = std::string(reinterpret_cast<const char*>(&size), sizeof size) + "beginning,";
  peer_.Send({.type = FrameType::kRequest, .flags = kFlagMore | kFlagOpen, .call_id = 1}, first_piece);
  peer_.SendMessage(1, kFlagOpen);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

// A message ahead of its request is nobody's, and is not counted for the call.
TEST_F(ServerSessionTest, AMessageInPiecesAheadOfItsRequestIsReturnedToTheConnection) {
  const uint32_t size = kMessageBytes;
  const std::string first_piece(reinterpret_cast<const char*>(&size), sizeof size);
  peer_.Send({.type = FrameType::kMessage, .flags = kFlagMore | kFlagOpen, .call_id = 1}, first_piece);
  peer_.Send({.type = FrameType::kFragment, .call_id = 1}, std::string(kMessageBytes, 'x'));
  EXPECT_EQ(peer_.ExpectCredit(0).connection_bytes, kMessageCost);
  peer_.SendRequest(1, kFlagOpen | kFlagNoMessage);
  EXPECT_FALSE(handler_.Get(0)->IsCancelled());
  handler_.Finish(0, absl::OkStatus());
  peer_.Expect(FrameType::kResponse);
}

TEST_F(ServerSessionTest, ARequestWithTheIdOfNoCallEndsTheConnection) {
  peer_.SendRequest(0, 0);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(ServerSessionTest, AShutdownSaysSoAndRefusesWhatStillComes) {
  peer_.SendRequest(1, 0);
  handler_.Get(0);
  handler_.KeepNoMore();
  std::thread shutdown([&] { sessions_.Shutdown(SteadyTime::Now() + kHangGuard); });
  peer_.Expect(FrameType::kGoAway);
  // The client is told first: what it sends at that moment may still be accepted, and is then answered.
  uint64_t call_id = 1;
  Frame refusal;
  do {
    peer_.SendRequest(++call_id, 0);
    refusal = peer_.Expect(FrameType::kResponse);
    ASSERT_EQ(refusal.header.call_id, call_id);
  } while (refusal.header.code == 0);
  EXPECT_EQ(refusal.header.code, static_cast<uint16_t>(absl::StatusCode::kUnavailable));
  EXPECT_NE(refusal.header.flags & kFlagNotProcessed, 0);
  handler_.Finish(0, absl::OkStatus());
  Frame reply = peer_.Expect(FrameType::kResponse);
  EXPECT_EQ(reply.header.call_id, 1u);
  EXPECT_EQ(reply.header.code, 0);
  EXPECT_TRUE(peer_.SeesTheEnd());
  shutdown.join();
}

// It may have begun to call: it is told that nothing of that has been processed.
TEST_F(ServerSessionTest, AConnectionThatComesDuringAShutdownIsTurnedAway) {
  peer_.SendRequest(1, 0);
  handler_.Get(0);
  std::thread shutdown([&] { sessions_.Shutdown(SteadyTime::Now() + kHangGuard); });
  peer_.Expect(FrameType::kGoAway);  // so it has begun
  RawPeer late;
  late.SendMethod();
  late.SendRequest(1, 0);
  sessions_.Add(late.TakeLink(), {.granted_by_peer = kWindows}, Peer());
  EXPECT_EQ(late.Expect(FrameType::kGoAway).header.flags, kFlagNotProcessed);
  EXPECT_FALSE(late.Receive().has_value());
  handler_.Finish(0, absl::OkStatus());
  EXPECT_EQ(peer_.Expect(FrameType::kResponse).header.code, 0) << "calls that were accepted are not affected";
  EXPECT_TRUE(peer_.SeesTheEnd());
  shutdown.join();
}

TEST_F(ServerSessionTest, AShutdownWaitsUntilRepliesHaveLeft) {
  google::protobuf::BytesValue reply;
  reply.set_value(std::string(4'000'000, 'x'));  // more than a socket takes
  peer_.SendRequest(1, 0);
  const OutgoingProto message(reply);
  handler_.Finish(0, absl::OkStatus(), &message);
  std::thread shutdown([&] { sessions_.Shutdown(SteadyTime::Now() + kHangGuard); });
  Frame frame = peer_.Expect(FrameType::kResponse);
  size_t received = frame.body.size() - sizeof(uint32_t);  // behind the message's size
  while ((frame.header.flags & kFlagMore) != 0) {
    frame = peer_.Expect(FrameType::kFragment);
    received += frame.body.size();
  }
  EXPECT_EQ(received, message.size());
  peer_.Expect(FrameType::kGoAway);
  EXPECT_TRUE(peer_.SeesTheEnd());
  shutdown.join();
}

// A link that turns out to be broken when something is sent, and tells the receiver nothing of that.
class BrokenLink final : public ForwardingLink {
 public:
  using ForwardingLink::ForwardingLink;
  void Break() { broken_ = true; }
  uint8_t* Reserve(size_t size) override { return broken_ ? nullptr : ForwardingLink::Reserve(size); }
  bool HasRoom() const override { return !broken_ && ForwardingLink::HasRoom(); }
  bool AskForRoom() override { return !broken_ && ForwardingLink::AskForRoom(); }

 private:
  std::atomic<bool> broken_{false};
};

TEST_F(ServerSessionTest, AHandlerThatCannotSendAnyMoreSeesThatItsCallIsCancelled) {
  RawPeer peer;
  auto owned = std::make_unique<BrokenLink>(peer.TakeLink());
  BrokenLink* const link = owned.get();
  sessions_.Add(std::move(owned), {.granted_by_peer = kWindows}, Peer());
  peer.SendMethod();
  peer.SendRequest(1, kFlagOpen | kFlagNoMessage);
  ServerCall* const call = handler_.Get(0);
  const google::protobuf::BytesValue message;
  EXPECT_EQ(call->Send(OutgoingProto(message)), SendResult::kSent);
  EXPECT_FALSE(call->IsCancelled());
  link->Break();
  EXPECT_EQ(call->Send(OutgoingProto(message)), SendResult::kOver);
  EXPECT_TRUE(call->IsCancelled());
}

}  // namespace
}  // namespace shmrpc::framed
