// That nobody owns a poller's threads: whatever some of its pollables or tasks do, the others are served.

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/conformance/sync.h"
#include "tests/unit/framed_raw_peer.h"
#include "transports/framed/frame.h"
#include "transports/framed/poller.h"
#include "transports/framed/server_sessions.h"

namespace shmrpc::framed {
namespace {

using conformance::Event;
using conformance::Eventually;

// Something with an event of its own, which `poll` is asked for.
class Scripted final : public Pollable {
 public:
  explicit Scripted(std::function<Outcome(Visit*)> poll)
      : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), poll_(std::move(poll)) {}

  void Ring() {
    const uint64_t one = 1;
    EXPECT_EQ(write(event_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
  }
  int fd() const override { return event_.get(); }
  void OnEvents(uint32_t) override {
    uint64_t ignored;
    (void)!read(event_.get(), &ignored, sizeof ignored);
  }
  Outcome Poll(Visit* visit, Task**) override { return poll_(visit); }
  bool Park() override { return true; }

 private:
  const UniqueFd event_;
  const std::function<Outcome(Visit*)> poll_;
};

class PollerOwnedTest : public ::testing::TestWithParam<int> {
 protected:
  PollerOwnedTest() {
    absl::StatusOr<std::unique_ptr<Poller>> poller = Poller::Create("test", /*max_threads=*/16);
    EXPECT_EQ(poller.status(), absl::OkStatus());
    poller_ = *std::move(poller);
  }

  std::shared_ptr<Scripted> Add(std::function<Pollable::Outcome(Visit*)> poll) {
    auto pollable = std::make_shared<Scripted>(std::move(poll));
    EXPECT_EQ(poller_->Add(pollable, EPOLLIN), absl::OkStatus());
    return pollable;
  }
  // Whether another pollable is polled when it says so, again and again.
  void ExpectOthersAreServed() {
    std::atomic<int> served{0};
    const auto honest = Add([&](Visit*) {
      ++served;
      return Pollable::Outcome::kEmpty;
    });
    for (int i = 0; i < 100; ++i) {
      const int before = served;
      honest->Ring();
      ASSERT_TRUE(Eventually([&] { return served > before; })) << "after " << i;
    }
    poller_->Remove(honest.get());
    poller_->Stop();
  }

  std::unique_ptr<Poller> poller_;
};

INSTANTIATE_TEST_SUITE_P(Attackers, PollerOwnedTest, ::testing::Values(2, 3, 4));

TEST_P(PollerOwnedTest, InputWithoutEndIsServedInTurn) {
  std::atomic<int> visits{0};
  std::vector<std::shared_ptr<Scripted>> floods;
  for (int i = 0; i < GetParam(); ++i) {
    floods.push_back(Add([&](Visit* visit) {
      ++visits;
      while (visit->Spend(1)) {
      }
      return Pollable::Outcome::kMore;
    }));
    floods.back()->Ring();
  }
  ASSERT_TRUE(Eventually([&] { return visits > 100; }));
  ExpectOthersAreServed();
}

TEST_P(PollerOwnedTest, InputWithoutEndInTheHotSetIsServedInTurn) {
  std::atomic<int> scans{0};
  std::vector<std::shared_ptr<Scripted>> floods;
  for (int i = 0; i < GetParam(); ++i) {
    floods.push_back(Add([&](Visit* visit) {
      if (!visit->scanning()) return Pollable::Outcome::kSpin;
      ++scans;
      while (visit->Spend(1)) {
      }
      return Pollable::Outcome::kMore;
    }));
    floods.back()->Ring();
  }
  ASSERT_TRUE(Eventually([&] { return scans > 100; }));
  ExpectOthersAreServed();
}

// As a descriptor whose close blocks.
TEST_P(PollerOwnedTest, ThreadsThatAreStuckOutsideOfTasksAreReplaced) {
  Event release;
  std::atomic<int> stuck{0};
  std::vector<std::shared_ptr<Scripted>> blocked;
  for (int i = 0; i < GetParam(); ++i) {
    blocked.push_back(Add([&](Visit*) {
      ++stuck;
      EXPECT_TRUE(release.Wait());
      return Pollable::Outcome::kEmpty;
    }));
    blocked.back()->Ring();
  }
  ASSERT_TRUE(Eventually([&] { return stuck == GetParam(); }));
  std::atomic<int> served{0};
  const auto honest = Add([&](Visit*) {
    ++served;
    return Pollable::Outcome::kEmpty;
  });
  honest->Ring();
  EXPECT_TRUE(Eventually([&] { return served == 1; }));
  release.Set();
  poller_->Stop();
}

TEST_F(PollerOwnedTest, WhatWasHotWithAScannerThatIsStuckIsPolledByOthers) {
  Event release;
  std::atomic<bool> block{false}, stuck{false};
  std::atomic<int> scanned{0}, attended{0};
  const auto other = Add([&](Visit* visit) {
    ++(visit->scanning() ? scanned : attended);
    return Pollable::Outcome::kSpin;
  });
  const auto blocked = Add([&](Visit* visit) {
    if (visit->scanning() && block && !stuck) {
      stuck = true;
      EXPECT_TRUE(release.Wait());
    }
    return Pollable::Outcome::kSpin;
  });
  other->Ring();
  ASSERT_TRUE(Eventually([&] { return scanned > 0; }));
  blocked->Ring();
  block = true;
  ASSERT_TRUE(Eventually([&] { return stuck.load(); }));
  const int before = attended;
  EXPECT_TRUE(Eventually([&] { return attended > before; }));
  // And what comes to be hot meanwhile is not left to it.
  const int then = attended;
  other->Ring();
  EXPECT_TRUE(Eventually([&] { return attended > then; }));
  release.Set();
  const int later = scanned;
  EXPECT_TRUE(Eventually([&] { return scanned > later; }));
  poller_->Stop();
}

// ---- Sessions.

// Handlers that wait for their cancellation, as a synchronous one does that works for long.
class WaitingHandler final : public CallHandler {
 public:
  void OnCall(ServerCallPtr call, const IncomingMessage*) override {
    if (call->method() == "/a.Service/Quick") return FinishCall(std::move(call), {});
    ++running;
    EXPECT_TRUE(Eventually([&] { return call->IsCancelled(); }));
    ++told;
    FinishCall(std::move(call), {});
  }
  bool NeverBlocks(absl::string_view method) const override { return method == "/a.Service/Quick"; }

  std::atomic<int> running{0};
  std::atomic<int> told{0};
};

class BusySessionsTest : public ::testing::Test {
 protected:
  static constexpr int kThreads = 4;

  BusySessionsTest() : sessions_(Options(), &handler_) { EXPECT_EQ(sessions_.Init(), absl::OkStatus()); }

  static ListenOptions Options() {
    ListenOptions options;
    options.max_threads = kThreads;
    options.keepalive_timeout = absl::InfiniteDuration();
    return options;
  }
  void Connect(RawPeer* peer) {
    sessions_.Add(peer->TakeLink(), {.granted_by_peer = kWindows}, Peer());
    peer->SendMethod();
    peer->Send({.type = FrameType::kMethod, .code = 1}, "/a.Service/Quick");
  }
  static void SendQuick(RawPeer* peer, uint64_t id) {
    peer->Send({.type = FrameType::kRequest, .code = 1, .call_id = id});
  }

  WaitingHandler handler_;
  ServerSessions sessions_;
};

TEST_F(BusySessionsTest, HandlersThatWaitForTheirCancellationAreTold) {
  RawPeer peer;
  Connect(&peer);
  for (uint64_t id = 1; id <= kThreads; ++id) peer.SendRequest(id, 0);
  ASSERT_TRUE(Eventually([&] { return handler_.running == kThreads; }));
  peer.Send({.type = FrameType::kReset, .call_id = 1});
  EXPECT_TRUE(Eventually([&] { return handler_.told == 1; }));
  peer.HangUp();
  EXPECT_TRUE(Eventually([&] { return handler_.told == kThreads; }));
}

TEST_F(BusySessionsTest, CallsThatWaitForAThreadBeginInTheirTurnOrNeverWhenTheyAreCancelled) {
  RawPeer peer;
  Connect(&peer);
  constexpr int kCalls = 3 * kThreads;
  for (uint64_t id = 1; id <= kCalls; ++id) peer.SendRequest(id, 0);
  ASSERT_TRUE(Eventually([&] { return handler_.running == kThreads; }));
  peer.Send({.type = FrameType::kReset, .call_id = kCalls});
  for (uint64_t id = 1; id < kCalls; ++id) {
    peer.Send({.type = FrameType::kReset, .call_id = id});
    EXPECT_TRUE(Eventually([&] { return handler_.told >= static_cast<int>(std::min<uint64_t>(id, kThreads)); }));
  }
  EXPECT_TRUE(Eventually([&] { return handler_.running == handler_.told; }));
  EXPECT_LT(handler_.running, kCalls) << "the last was cancelled before there was a thread for it";
}

TEST_F(BusySessionsTest, WhatNeverBlocksIsServedWhileAllThreadsAreTaken) {
  RawPeer peer;
  Connect(&peer);
  for (uint64_t id = 1; id <= kThreads; ++id) peer.SendRequest(id, 0);
  ASSERT_TRUE(Eventually([&] { return handler_.running == kThreads; }));
  for (uint64_t id = 100; id < 110; ++id) {
    SendQuick(&peer, id);
    EXPECT_EQ(peer.Expect(FrameType::kResponse).header.call_id, id);
  }
  RawPeer other;  // one that comes only now
  Connect(&other);
  SendQuick(&other, 1);
  EXPECT_EQ(other.Expect(FrameType::kResponse).header.call_id, 1u);
  peer.HangUp();
}

TEST_F(BusySessionsTest, AConnectionThatHasAllThreadsLeavesOthersSome) {
  RawPeer greedy;
  Connect(&greedy);
  for (uint64_t id = 1; id <= 2 * kThreads; ++id) greedy.SendRequest(id, 0);
  ASSERT_TRUE(Eventually([&] { return handler_.running == kThreads; }));
  RawPeer other;
  Connect(&other);
  other.SendRequest(1, 0);
  other.SendRequest(2, 0);
  EXPECT_TRUE(Eventually([&] { return handler_.running == kThreads + 2; }));
  other.SendRequest(3, 0);
  SendQuick(&other, 100);  // behind it: so that it has been received
  EXPECT_EQ(other.Expect(FrameType::kResponse).header.call_id, 100u);
  EXPECT_EQ(handler_.running, kThreads + 2) << "but no more than a half again";
  greedy.HangUp();
  EXPECT_TRUE(Eventually([&] { return handler_.told >= kThreads; }));
  EXPECT_TRUE(Eventually([&] { return handler_.running == kThreads + 3; }));
  other.HangUp();
}

TEST_F(BusySessionsTest, AClientThatSendsForEverKeepsNoShutdown) {
  RawPeer peer;
  Connect(&peer);
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    std::string frames;
    for (int i = 0; i < 256; ++i) frames += RawPeer::Encode({.type = FrameType::kAlive});
    while (!stop && peer.TrySendBytes(frames)) {
    }
  });
  SendQuick(&peer, 1);
  sessions_.Shutdown(SteadyTime::Now());
  stop = true;
  flood.join();
}

}  // namespace
}  // namespace shmrpc::framed
