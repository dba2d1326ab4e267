#include "runtime/src/deadline_timer.h"

#include <atomic>
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc::internal {
namespace {

using shmrpc::testing::Event;

TEST(DeadlineTimerTest, RunsCallbacksInOrderOfTheirTimes) {
  DeadlineTimer& timer = DeadlineTimer::Get();
  const SteadyTime start = SteadyTime::Now();
  std::vector<int> order;  // used by the timer's thread until `last` is set
  Event last;
  timer.Schedule(start + absl::Milliseconds(30), [&] {
    order.push_back(3);
    last.Set();
  });
  timer.Schedule(start + absl::Milliseconds(20), [&] { order.push_back(2); });
  timer.Schedule(start + absl::Milliseconds(10), [&] { order.push_back(1); });
  ASSERT_TRUE(last.Wait());
  EXPECT_GE(SteadyTime::Now(), start + absl::Milliseconds(30));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(DeadlineTimerTest, AnEarlierTimerWakesTheThread) {
  DeadlineTimer& timer = DeadlineTimer::Get();
  const DeadlineTimer::Handle late = timer.Schedule(SteadyTime::Now() + absl::Hours(1), [] { FAIL(); });
  Event ran;
  timer.Schedule(SteadyTime::Now() + absl::Milliseconds(1), [&] { ran.Set(); });
  EXPECT_TRUE(ran.Wait());
  Event ran_at_once;
  timer.Schedule(SteadyTime::InfinitePast(), [&] { ran_at_once.Set(); });
  EXPECT_TRUE(ran_at_once.Wait());
  EXPECT_TRUE(timer.Cancel(late));
  EXPECT_FALSE(timer.Cancel(late));
}

TEST(DeadlineTimerTest, CancelDropsTheCallback) {
  DeadlineTimer& timer = DeadlineTimer::Get();
  const auto kept = std::make_shared<int>(0);
  const DeadlineTimer::Handle handle = timer.Schedule(SteadyTime::Now() + absl::Hours(1), [kept] {});
  EXPECT_EQ(kept.use_count(), 2);
  EXPECT_TRUE(timer.Cancel(handle));
  EXPECT_EQ(kept.use_count(), 1);
  timer.Schedule(SteadyTime::InfiniteFuture(), [kept] {});
  EXPECT_EQ(kept.use_count(), 1);
}

TEST(DeadlineTimerTest, CancelWaitsForTheRunningCallback) {
  DeadlineTimer& timer = DeadlineTimer::Get();
  Event running;
  std::atomic<bool> finished{false};
  const DeadlineTimer::Handle handle = timer.Schedule(SteadyTime::Now(), [&] {
    running.Set();
    absl::SleepFor(absl::Milliseconds(20));
    finished = true;
  });
  ASSERT_TRUE(running.Wait());
  EXPECT_FALSE(timer.Cancel(handle));
  EXPECT_TRUE(finished);
}

TEST(DeadlineTimerTest, ACallbackMayCancelItselfAndScheduleOthers) {
  DeadlineTimer& timer = DeadlineTimer::Get();
  Event scheduled;
  Event done;
  DeadlineTimer::Handle handle;
  handle = timer.Schedule(SteadyTime::Now() + absl::Milliseconds(1), [&] {
    ASSERT_TRUE(scheduled.Wait());
    EXPECT_FALSE(timer.Cancel(handle));
    timer.Schedule(SteadyTime::Now(), [&] { done.Set(); });
  });
  scheduled.Set();
  EXPECT_TRUE(done.Wait());
}

TEST(DeadlineTimerTest, CancelRacesWithTheTimer) {
  DeadlineTimer& timer = DeadlineTimer::Get();
  for (int i = 0; i < 2000; ++i) {
    std::atomic<int> runs{0};
    const DeadlineTimer::Handle handle =
        timer.Schedule(SteadyTime::Now() + absl::Microseconds(i % 100), [&runs] { runs.fetch_add(1); });
    if (i % 3 == 0) absl::SleepFor(absl::Microseconds(i % 50));
    const bool cancelled = timer.Cancel(handle);
    EXPECT_EQ(runs.load(), cancelled ? 0 : 1);
  }
}

}  // namespace
}  // namespace shmrpc::internal
