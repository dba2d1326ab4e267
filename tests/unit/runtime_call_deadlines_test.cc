#include "runtime/src/call_deadlines.h"

#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/conformance/sync.h"

namespace shmrpc::internal {
namespace {

using conformance::Counter;

class Call final : public CallDeadlines::Entry, public std::enable_shared_from_this<Call> {
 public:
  std::shared_ptr<Entry> KeepWhileDue() override { return weak_from_this().lock(); }
  void OnDeadline() override {
    passed_at = SteadyTime::Now();
    passed.Increment();
  }

  Counter passed;
  SteadyTime passed_at;
};

SteadyTime In(absl::Duration duration) { return SteadyTime::Now() + duration; }

TEST(CallDeadlinesTest, EachCallIsToldOnceAndNotBeforeItsTime) {
  const auto deadlines = std::make_shared<CallDeadlines>();
  std::vector<std::shared_ptr<Call>> calls;
  std::vector<SteadyTime> times;
  const auto far = std::make_shared<Call>();
  deadlines->Add(far.get(), In(absl::Hours(1)));
  // Later ones, and earlier ones than the timer was set for.
  for (const int milliseconds : {40, 60, 20, 30, 10, 50}) {
    calls.push_back(std::make_shared<Call>());
    times.push_back(In(absl::Milliseconds(milliseconds)));
    deadlines->Add(calls.back().get(), times.back());
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    ASSERT_TRUE(calls[i]->passed.WaitFor(1));
    EXPECT_GE(calls[i]->passed_at, times[i]);
  }
  for (const auto& call : calls) EXPECT_EQ(call->passed.value(), 1);
  EXPECT_EQ(far->passed.value(), 0);
  deadlines->Remove(far.get());
}

TEST(CallDeadlinesTest, ACallThatWasRemovedIsNotToldButThoseBehindItAre) {
  const auto deadlines = std::make_shared<CallDeadlines>();
  const auto removed = std::make_shared<Call>();
  const auto stays = std::make_shared<Call>();
  deadlines->Add(removed.get(), In(absl::Milliseconds(5)));
  deadlines->Add(stays.get(), In(absl::Milliseconds(30)));
  deadlines->Remove(removed.get());
  deadlines->Remove(removed.get());  // harmless
  ASSERT_TRUE(stays->passed.WaitFor(1));
  EXPECT_EQ(removed->passed.value(), 0);
  // The list is empty now, and the timer set for nothing: the next call sets it again.
  deadlines->Add(removed.get(), In(absl::Milliseconds(5)));
  ASSERT_TRUE(removed->passed.WaitFor(1));
}

TEST(CallDeadlinesTest, TheListMayGoBeforeTheTimerIsDue) {
  auto deadlines = std::make_shared<CallDeadlines>();
  const auto call = std::make_shared<Call>();
  deadlines->Add(call.get(), In(absl::Milliseconds(10)));
  deadlines->Remove(call.get());
  deadlines.reset();
  const auto others = std::make_shared<CallDeadlines>();
  const auto later = std::make_shared<Call>();
  others->Add(later.get(), In(absl::Milliseconds(30)));
  ASSERT_TRUE(later->passed.WaitFor(1));
  EXPECT_EQ(call->passed.value(), 0);
}

// Of a call that ends and its deadline either comes first, and the call may be gone as soon as it is removed.
TEST(CallDeadlinesTest, CallsEndWhileTheirDeadlinesPass) {
  const auto deadlines = std::make_shared<CallDeadlines>();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 2000; ++j) {
        const auto call = std::make_shared<Call>();
        deadlines->Add(call.get(), In(absl::Microseconds(j % 50)));
        if (j % 3 == 0) {
          ASSERT_TRUE(call->passed.WaitFor(1));
        }
        deadlines->Remove(call.get());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace shmrpc::internal
