// The budget's decisions, with looks at times that the test chooses: who may begin, and who is ended.

#include "runtime/src/memory_budget.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "tests/conformance/sync.h"

namespace shmrpc::internal {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kMiB = size_t{1} << 20;

// A connection that is ended by giving back what it holds.
struct Holder {
  explicit Holder(const std::shared_ptr<MemoryBudget>& budget) : account(budget) {
    account.SetEnd([this] {
      return [this](const absl::Status& why) {
        ended = why;
        account.Return(account.used());
        over = true;
      };
    });
  }
  absl::Status ended;
  std::atomic<bool> over{false};
  MemoryAccount account;
};

class MemoryBudgetTest : public ::testing::Test {
 protected:
  void LookAfter(absl::Duration time) {
    now_ = now_ + time;
    budget_->Look(now_);
  }

  const std::shared_ptr<MemoryBudget> budget_ = std::make_shared<MemoryBudget>(80 * kMiB, /*timed=*/false);
  SteadyTime now_ = SteadyTime::Now() + absl::Hours(1);
};

TEST_F(MemoryBudgetTest, WithinItAllMayBegin) {
  Holder one(budget_);
  one.account.Take(50 * kMiB);
  EXPECT_EQ(budget_->used(), 50 * kMiB);
  LookAfter(absl::Seconds(10));
  LookAfter(absl::Seconds(10));
  EXPECT_TRUE(one.account.MayBegin());
  EXPECT_TRUE(one.ended.ok());
  one.account.Return(50 * kMiB);
  EXPECT_EQ(budget_->used(), 0u);
}

TEST_F(MemoryBudgetTest, WhenItIsTightWhoeverHoldsMostAndIsStillEnds) {
  Holder busy(budget_);
  Holder still(budget_);
  Holder small(budget_);
  busy.account.Take(35 * kMiB);
  still.account.Take(28 * kMiB);
  small.account.Take(1000);
  for (Holder* holder : {&busy, &still}) {
    EXPECT_FALSE(holder->account.MayBegin());
    EXPECT_THAT(std::string(holder->account.WhyNot().message()),
                AllOf(HasSubstr("the option max_memory_bytes"), HasSubstr(std::to_string(80 * kMiB)),
                      HasSubstr("the option connection_limits")));
  }
  EXPECT_TRUE(small.account.MayBegin());
  EXPECT_FALSE(budget_->IsFull());
  LookAfter(absl::Seconds(0));
  EXPECT_TRUE(busy.ended.ok() && still.ended.ok());
  busy.account.NoteMoved();
  LookAfter(absl::Seconds(1));
  EXPECT_TRUE(busy.ended.ok() && small.ended.ok());
  EXPECT_EQ(still.ended.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(still.ended.message()),
      AllOf(HasSubstr("max_memory_bytes (" + std::to_string(80 * kMiB) + ")"), HasSubstr(std::to_string(28 * kMiB))));
  LookAfter(absl::Seconds(0));
  EXPECT_TRUE(busy.account.MayBegin());
}

TEST_F(MemoryBudgetTest, WhenItIsFullNobodyBeginsAndWhoeverHoldsMostEnds) {
  std::vector<std::unique_ptr<Holder>> holders;
  for (size_t mib : {30, 31, 10}) {
    holders.push_back(std::make_unique<Holder>(budget_));
    holders.back()->account.Take(mib * kMiB);
  }
  Holder small(budget_);
  EXPECT_TRUE(budget_->IsFull());
  EXPECT_FALSE(small.account.MayBegin());
  EXPECT_THAT(std::string(small.account.WhyNot().message()), HasSubstr("the option max_memory_bytes"));
  for (const auto& holder : holders) holder->account.NoteMoved();
  LookAfter(absl::Seconds(0));
  EXPECT_TRUE(holders[0]->ended.ok());
  EXPECT_FALSE(holders[1]->ended.ok());
  EXPECT_TRUE(holders[2]->ended.ok());
  EXPECT_FALSE(budget_->IsFull());  // at once: calls need not wait for the next look
  EXPECT_TRUE(small.account.MayBegin());
}

TEST_F(MemoryBudgetTest, ItsOwnLooksComeWhenItIsFull) {
  const auto budget = std::make_shared<MemoryBudget>(80 * kMiB);
  Holder holder(budget);
  holder.account.Take(75 * kMiB);
  EXPECT_TRUE(conformance::Eventually([&] { return holder.over.load(); }));
  EXPECT_FALSE(holder.ended.ok());
}

TEST_F(MemoryBudgetTest, AnAccountThatGoesGivesBackWhatItHas) {
  {
    MemoryAccount account(budget_);
    account.Take(kMiB);
    const MemoryCharge charge(&account);
    EXPECT_EQ(budget_->used(), kMiB);
  }
  EXPECT_EQ(budget_->used(), 0u);
}

TEST_F(MemoryBudgetTest, ChargesTakeInStepsAndNeverLessThanThereIs) {
  MemoryAccount account(budget_);
  {
    MemoryCharge charge(&account);
    size_t there = 0;
    for (size_t bytes : {100, 1900, 100, 8000, 1, 100'000, 7, 70'000}) {
      charge.Add(bytes);
      there += bytes;
      EXPECT_GE(account.used() + MemoryCharge::kFree, there);
      EXPECT_LE(account.used(), there + 2 * MemoryCharge::kStep);
    }
    while (there > 0) {
      const size_t bytes = std::min<size_t>(there, 5000);
      charge.Remove(bytes);
      there -= bytes;
      EXPECT_GE(account.used() + MemoryCharge::kFree, there);
      EXPECT_LE(account.used(), there + 2 * MemoryCharge::kStep);
    }
    EXPECT_EQ(account.used(), 0u);
    charge.Set(50'000);
    EXPECT_GE(account.used(), 50'000u);
    charge.Set(10);
    EXPECT_EQ(account.used(), 0u);
    charge.Set(10'000);
  }
  EXPECT_EQ(account.used(), 0u);
}

TEST_F(MemoryBudgetTest, ByDefaultItIsAPartOfWhatThereIs) {
  const MemoryBudget budget(absl::nullopt);
  EXPECT_GE(budget.limit(), 64 * kMiB);
}

}  // namespace
}  // namespace shmrpc::internal
