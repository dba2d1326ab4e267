#include "transports/framed/flow_control.h"

#include <deque>
#include <random>
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
  EXPECT_TRUE(account.MaySend(call));
  account.OnSent(&call, 16383);
  EXPECT_TRUE(account.MaySend(call));
  account.OnSent(&call, 1'000'000);
  EXPECT_FALSE(account.MaySend(call));
  ASSERT_TRUE(account.OnCredit(&call, {.call_bytes = 999'999, .connection_bytes = 999'999}).ok());
  EXPECT_FALSE(account.MaySend(call));
  ASSERT_TRUE(account.OnCredit(&call, {.call_bytes = 1, .connection_bytes = 1}).ok());
  EXPECT_TRUE(account.MaySend(call));
}

TEST(FlowControlTest, StalledCallsUseUpTheConnectionButLeaveEachOtherAQuarter) {
  SendAccount account(Windows(16384, 32768));
  SendAccount::Call first, second, third;
  account.OnSent(&first, 16384);
  account.OnSent(&second, 16384);
  EXPECT_TRUE(account.MaySend(third));
  account.OnSent(&third, 4096);
  EXPECT_TRUE(account.MaySend(third)) << "up to the quarter";
  account.OnSent(&third, 1);
  EXPECT_FALSE(account.MaySend(third));
}

TEST(FlowControlTest, CreditForMoreThanIsUnderWayIsRefused) {
  SendAccount account(Windows(16384, 32768));
  SendAccount::Call call, other;
  account.OnSent(&call, 100);
  account.OnSent(&other, 100);
  EXPECT_FALSE(account.OnCredit(&call, {.call_bytes = 101, .connection_bytes = 0}).ok());
  EXPECT_FALSE(account.OnCredit(nullptr, {.call_bytes = 0, .connection_bytes = 201}).ok());
  EXPECT_TRUE(account.OnCredit(nullptr, {.call_bytes = 77, .connection_bytes = 200}).ok()) << "the call is over";
}

TEST(FlowControlTest, AMessageWithoutCreditIsRefused) {
  ReceiveAccount account(Windows(16384, 1 << 20));
  ReceiveAccount::Call call;
  ASSERT_TRUE(account.OnReceived(&call, 16384).ok());
  EXPECT_FALSE(account.OnReceived(&call, 64).ok());
  ReceiveAccount connection(Windows(16384, 16384));
  ReceiveAccount::Call one, two;
  ASSERT_TRUE(connection.OnReceived(&one, 16384).ok());
  ASSERT_TRUE(connection.OnReceived(&two, 4096).ok());
  ASSERT_TRUE(connection.OnReceived(&two, 64).ok());
  EXPECT_FALSE(connection.OnReceived(&two, 64).ok());
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
          if (sender.MaySend(call.sent)) {
            const uint64_t cost = MessageCost(random() % (random() % 16 == 0 ? 50'000 : 500));
            sender.OnSent(&call.sent, cost);
            wire.emplace_back(chosen, cost);
          }
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
    for (auto& [to, credit] : credits) ASSERT_TRUE(sender.OnCredit(&calls[to].sent, credit).ok());
    for (int i = kCalls / 2; i < kCalls; ++i) EXPECT_TRUE(sender.MaySend(calls[i].sent)) << i << " seed " << seed;
  }
}

}  // namespace
}  // namespace shmrpc::framed
