// Servers whose client is the test, and sends much at once: that they answer with few system calls, and that nothing
// they put off waits for something slow.

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/node_hash_map.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/message.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "tests/conformance/sync.h"
#include "tests/unit/framed_counting_link.h"
#include "tests/unit/framed_raw_peer.h"
#include "transports/framed/server_sessions.h"

namespace shmrpc::framed {
namespace {

using conformance::Event;
using conformance::Eventually;

// What a method does with its call, which it has to finish.
using Work = std::function<void(ServerCallPtr)>;

class WorkingHandler final : public CallHandler {
 public:
  // Before the first call of it.
  void Set(const std::string& method, Work work) {
    MutexLock lock(&mutex_);
    work_[method] = std::move(work);
  }
  void OnCall(ServerCallPtr call, const IncomingMessage*) override {
    const Work* work;
    {
      MutexLock lock(&mutex_);
      work = &work_.at(std::string(call->method()));
    }
    (*work)(std::move(call));
  }

 private:
  Mutex mutex_;
  absl::node_hash_map<std::string, Work> work_ ABSL_GUARDED_BY(mutex_);
};

void Reply(ServerCallPtr call) { FinishCall(std::move(call), ServerCall::Reply()); }

class ServerBatchTest : public ::testing::Test {
 protected:
  ServerBatchTest() : sessions_(Options(), &handler_) {
    EXPECT_EQ(sessions_.Init(), absl::OkStatus());
    auto link = std::make_unique<CountingLink>(peer_.TakeLink());
    link_ = link.get();
    sessions_.Add(std::move(link), {.granted_by_peer = kWindows}, Peer());
    Announce("/fast", Reply);
  }

  static ListenOptions Options() {
    ListenOptions options;
    options.max_threads = 4;
    options.keepalive_timeout = absl::InfiniteDuration();
    return options;
  }

  // The method's number.
  uint16_t Announce(const std::string& path, Work work) {
    handler_.Set(path, std::move(work));
    peer_.Send({.type = FrameType::kMethod, .code = methods_}, path);
    return methods_++;
  }

  // A method that takes long, and notes what waits to be sent when it begins.
  uint16_t AnnounceSlow(std::atomic<int>* unflushed) {
    return Announce("/slow", [this, unflushed](ServerCallPtr call) {
      *unflushed = link_->unflushed.load();
      std::this_thread::sleep_for(10 * TaskHistory::kLong);
      Reply(std::move(call));
    });
  }

  // Requests for these methods, in one piece. Their ids count from 1.
  void SendRequests(const std::vector<uint16_t>& methods) {
    std::string bytes;
    for (const uint16_t method : methods) {
      bytes += RawPeer::Encode(
          {.type = FrameType::kRequest, .flags = kFlagNoMessage, .code = method, .call_id = ++last_id_});
    }
    peer_.SendBytes(bytes);
  }
  void ExpectReplies(size_t count) {
    for (size_t i = 0; i < count; ++i) peer_.Expect(FrameType::kResponse);
  }

