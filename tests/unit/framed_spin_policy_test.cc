#include "transports/framed/spin_policy.h"

#include <string>

#include "gtest/gtest.h"

namespace shmrpc::framed {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

TEST(SpinPolicyTest, EfficientModeAndASharedCpuNeverSpin) {
  EXPECT_EQ(SpinPolicy(WaitMode::kEfficient, true).budget(), nanoseconds(0));
  EXPECT_EQ(SpinPolicy(WaitMode::kAdaptive, false).budget(), nanoseconds(0));
  EXPECT_EQ(SpinPolicy(WaitMode::kLatency, false).budget(), nanoseconds(0));
  SpinPolicy policy(WaitMode::kEfficient, true);
  policy.OnWaited(nanoseconds(100));
  EXPECT_EQ(policy.budget(), nanoseconds(0));
  EXPECT_FALSE(policy.spins());
  EXPECT_FALSE(policy.BeginWait());
}

TEST(SpinPolicyTest, LongWaitsShrinkTheBudgetToItsFloor) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  EXPECT_EQ(policy.budget(), SpinPolicy::kLargestBudget);
  for (int i = 0; i < 20; ++i) policy.OnWaited(milliseconds(1000));
  EXPECT_EQ(policy.budget(), SpinPolicy::kSmallestBudget);
}

TEST(SpinPolicyTest, OneWaitThatSpinningWouldHaveCoveredBringsTheBudgetBack) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  for (int i = 0; i < 20; ++i) policy.OnWaited(milliseconds(1000));
  policy.OnWaited(microseconds(8));
  EXPECT_EQ(policy.budget(), microseconds(16));
  policy.OnWaited(microseconds(40));
  EXPECT_EQ(policy.budget(), SpinPolicy::kLargestBudget);
}

// How many waits in a row do not spin, counted up to the one that does.
int CountSkipped(SpinPolicy* policy) {
  int skipped = 0;
  while (skipped <= SpinPolicy::kMostSkipped && !policy->BeginWait()) ++skipped;
  return skipped;
}

// A wait that spins in vain, as when the peer needs this CPU.
void SpinInVain(SpinPolicy* policy) { policy->OnWaited(policy->budget() + microseconds(5)); }

TEST(SpinPolicyTest, WhereSleepingIsBetterSpinningIsTriedLessAndLess) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  for (const int skipped : {0, 0, 1, 3, 7, 15, 31, 63, 127, 255, 255, 255}) {
    EXPECT_EQ(CountSkipped(&policy), skipped);
    if (skipped > 0) policy.OnSlept(microseconds(5));
    SpinInVain(&policy);
  }
}

TEST(SpinPolicyTest, OneSuccessBringsSpinningBack) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  for (int i = 0; i < 6; ++i) {
    CountSkipped(&policy);
    SpinInVain(&policy);
  }
  EXPECT_EQ(CountSkipped(&policy), 31);
  policy.OnWaited(microseconds(1));
  EXPECT_EQ(CountSkipped(&policy), 0);
  SpinInVain(&policy);
  EXPECT_EQ(CountSkipped(&policy), 0);
  SpinInVain(&policy);
  EXPECT_EQ(CountSkipped(&policy), 1);
}

TEST(SpinPolicyTest, WhereSleepingIsNoBetterAllWaitsSpin) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  for (int i = 0; i < 10; ++i) {
    SpinInVain(&policy);
    EXPECT_EQ(CountSkipped(&policy), 0);
    SpinInVain(&policy);
    EXPECT_FALSE(policy.BeginWait());
    policy.OnSlept(microseconds(90));
    EXPECT_EQ(CountSkipped(&policy), 0);
  }
}

TEST(SpinPolicyTest, LongWaitsAreNoReasonToSkipOthers) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  for (int i = 0; i < 20; ++i) {
    policy.OnWaited(milliseconds(1000));
    EXPECT_TRUE(policy.BeginWait());
  }
}

TEST(SpinPolicyTest, LargeMessagesBuyTimeInProportion) {
  EXPECT_EQ(SpinPolicy::AllowanceFor(0), nanoseconds(0));
  EXPECT_EQ(SpinPolicy::AllowanceFor(8000), microseconds(1));
  EXPECT_EQ(SpinPolicy::AllowanceFor(uint64_t{1} << 40), SpinPolicy::kLargestAllowance);
}

TEST(SpinPolicyTest, AWaitWithinItsAllowanceSaysNothingOfOthers) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  for (int i = 0; i < 20; ++i) policy.OnWaited(milliseconds(1000));
  policy.OnWaited(microseconds(30), /*allowance=*/microseconds(100));
  EXPECT_EQ(policy.budget(), SpinPolicy::kSmallestBudget);
  policy.OnWaited(microseconds(108), /*allowance=*/microseconds(100));
  EXPECT_EQ(policy.budget(), microseconds(16));
}

TEST(SpinPolicyTest, AnAllowanceSpentInVainIsNoReasonToSpinOn) {
  SpinPolicy policy(WaitMode::kAdaptive, true);
  const microseconds allowance(100);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(policy.BeginWait());
    policy.OnWaited(policy.budget() + allowance + microseconds(5), allowance);
  }
  EXPECT_FALSE(policy.BeginWait());
}

TEST(SpinPolicyTest, LatencyModeDoesNotLearn) {
  SpinPolicy policy(WaitMode::kLatency, true);
  policy.OnWaited(milliseconds(1000));
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(policy.BeginWait());
    SpinInVain(&policy);
  }
  EXPECT_EQ(policy.budget(), SpinPolicy::kLatencyBudget);
}

TEST(CanRunTogetherTest, NeedsTwoCpusBetweenThem) {
  const std::string cpu0("\x01", 1), cpu1("\x02", 1), both("\x03", 1), cpu8(std::string("\x00\x01", 2));
  EXPECT_FALSE(CanRunTogether(cpu0, cpu0));
  EXPECT_FALSE(CanRunTogether("", cpu0));
  // Whether two CPUs are enough depends on this machine's quota as well, the same for all of these.
  const bool quota_allows = CanRunTogether(both, both);
  EXPECT_EQ(CanRunTogether(cpu0, cpu1), quota_allows);
  EXPECT_EQ(CanRunTogether(cpu0, cpu8), quota_allows);
  EXPECT_EQ(CanRunTogether(both, ""), quota_allows);
}

TEST(AllowedCpusTest, NamesAtLeastOneCpu) {
  const std::string mask = AllowedCpus();
  EXPECT_NE(mask.find_first_not_of('\0'), std::string::npos);
}

}  // namespace
}  // namespace shmrpc::framed
