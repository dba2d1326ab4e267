// Several coroutines at the same time, and results of spawned ones.

#include "shmrpc/when.h"

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shmrpc/wait.h"

namespace shmrpc {
namespace {

Task<int> After(absl::Duration duration, int value) {
  co_await Sleep(duration);
  co_return value;
}

Task<int> Fail() {
  throw std::runtime_error("broken");
  co_return 1;
}

TEST(WhenAllTest, GivesAllResults) {
  bool ran = false;
  const auto nothing = [&]() -> Task<void> {
    ran = true;
    co_return;
  };
  const auto own = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(3); };
  auto [slow, unit, owned] = SyncWait(WhenAll(After(absl::Milliseconds(3), 1), nothing(), own()));
  EXPECT_EQ(slow, 1);
  EXPECT_TRUE(ran);
  EXPECT_EQ(*owned, 3);
  std::vector<Task<int>> many;
  for (int i = 0; i < 100; ++i) many.push_back(After(absl::Microseconds(i * 37 % 500), i));
  const std::vector<int> results = SyncWait(WhenAll(std::move(many)));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(results[i], i);
  EXPECT_TRUE(SyncWait(WhenAll(std::vector<Task<int>>())).empty());
}

TEST(WhenAllTest, WaitsForAllAlsoWhenOneThrows) {
  bool slow_ran = false;
  const auto slow = [&]() -> Task<void> {
    co_await Sleep(absl::Milliseconds(5));
    slow_ran = true;
  };
  EXPECT_THROW(SyncWait(WhenAll(Fail(), slow())), std::runtime_error);
  EXPECT_TRUE(slow_ran);
}

TEST(WhenAnyTest, StopsTheOthers) {
  Queue<int> queue(1);
  const auto run = [&](std::stop_token stop, absl::Duration duration) -> Task<size_t> {
    auto any = co_await WhenAny(
        std::move(stop), [&](std::stop_token token) { return queue.Pop(token); },
        [&](std::stop_token token) { return Sleep(duration, token); });
    EXPECT_EQ(std::get<0>(any.results).has_value(), any.first == 0);
    co_return any.first;
  };
  EXPECT_EQ(SyncWait(run({}, absl::Milliseconds(2))), 1u);
  queue.TryPush(5);
  EXPECT_EQ(SyncWait(run({}, absl::InfiniteDuration())), 0u);
  // Its own stop reaches all of them.
  std::stop_source source;
  Spawned<void> stopped = Spawn([](std::stop_token stop) -> Task<void> {
    Event never;
    const auto any = co_await WhenAny(
        std::move(stop), [&](std::stop_token token) { return never.Wait(token); },
        [&](std::stop_token token) { return never.Wait(token); });
    EXPECT_FALSE(std::get<0>(any.results));
    EXPECT_FALSE(std::get<1>(any.results));
  }(source.get_token()));
  source.request_stop();
  SyncWait([](Spawned<void> one) -> Task<void> { co_await one; }(std::move(stopped)));
}

TEST(WhenAnyTest, RethrowsAnException) {
  EXPECT_THROW(SyncWait(WhenAny(
                   std::stop_token(), [](std::stop_token) { return Fail(); },
                   [](std::stop_token stop) { return Sleep(absl::InfiniteDuration(), stop); })),
               std::runtime_error);
}

TEST(SpawnTest, GivesTheResultOnce) {
  const auto join = [](Spawned<int> one) -> Task<int> { co_return co_await one; };
  Spawned<int> later = Spawn(After(absl::Milliseconds(2), 4));
  EXPECT_EQ(SyncWait(join(std::move(later))), 4);
  Spawned<int> at_once = Spawn([]() -> Task<int> { co_return 5; }());
  EXPECT_TRUE(at_once.IsFinished());
  EXPECT_EQ(SyncWait(join(std::move(at_once))), 5);
  EXPECT_THROW(SyncWait(join(Spawn(Fail()))), std::runtime_error);
  Spawn(After(absl::Milliseconds(1), 6));  // nobody waits for it
}

TEST(SpawnDeathTest, AnExceptionThatNobodyWaitsForEndsTheProgram) { EXPECT_DEATH(Spawn(Fail()), "terminate called"); }

}  // namespace
}  // namespace shmrpc
