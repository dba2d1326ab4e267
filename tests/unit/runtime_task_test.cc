// Tasks by themselves: when they run, where they go on, and what becomes of results, exceptions and stacks.

#include "shmrpc/task.h"
#include "shmrpc/wait.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc {
namespace {

using testing::Event;

// Keeps what it is given until the test runs it.
class ManualExecutor final : public Executor {
 public:
  void Execute(absl::AnyInvocable<void()> function) override { functions_.push_back(std::move(function)); }
  size_t size() const { return functions_.size(); }
  void RunAll() {
    for (absl::AnyInvocable<void()>& function : std::exchange(functions_, {})) function();
  }

 private:
  std::vector<absl::AnyInvocable<void()>> functions_;
};

// Starts a thread for each function.
class ThreadExecutor final : public Executor {
 public:
  ~ThreadExecutor() override {
    for (;;) {
      std::thread thread;
      {
        MutexLock lock(&mutex_);
        if (threads_.empty()) return;
        thread = std::move(threads_.back());
        threads_.pop_back();
      }
      thread.join();
    }
  }
  void Execute(absl::AnyInvocable<void()> function) override {
    MutexLock lock(&mutex_);
    threads_.emplace_back(std::move(function));
  }

 private:
  Mutex mutex_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

Task<int> Return(int value) { co_return value; }

Task<void> Increment(int* count) {
  ++*count;
  co_return;
}

TEST(TaskTest, RunsWhenItIsAwaited) {
  int count = 0;
  Task<void> task = Increment(&count);
  EXPECT_EQ(count, 0);
  SyncWait(std::move(task));
  EXPECT_EQ(count, 1);
  { const Task<void> never = Increment(&count); }
  EXPECT_EQ(count, 1);
  EXPECT_EQ(SyncWait(Return(7)), 7);
}

TEST(TaskTest, ResultsAreMoved) {
  const auto make = [](int value) -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(value); };
  const auto forward = [&]() -> Task<absl::StatusOr<std::unique_ptr<int>>> {
    std::unique_ptr<int> value = co_await make(3);
    co_return std::move(value);
  };
  const absl::StatusOr<std::unique_ptr<int>> result = SyncWait(forward());
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(**result, 3);
  Task<int> first = Return(1);
  Task<int> second = Return(2);
  first = std::move(second);
  EXPECT_EQ(SyncWait(std::move(first)), 2);
}

TEST(TaskTest, AStatusOrTakesEither) {
  const auto fail = []() -> Task<absl::StatusOr<int>> { co_return absl::NotFoundError("x"); };
  EXPECT_EQ(SyncWait(fail()).status(), absl::NotFoundError("x"));
  const auto ok = []() -> Task<absl::Status> { co_return absl::OkStatus(); };
  EXPECT_EQ(SyncWait(ok()), absl::OkStatus());
}

TEST(TaskTest, TemporariesInACoAwaitLiveUntilItIsOver) {
  ThreadExecutor executor;
  const auto length = [&](const std::string& text) -> Task<size_t> {
    co_await ResumeOn(&executor);
    co_return text.size();
  };
  const auto sum = [&]() -> Task<size_t> {
    const size_t first = co_await length(std::string(100, 'x'));
    if (co_await length(std::string(50, 'x') + "y") != 51) co_return 0;
    co_return first + co_await length("a temporary that is longer than a small string");
  };
  EXPECT_EQ(SyncWait(sum()), 146u);
}

TEST(TaskTest, ExceptionsGoToWhoAwaits) {
  const auto fail = []() -> Task<int> {
    throw std::runtime_error("broken");
    co_return 1;
  };
  const auto fail_later = [&](Executor* executor) -> Task<void> {
    co_await ResumeOn(executor);
    co_await fail();
  };
  EXPECT_THROW(SyncWait(fail()), std::runtime_error);
  ThreadExecutor executor;
  EXPECT_THROW(SyncWait(fail_later(&executor)), std::runtime_error);
  const auto handle = [&]() -> Task<std::string> {
    try {
      co_await fail();
    } catch (const std::runtime_error& error) {
      co_return error.what();
    }
    co_return "";
  };
  EXPECT_EQ(SyncWait(handle()), "broken");
}

TEST(TaskTest, LoopsDoNotGrowTheStack) {
  const auto complete_at_once = []() -> Task<int> {
    int sum = 0;
    for (int i = 0; i < 1000000; ++i) sum += co_await Return(1);
    co_return sum;
  };
  EXPECT_EQ(SyncWait(complete_at_once()), 1000000);

  ManualExecutor executor;
  const auto hop = [&]() -> Task<int> {
    co_await ResumeOn(&executor);
    co_return 1;
  };
  int sum = 0;
  const auto complete_later = [&]() -> Task<void> {
    for (int i = 0; i < 100000; ++i) sum += co_await hop();
  };
  Spawn(complete_later());
  while (executor.size() > 0) executor.RunAll();
  EXPECT_EQ(sum, 100000);
}

TEST(TaskTest, SpawnRunsUntilTheFirstWait) {
  ManualExecutor executor;
  int count = 0;
  const auto run = [&]() -> Task<void> {
    co_await Increment(&count);
    co_await ResumeOn(&executor);
    co_await Increment(&count);
  };
  Spawn(run());
  EXPECT_EQ(count, 1);
  executor.RunAll();
  EXPECT_EQ(count, 2);
}

TEST(TaskTest, ResumeOnGoesToTheExecutor) {
  ThreadExecutor executor;
  const auto run = [&]() -> Task<std::thread::id> {
    co_await ResumeOn(&executor);
    co_return std::this_thread::get_id();
  };
  EXPECT_NE(SyncWait(run()), std::this_thread::get_id());
}

TEST(TaskTest, SleepTakesItsTime) {
  const auto run = []() -> Task<void> {
    co_await Sleep(absl::ZeroDuration());
    co_await Sleep(absl::Milliseconds(5));
  };
  const absl::Time start = absl::Now();
  SyncWait(run());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(5));
}

