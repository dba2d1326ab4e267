// Threads for callbacks that have no better place.

#include "runtime/src/callback_threads.h"

#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "shmrpc/mutex.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc::internal {
namespace {

using testing::Event;

TEST(CallbackThreadsTest, RunsElsewhere) {
  Event ran;
  std::thread::id ran_on;
  Mutex held;  // as a user's may be, who started something that is complete at once
  {
    MutexLock lock(&held);
    CallbackThreads::Get().Run([&] {
      {
        MutexLock in_callback(&held);
        ran_on = std::this_thread::get_id();
      }
      ran.Set();  // the test may be over from here on
    });
  }
  EXPECT_TRUE(ran.Wait());
  EXPECT_NE(ran_on, std::this_thread::get_id());
}

TEST(CallbackThreadsTest, ACallbackThatWaitsDoesNotHoldUpTheNext) {
  Event second_ran;
  Event first_ended;
  CallbackThreads::Get().Run([&] {
    EXPECT_TRUE(second_ran.Wait());
    first_ended.Set();
  });
  CallbackThreads::Get().Run([&] { second_ran.Set(); });
  EXPECT_TRUE(first_ended.Wait());
}

TEST(CallbackThreadsTest, RunsMoreThanThereAreThreads) {
  constexpr int kCallbacks = 10 * CallbackThreads::kMaxThreads;
  std::atomic<int> running{0};
  std::atomic<int> most{0};
  std::atomic<int> left{kCallbacks};
  Event all_ran;
  for (int i = 0; i < kCallbacks; ++i) {
    CallbackThreads::Get().Run([&] {
      const int now = ++running;
      for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
      }
      std::this_thread::yield();
      --running;
      if (--left == 0) all_ran.Set();
    });
  }
  EXPECT_TRUE(all_ran.Wait());
  EXPECT_LE(most, CallbackThreads::kMaxThreads);
}

TEST(CallbackThreadsTest, DestroysACallbackAfterItHasRun) {
  Event destroyed;
  const auto set_when_destroyed = [](Event* event) { event->Set(); };
  std::unique_ptr<Event, decltype(set_when_destroyed)> held(&destroyed, set_when_destroyed);
  CallbackThreads::Get().Run([held = std::move(held)] {});
  EXPECT_TRUE(destroyed.Wait());
}

}  // namespace
}  // namespace shmrpc::internal
