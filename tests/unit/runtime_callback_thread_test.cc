#include "runtime/src/callback_thread.h"

#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc::internal {
namespace {

using shmrpc::testing::Event;

TEST(CallbackThreadTest, RunsInOrderOnAnotherThread) {
  CallbackThread& thread = CallbackThread::Get();
  std::vector<int> order;  // one thread's until the last function has run
  Event last;
  std::thread::id id;
  for (int i = 0; i < 1000; ++i) {
    thread.Run([&order, i] { order.push_back(i); });
  }
  thread.Run([&] {
    id = std::this_thread::get_id();
    last.Set();
  });
  ASSERT_TRUE(last.Wait());
  EXPECT_NE(id, std::this_thread::get_id());
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[i], i);
}

TEST(CallbackThreadTest, AFunctionMayAddAnotherAndIsDestroyedBeforeTheNext) {
  CallbackThread& thread = CallbackThread::Get();
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> weak = held;
  Event done;
  bool gone = false;
  thread.Run([&, held = std::move(held)] {
    thread.Run([&] {
      gone = weak.expired();
      done.Set();
    });
  });
  ASSERT_TRUE(done.Wait());
  EXPECT_TRUE(gone);
}

TEST(CallbackThreadTest, ManyThreadsAdd) {
  constexpr int kThreads = 4;
  constexpr int kFunctions = 5000;
  int ran = 0;
  Event done;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kFunctions; ++n) {
        CallbackThread::Get().Run([&] {
          if (++ran == kThreads * kFunctions) done.Set();
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(done.Wait());
}

}  // namespace
}  // namespace shmrpc::internal