  RawPeer peer_;
  WorkingHandler handler_;
  CountingLink* link_ = nullptr;  // the session's
  uint16_t methods_ = 0;
  uint64_t last_id_ = 0;
  ServerSessions sessions_;
};

TEST_F(ServerBatchTest, ManySmallCallsTakeFewSends) {
  int fewest = kInFlight;
  for (int round = 0; round < kRounds && fewest > kFewSends; ++round) {
    const int before = link_->flushes;
    SendRequests(std::vector<uint16_t>(kInFlight, 0));
    ExpectReplies(kInFlight);
    fewest = std::min(fewest, link_->flushes - before);
  }
  EXPECT_LE(fewest, kFewSends);
}

TEST_F(ServerBatchTest, AReplyDoesNotWaitForACallThatDoesNotCome) {
  for (const bool cheap_to_poll : {false, true}) {
    link_->cheap_to_poll = cheap_to_poll;
    const FrameHeader beat = {.type = FrameType::kAlive};
    peer_.SendBytes(RawPeer::Encode({.type = FrameType::kRequest, .flags = kFlagNoMessage, .call_id = ++last_id_}) +
                    RawPeer::Encode(beat));
    ExpectReplies(1);
  }
}

TEST_F(ServerBatchTest, AReplyDoesNotWaitForAHandlerThatBlocks) {
  Event replied;
  const uint16_t blocks = Announce("/blocks", [&](ServerCallPtr call) {
    EXPECT_TRUE(replied.Wait());
    Reply(std::move(call));
  });
  SendRequests({0, blocks, 0});
  // To both others: that to the one behind it may be the first to come.
  ExpectReplies(2);
  replied.Set();
  ExpectReplies(1);
}

TEST_F(ServerBatchTest, WhatABlockedHandlerSendsLaterDoesNotWaitEither) {
  Event others_replied, got_message;
  const uint16_t streams = Announce("/streams", [&](ServerCallPtr call) {
    EXPECT_TRUE(others_replied.Wait());
    // By now the guardian has looked, or others have been faster; it will not look at this task again.
    const google::protobuf::BytesValue message;
    call->SendHeaders(Metadata());
    EXPECT_EQ(call->Send(OutgoingProto(message)), SendResult::kSent);
    EXPECT_TRUE(got_message.Wait());
    Reply(std::move(call));
  });
  SendRequests({0, streams, 0, 0});
  ExpectReplies(3);
  others_replied.Set();
  peer_.Expect(FrameType::kHeaders);
  peer_.Expect(FrameType::kMessage);
  got_message.Set();
  ExpectReplies(1);
}

TEST_F(ServerBatchTest, NothingWaitsForAHandlerThatWaitsForItsOwnEvents) {
  std::atomic<int> looks{0}, unflushed{-1};
  const uint16_t waits = Announce("/waits", [&](ServerCallPtr call) {
    looks = 0;
    // The first look is before it waits.
    (void)call->WaitUntil(
        [&] {
          if (++looks == 2) unflushed = link_->unflushed.load();
          return looks >= 2;
        },
        SteadyTime::InfiniteFuture());
    Reply(std::move(call));
  });
  for (int round = 0; round < 20; ++round) {
    SendRequests({0, waits, 0});
    ExpectReplies(3);
    EXPECT_EQ(unflushed, 0);
  }
}

TEST_F(ServerBatchTest, NothingWaitsForAMethodThatWasSlow) {
  std::atomic<int> unflushed{0};
  const uint16_t slow = AnnounceSlow(&unflushed);
  for (int round = 0; round < 20; ++round) {
    SendRequests({0, 0, slow, 0});
    ExpectReplies(4);
    // The first time says that it is slow.
    if (round > 2) {
      EXPECT_EQ(unflushed, 0) << round;
    }
  }
}

TEST_F(ServerBatchTest, ALastMethodOfABatchIsRememberedAsSlowToo) {
  std::atomic<int> unflushed{0};
  const uint16_t slow = AnnounceSlow(&unflushed);
  for (int round = 0; round < 20; ++round) {
    SendRequests({0, 0, slow});
    ExpectReplies(3);
    if (round > 2) {
      EXPECT_EQ(unflushed, 0) << round;
    }
  }
}

TEST_F(ServerBatchTest, RepliesFromOtherThreadsAreSentAtOnce) {
  Mutex mutex;
  std::vector<std::thread> threads;
  const uint16_t elsewhere = Announce("/elsewhere", [&](ServerCallPtr call) {
    MutexLock lock(&mutex);
    threads.emplace_back([call = std::move(call)]() mutable { Reply(std::move(call)); });
  });
  for (int round = 0; round < 20; ++round) {
    SendRequests({0, elsewhere, 0, elsewhere});
    ExpectReplies(4);
  }
  MutexLock lock(&mutex);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ServerBatchTest, NoReplyIsLostInAShutdown) {
  std::atomic<int> handled{0};
  const uint16_t counts = Announce("/counts", [&](ServerCallPtr call) {
    ++handled;
    Reply(std::move(call));
  });
  SendRequests(std::vector<uint16_t>(kInFlight, counts));
  ExpectReplies(1);
  std::thread shutdown([this] { sessions_.Shutdown(SteadyTime::Now() + kHangGuard); });
  int replies = 1;
  for (bool last = false; !last;) {
    const std::optional<Frame> frame = peer_.Receive();
    ASSERT_TRUE(frame.has_value());
    const bool processed = (frame->header.flags & kFlagNotProcessed) == 0;
    replies += frame->header.type == FrameType::kResponse && processed;
    last = frame->header.type == FrameType::kGoAway && !processed;
  }
  EXPECT_TRUE(peer_.SeesTheEnd());
  peer_.HangUp();
  shutdown.join();
  EXPECT_EQ(replies, handled);
}

// ---- Threads that go from session to session.

// As a session that spins: input is a number, and each unit of it a task that sends a frame, which is put off, and then
// works.
class SendingPollable final : public Pollable, public Task, private Sender::Host {
 public:
  // Spins until `rests`.
  SendingPollable(std::function<void()> work, const std::atomic<bool>* rests)
      : work_(std::move(work)),
        rests_(rests),
        event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        link_(peer_.TakeLink()),
        sender_(this, &link_, /*may_spill=*/true, /*may_spin=*/false) {}