TEST(TaskTest, ThousandsSleepAtTheSameTime) {
  constexpr int kTasks = 10000;
  std::atomic<int> awake{0};
  Event all;
  const auto run = [&](int i) -> Task<void> {
    co_await Sleep(absl::Microseconds(i));
    if (++awake == kTasks) all.Set();
  };
  for (int i = 0; i < kTasks; ++i) Spawn(run(i));
  EXPECT_TRUE(all.Wait());
}

// The end of a Task and the one who begins to wait for it, on two threads: exactly one of the two goes on.
TEST(TaskTest, EndAndWaitRace) {
  // Resumes on the other thread as soon as it can, while await_suspend may still be running here.
  class OtherThread final : public Executor {
   public:
    OtherThread() : thread_([this] { Run(); }) {}
    ~OtherThread() override {
      Execute(nullptr);
      thread_.join();
    }
    void Execute(absl::AnyInvocable<void()> function) override {
      MutexLock lock(&mutex_);
      functions_.push_back(std::move(function));
      added_.Signal();
    }

   private:
    void Run() {
      for (;;) {
        std::vector<absl::AnyInvocable<void()>> functions;
        {
          MutexLock lock(&mutex_);
          while (functions_.empty()) added_.Wait(&mutex_);
          functions.swap(functions_);
        }
        for (absl::AnyInvocable<void()>& function : functions) {
          if (function == nullptr) return;
          function();
        }
      }
    }
    Mutex mutex_;
    CondVar added_;
    std::vector<absl::AnyInvocable<void()>> functions_ ABSL_GUARDED_BY(mutex_);
    std::thread thread_;
  };
  OtherThread threads[2];
  const auto hop = [&](int i) -> Task<int> {
    co_await ResumeOn(&threads[i % 2]);
    co_return i;
  };
  const auto run = [&]() -> Task<int64_t> {
    int64_t sum = 0;
    for (int i = 0; i < 20000; ++i) sum += co_await hop(i);
    co_return sum;
  };
  EXPECT_EQ(SyncWait(run()), int64_t{20000} * 19999 / 2);
}

}  // namespace
}  // namespace shmrpc
