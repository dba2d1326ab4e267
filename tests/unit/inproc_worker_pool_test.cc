#include "transports/inproc/worker_pool.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc::internal {
namespace {

using shmrpc::testing::Event;

class FunctionTask final : public WorkerPool::Task {
 public:
  explicit FunctionTask(std::function<void()> function) : function_(std::move(function)) {}
  void Run() override { function_(); }

 private:
  const std::function<void()> function_;
};

class WorkerPoolTest : public ::testing::TestWithParam<WaitMode> {};

INSTANTIATE_TEST_SUITE_P(WaitModes, WorkerPoolTest, ::testing::Values(WaitMode::kAdaptive, WaitMode::kEfficient),
                         [](const auto& info) { return std::string(WaitModeName(info.param)); });

TEST_P(WorkerPoolTest, RunsEveryTaskOnce) {
  std::atomic<int> runs{0};
  std::vector<std::unique_ptr<FunctionTask>> tasks;
  WorkerPool pool("test", 4, GetParam());
  for (int i = 0; i < 5000; ++i) {
    tasks.push_back(std::make_unique<FunctionTask>([&] { ++runs; }));
    ASSERT_TRUE(pool.Submit(tasks.back().get()));
  }
  pool.Stop();
  EXPECT_EQ(runs, 5000);
  EXPECT_FALSE(pool.Submit(tasks[0].get()));
  pool.Stop();
}

TEST_P(WorkerPoolTest, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  std::vector<std::unique_ptr<FunctionTask>> tasks;
  WorkerPool pool("test", 1, GetParam());
  for (int i = 0; i < 1000; ++i) {
    tasks.push_back(std::make_unique<FunctionTask>([&order, i] { order.push_back(i); }));
    ASSERT_TRUE(pool.Submit(tasks.back().get()));
  }
  pool.Stop();
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[i], i);
}

TEST_P(WorkerPoolTest, ABlockedTaskHoldsUpNoOther) {
  // In each round all but one of the threads block, in whatever state they were found.
  std::vector<std::unique_ptr<FunctionTask>> tasks;  // live until the pool has stopped
  WorkerPool pool("test", 4, GetParam());
  const auto submit = [&](std::function<void()> function) {
    tasks.push_back(std::make_unique<FunctionTask>(std::move(function)));
    return pool.Submit(tasks.back().get());
  };
  for (int round = 0; round < 200; ++round) {
    const auto go = std::make_shared<Event>();
    const auto blocked = std::make_shared<std::atomic<int>>(0);
    const auto ran = std::make_shared<Event>();
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(submit([=] {
        go->Wait();
        --*blocked;
      }));
      ++*blocked;
    }
    ASSERT_TRUE(submit([=] { ran->Set(); }));
    EXPECT_TRUE(ran->Wait());
    go->Set();
    while (*blocked != 0) std::this_thread::yield();
    if (round % 10 == 0) absl::SleepFor(absl::Milliseconds(1));  // so that all threads sleep
  }
  pool.Stop();
}

}  // namespace
}  // namespace shmrpc::internal