  void ExpectFrame() { peer_.Expect(FrameType::kAlive); }

  int fd() const override { return event_.get(); }
  void OnEvents(uint32_t) override {}
  Outcome Poll(Visit* visit, Task** task) override {
    Outcome outcome = Outcome::kElsewhere;
    if (right_.TryAcquire()) {
      outcome = *rests_ ? Outcome::kEmpty : Outcome::kSpin;
      if (input > 0) {
        --input;
        *task = this;
        outcome = Outcome::kTaskMore;
        (void)SendBatch::OfThisThread().NextTask(&sender_, /*more=*/true, &history_);
      }
      (void)right_.Release();
    }
    if (outcome != Outcome::kTaskMore) SendBatch::OfThisThread().End();
    scans += visit->scanning() && outcome != Outcome::kTaskMore;
    return outcome;
  }
  bool Park() override { return true; }
  void PutBack() override { ++input; }
  void Run() override {
    FrameHeader header;
    header.type = FrameType::kAlive;
    sender_.SendControl(header, "", /*always_ring=*/false);
    running = true;
    work_();
    running = false;
  }

  std::atomic<int> input{0};
  std::atomic<int> scans{0};  // polls by scanners that found no input
  std::atomic<bool> running{false};

 private:
  bool WaitForRoom(SteadyTime, absl::FunctionRef<bool()>) override { return false; }
  void WatchWritable() override {}

  const std::function<void()> work_;
  const std::atomic<bool>* const rests_;
  const UniqueFd event_;
  RawPeer peer_;
  CountingLink link_;
  Sender sender_;
  TaskHistory history_;
  PollRight right_;
};

class ScanBatchTest : public ::testing::Test {
 protected:
  ScanBatchTest() {
    absl::StatusOr<std::unique_ptr<Poller>> poller = Poller::Create("test", /*max_threads=*/4);
    EXPECT_EQ(poller.status(), absl::OkStatus());
    poller_ = *std::move(poller);
  }
  ~ScanBatchTest() override { poller_->Stop(); }

  std::shared_ptr<SendingPollable> Add(std::function<void()> work, const std::atomic<bool>* rests) {
    auto session = std::make_shared<SendingPollable>(std::move(work), rests);
    EXPECT_EQ(poller_->Add(session, EPOLLIN), absl::OkStatus());
    return session;
  }
  // For less than the guardian takes to look twice, unless the machine is busy: it would send what was put off.
  static void SpinUntil(const std::function<bool()>& done) {
    const SteadyTime give_up = SteadyTime::Now() + kHangGuard;
    while (!done() && !give_up.HasPassed()) {
    }
    EXPECT_TRUE(done());
  }

  std::unique_ptr<Poller> poller_;
};

TEST_F(ScanBatchTest, AThreadThatLosesTheScanToAnotherSendsWhatItHasPutOff) {
  const std::atomic<bool> rests{false};
  const auto second = Add([] {}, &rests);
  const auto first = Add(
      [&] {
        // Another thread begins to scan, and does not stop.
        poller_->Kick(second);
        SpinUntil([&] { return second->scans > 0; });
      },
      &rests);
  poller_->Kick(first);
  EXPECT_TRUE(Eventually([&] { return first->scans > 0; }));
  first->input = 1;
  first->ExpectFrame();
  poller_->Stop();
}

TEST_F(ScanBatchTest, AThreadThatScansOtherSessionsNowSendsWhatItHasPutOff) {
  Event arrived;
  std::atomic<bool> first_rests{false};
  const std::atomic<bool> second_rests{false};
  const auto second = Add([&] { EXPECT_TRUE(arrived.Wait()); }, &second_rests);
  const auto first = Add(
      [&] {
        // Another thread scans the second session only, and then gives the right to scan away again, for a task.
        first_rests = true;
        poller_->Kick(second);
        SpinUntil([&] { return second->scans > 0; });
        second->input = 1;
        SpinUntil([&] { return second->running.load(); });
      },
      &first_rests);
  poller_->Kick(first);
  EXPECT_TRUE(Eventually([&] { return first->scans > 0; }));
  first->input = 1;
  first->ExpectFrame();
  arrived.Set();
  poller_->Stop();
}

}  // namespace
}  // namespace shmrpc::framed
