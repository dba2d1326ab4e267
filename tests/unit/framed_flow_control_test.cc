#include "transports/framed/flow_control.h"

#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace shmrpc::framed {
namespace {

FlowControlOptions Windows(size_t call, size_t connection) {
  FlowControlOptions options;
  options.stream_bytes = call;
  options.connection_bytes = connection;
  return options;
}

TEST(FlowControlTest, AMessageMayBeginWhileTheCallsWindowIsNotUsedUpAndGoBeyondIt) {
  SendAccount account(Windows(16384, 1 << 20));
  SendAccount::Call call;
  EXPECT_TRUE(account.TrySend(&call, 16383));
  EXPECT_TRUE(account.TrySend(&call, 1'000'000));
  EXPECT_FALSE(account.TrySend(&call, 64));
  ASSERT_TRUE(account.OnCredit(&call, {.call_bytes = 999'999, .connection_bytes = 999'999}).ok());
  EXPECT_EQ(account.TakeSendable(), nullptr);
  EXPECT_FALSE(account.TrySend(&call, 64));
  ASSERT_TRUE(account.OnCredit(&call, {.call_bytes = 1, .connection_bytes = 1}).ok());
  EXPECT_EQ(account.TakeSendable(), &call);
  EXPECT_EQ(account.TakeSendable(), nullptr);
  EXPECT_TRUE(account.TrySend(&call, 64));
}

TEST(FlowControlTest, StalledCallsUseUpTheConnectionButLeaveEachOtherAQuarter) {
  SendAccount account(Windows(16384, 32768));
  SendAccount::Call first, second, third;
  EXPECT_TRUE(account.TrySend(&first, 16384));
  EXPECT_TRUE(account.TrySend(&second, 16384));
  EXPECT_TRUE(account.TrySend(&third, 4096));
  EXPECT_TRUE(account.TrySend(&third, 1)) << "up to the quarter";
  EXPECT_FALSE(account.TrySend(&third, 64));
  // Its own credit lets it go on, whatever becomes of the others.
  ASSERT_TRUE(account.OnCredit(&third, {.call_bytes = 1, .connection_bytes = 0}).ok());
  EXPECT_EQ(account.TakeSendable(), &third);
  EXPECT_TRUE(account.TrySend(&third, 64));
}

// Fills the connection's window, and lets `count` calls wait for it, each with a message that costs `cost`.
class WaitingCalls {
 public:
  WaitingCalls(int count, uint64_t cost) : account(Windows(16384, 32768)), calls(count) {
    EXPECT_TRUE(account.TrySend(&full, 16384));
    EXPECT_TRUE(account.TrySend(&other, 16384));
    for (SendAccount::Call& call : calls) {
      call.id = static_cast<uint64_t>(&call - calls.data());
      EXPECT_TRUE(account.TrySend(&call, 5000)) << "nothing is under way for it";
      EXPECT_FALSE(account.TrySend(&call, cost));
    }
    // All that is beyond the window.
    Credit(5000 * static_cast<uint32_t>(count));
    EXPECT_EQ(account.TakeSendable(), nullptr);
  }
  void Credit(uint32_t bytes) {
    ASSERT_TRUE(account.OnCredit(nullptr, {.call_bytes = 0, .connection_bytes = bytes}).ok());
  }

  SendAccount account;
  SendAccount::Call full, other;
  std::vector<SendAccount::Call> calls;
};

TEST(FlowControlTest, CreditOfTheConnectionWakesAsManyCallsAsItLetsSendInTurn) {
  constexpr int kCalls = 1000;
  constexpr uint32_t kCost = 500;
  WaitingCalls waiting(kCalls, kCost);
  int woken = 0;
  for (; woken < kCalls; ++woken) {
    waiting.Credit(kCost);
    SendAccount::Call* const call = waiting.account.TakeSendable();
    ASSERT_EQ(call, &waiting.calls[static_cast<size_t>(woken)]);
    ASSERT_EQ(waiting.account.TakeSendable(), nullptr) << "the others would only wait again";
    ASSERT_TRUE(waiting.account.TrySend(call, kCost));
    ASSERT_EQ(waiting.account.TakeSendable(), nullptr);
  }
  // Credit in the smallest steps wakes nobody more often.
  for (SendAccount::Call& call : waiting.calls) ASSERT_FALSE(waiting.account.TrySend(&call, kCost));
  for (uint32_t i = 0, all = 0; i < 10 * kCost; ++i) {
    waiting.Credit(1);
    if (SendAccount::Call* const call = waiting.account.TakeSendable(); call != nullptr) {
      ASSERT_TRUE(waiting.account.TrySend(call, kCost));
      ASSERT_LE(++all, 10u);
    }
  }
}

TEST(FlowControlTest, WhatWasPromisedToACallThatEndsIsTheNextOnes) {
  WaitingCalls waiting(3, 500);
  waiting.Credit(500);
  ASSERT_EQ(waiting.account.TakeSendable(), &waiting.calls[0]);
  ASSERT_EQ(waiting.account.TakeSendable(), nullptr);
  SendAccount::Call newcomer;
  EXPECT_TRUE(waiting.account.TrySend(&newcomer, 5000));
  EXPECT_FALSE(waiting.account.TrySend(&newcomer, 500)) << "the room is promised";
  waiting.Credit(5000);
  waiting.account.OnOver(&waiting.calls[1]);
  EXPECT_EQ(waiting.account.TakeSendable(), nullptr);
  waiting.account.OnOver(&waiting.calls[0]);
  ASSERT_EQ(waiting.account.TakeSendable(), &waiting.calls[2]);
  ASSERT_EQ(waiting.account.TakeSendable(), nullptr);
  EXPECT_TRUE(waiting.account.TrySend(&waiting.calls[2], 500));
  waiting.Credit(500);
  EXPECT_EQ(waiting.account.TakeSendable(), &newcomer);
}

// A hostile peer may return what has been counted and not been sent yet; then it is not sent after all.
TEST(FlowControlTest, WhatIsReturnedAndNotSentIsNotTakenOffTwice) {
  SendAccount account(Windows(16384, 32768));
  SendAccount::Call call, other;
  ASSERT_TRUE(account.TrySend(&call, 100));
  ASSERT_TRUE(account.OnCredit(&call, {.call_bytes = 100, .connection_bytes = 100}).ok());
  account.OnNotSent(&call, 100);
  EXPECT_EQ(call.under_way, 0u);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(account.TrySend(&other, 5000)) << "the connection's window is open";
}

TEST(FlowControlTest, CreditForMoreThanIsUnderWayIsRefused) {
  SendAccount account(Windows(16384, 32768));
  SendAccount::Call call, other;
  ASSERT_TRUE(account.TrySend(&call, 100));
  ASSERT_TRUE(account.TrySend(&other, 100));
  EXPECT_FALSE(account.OnCredit(&call, {.call_bytes = 101, .connection_bytes = 0}).ok());
  EXPECT_FALSE(account.OnCredit(nullptr, {.call_bytes = 0, .connection_bytes = 201}).ok());
  EXPECT_TRUE(account.OnCredit(nullptr, {.call_bytes = 77, .connection_bytes = 200}).ok()) << "the call is over";
}

TEST(FlowControlTest, AMessageWithoutCreditIsRefused) {
  ReceiveAccount account(Windows(16384, 1 << 20));
  ReceiveAccount::Call call;
  ASSERT_TRUE(account.OnReceived(&call, 16384).ok());
  EXPECT_FALSE(account.OnReceived(&call, 64).ok());
}

// Senders that keep the rules are never refused and never stuck, whatever order messages, reading and credits come in;
// what is under way stays bounded.
TEST(FlowControlTest, ARandomConversationNeverBreaksTheRulesNorGetsStuck) {
  constexpr int kCalls = 20;
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::minstd_rand random(seed);
    const FlowControlOptions windows = Windows(16384, 16384 + random() % 65536);
    SendAccount sender(windows);
    ReceiveAccount receiver(windows);
    struct Call {
      SendAccount::Call sent;
      ReceiveAccount::Call received;
      std::deque<uint64_t> inbox;
      uint64_t cost = 0;  // of the message that it wants to send
    };
    std::vector<Call> calls(kCalls);
    std::deque<std::pair<int, uint64_t>> wire;
    std::deque<std::pair<int, Credit>> credits;
    uint64_t most = 0;
    for (int step = 0; step < 20'000; ++step) {
      const int chosen = static_cast<int>(random() % kCalls);
      Call& call = calls[chosen];
      switch (random() % 4) {
        case 0:
          if (call.sent.waits) break;
          if (call.cost == 0) call.cost = MessageCost(random() % (random() % 16 == 0 ? 50'000 : 500));
          if (sender.TrySend(&call.sent, call.cost)) wire.emplace_back(chosen, std::exchange(call.cost, 0));
          break;
        case 1:
          if (!wire.empty()) {
            auto [to, cost] = wire.front();
            wire.pop_front();
            ASSERT_TRUE(receiver.OnReceived(&calls[to].received, cost).ok());
            calls[to].inbox.push_back(cost);
          }
          break;
        case 2:
          if (chosen >= kCalls / 2 && !call.inbox.empty()) {  // the first half is not read
            const Credit credit = receiver.OnRead(&call.received, call.inbox.front());
            call.inbox.pop_front();
            if (!credit.empty()) credits.emplace_back(chosen, credit);
          }
          break;
        case 3:
          if (!credits.empty()) {
            auto [to, credit] = credits.front();
            credits.pop_front();
            ASSERT_TRUE(sender.OnCredit(&calls[to].sent, credit).ok());
            while (sender.TakeSendable() != nullptr) {
            }
          }
          break;
      }
      uint64_t under_way = 0;
      for (const Call& each : calls) under_way += each.sent.under_way;
      most = std::max(most, under_way);
    }
    EXPECT_LT(most, windows.connection_bytes + kCalls * (windows.stream_bytes / 4 + 50'064 + windows.stream_bytes / 8));
    // Once all that came was read, a call of the second half may always send.
    while (!wire.empty()) {
      auto [to, cost] = wire.front();
      wire.pop_front();
      ASSERT_TRUE(receiver.OnReceived(&calls[to].received, cost).ok());
      calls[to].inbox.push_back(cost);
    }
    for (int i = kCalls / 2; i < kCalls; ++i) {
      for (const uint64_t cost : calls[i].inbox) {
        const Credit credit = receiver.OnRead(&calls[i].received, cost);
        if (!credit.empty()) credits.emplace_back(i, credit);
      }
    }
    for (auto& [to, credit] : credits) {
      ASSERT_TRUE(sender.OnCredit(&calls[to].sent, credit).ok());
      while (sender.TakeSendable() != nullptr) {
      }
    }
    for (int i = kCalls / 2; i < kCalls; ++i) {
      EXPECT_FALSE(calls[i].sent.waits) << i << " seed " << seed;
      EXPECT_TRUE(sender.TrySend(&calls[i].sent, 64)) << i << " seed " << seed;
    }
  }
}

}  // namespace
}  // namespace shmrpc::framed
