// What coroutines wait for besides calls.

#include "shmrpc/wait.h"

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc {
namespace {

// Runs what it is given on one thread of its own.
class OneThread final : public Executor {
 public:
  ~OneThread() override {
    {
      MutexLock lock(&mutex_);
      over_ = true;
      changed_.Signal();
    }
    thread_.join();
  }
  void Execute(absl::AnyInvocable<void()> function) override {
    MutexLock lock(&mutex_);
    functions_.push_back(std::move(function));
    changed_.Signal();
  }
  std::thread::id id() const { return thread_.get_id(); }

 private:
  void Run() {
    mutex_.Lock();
    for (;;) {
      while (functions_.empty() && !over_) changed_.Wait(&mutex_);
      if (functions_.empty()) break;
      absl::AnyInvocable<void()> function = std::move(functions_.front());
      functions_.pop_front();
      mutex_.Unlock();
      function();
      mutex_.Lock();
    }
    mutex_.Unlock();
  }
  Mutex mutex_;
  CondVar changed_;
  std::deque<absl::AnyInvocable<void()>> functions_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_{[this] { Run(); }};
};

std::stop_token Stopped() {
  std::stop_source source;
  source.request_stop();
  return source.get_token();
}

Task<bool> WaitFor(Event& event, std::stop_token stop = {}) { co_return co_await event.Wait(std::move(stop)); }

TEST(EventTest, AllWhoWaitGoOn) {
  Event event;
  std::vector<Spawned<bool>> waiting;
  for (int i = 0; i < 5; ++i) waiting.push_back(Spawn(WaitFor(event)));
  EXPECT_FALSE(waiting[0].IsFinished());
  event.Set();
  const auto join = [&]() -> Task<int> {
    int count = 0;
    for (Spawned<bool>& one : waiting) count += co_await one ? 1 : 0;
    co_return count;
  };
  EXPECT_EQ(SyncWait(join()), 5);
  EXPECT_TRUE(SyncWait(WaitFor(event)));
  event.Reset();
  EXPECT_FALSE(event.IsSet());
  EXPECT_FALSE(SyncWait(WaitFor(event, Stopped())));
  event.Set();
  EXPECT_TRUE(SyncWait(WaitFor(event, Stopped())));  // what has happened counts first
}

TEST(EventTest, AStopEndsTheWaiting) {
  Event event;
  std::stop_source source;
  Spawned<bool> waiting = Spawn(WaitFor(event, source.get_token()));
  source.request_stop();
  EXPECT_FALSE(SyncWait([](Spawned<bool> one) -> Task<bool> { co_return co_await one; }(std::move(waiting))));
}

TEST(EventTest, GoesOnElsewhereThanInSet) {
  Event event;
  Mutex held;
  const auto run = [&]() -> Task<bool> {
    const bool ok = co_await event.Wait();
    MutexLock lock(&held);
    co_return ok;
  };
  Spawned<bool> waiting = Spawn(run());
  {
    MutexLock lock(&held);
    event.Set();
  }
  EXPECT_TRUE(SyncWait([](Spawned<bool> one) -> Task<bool> { co_return co_await one; }(std::move(waiting))));
}

TEST(EventTest, ResumesOnTheExecutor) {
  OneThread executor;
  Event event(&executor);
  std::stop_source source;
  const auto run = [&](std::stop_token stop) -> Task<std::thread::id> {
    co_await event.Wait(std::move(stop));
    co_return std::this_thread::get_id();
  };
  Spawned<std::thread::id> stopped = Spawn(run(source.get_token()));
  source.request_stop();
  Spawned<std::thread::id> set = Spawn(run({}));
  event.Set();
  const auto join = [](Spawned<std::thread::id> one) -> Task<std::thread::id> { co_return co_await one; };
  EXPECT_EQ(SyncWait(join(std::move(stopped))), executor.id());
  EXPECT_EQ(SyncWait(join(std::move(set))), executor.id());
}

TEST(EventTest, SetAndStopRace) {
  for (int round = 0; round < 2000; ++round) {
    auto event = std::make_unique<Event>();
    std::stop_source source;
    Spawned<bool> waiting = Spawn(WaitFor(*event, source.get_token()));
    std::thread stopper([&] { source.request_stop(); });
    event->Set();
    SyncWait([](Spawned<bool> one) -> Task<void> { co_await one; }(std::move(waiting)));
    stopper.join();
  }
}

TEST(QueueTest, IsFirstInFirstOutAndBounded) {
  Queue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_TRUE(queue.PushDroppingOldest(4));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.TryPop(), std::optional<int>(2));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(5));
  EXPECT_FALSE(queue.PushDroppingOldest(5));
  const auto pop = [&]() -> Task<std::optional<int>> { co_return co_await queue.Pop(); };
  EXPECT_EQ(SyncWait(pop()), std::optional<int>(4));
  EXPECT_EQ(SyncWait(pop()), std::nullopt);
}

TEST(QueueTest, CloseAndStopEndTheWaiting) {
  Queue<std::unique_ptr<int>> queue(1);
  std::stop_source source;
  const auto pop = [&](std::stop_token stop) -> Task<bool> { co_return (co_await queue.Pop(stop)).has_value(); };
  const auto push = [&](std::stop_token stop) -> Task<bool> {
    co_return co_await queue.Push(std::make_unique<int>(1), stop);
  };
  const auto join = [](Spawned<bool> one) -> Task<bool> { co_return co_await one; };
  Spawned<bool> stopped = Spawn(pop(source.get_token()));
  Spawned<bool> closed = Spawn(pop({}));
  source.request_stop();
  EXPECT_FALSE(SyncWait(join(std::move(stopped))));
  EXPECT_TRUE(SyncWait(push({})));
  EXPECT_TRUE(SyncWait(join(std::move(closed))));  // it got the value
  EXPECT_TRUE(SyncWait(push({})));
  EXPECT_FALSE(SyncWait(push(source.get_token())));
  Spawned<bool> waits = Spawn(push({}));
  queue.Close();
  EXPECT_FALSE(SyncWait(join(std::move(waits))));
  EXPECT_TRUE(SyncWait(pop({})));
  EXPECT_FALSE(SyncWait(pop({})));
}

TEST(QueueTest, CarriesEverythingOnceUnderLoad) {
  constexpr int kPushers = 4;
  constexpr int kPoppers = 3;
  constexpr int kEach = 3000;
  Queue<int> queue(3);
  std::vector<std::atomic<int>> seen(kPushers * kEach);
  const auto push = [&](int first) -> Task<int> {
    int pushed = 0;
    for (int i = 0; i < kEach; ++i) pushed += co_await queue.Push(first + i) ? 1 : 0;
    co_return pushed;
  };
  const auto pop = [&]() -> Task<int> {
    int popped = 0;
    for (bool impatient = false;; impatient = !impatient && popped % 7 == 3) {  // now and then one that does not wait
      // Not in the argument: GCC 12 destroys the temporaries of a conditional twice in an expression that awaits.
      std::stop_token stop = impatient ? Stopped() : std::stop_token();
      std::optional<int> value = co_await queue.Pop(std::move(stop));
      if (value.has_value()) {
        ++seen[*value];
        ++popped;
      } else if (!impatient) {
        co_return popped;
      }
    }
  };
  std::vector<Spawned<int>> pushers;
  std::vector<Spawned<int>> poppers;
  for (int i = 0; i < kPoppers; ++i) poppers.push_back(Spawn(pop()));
  std::vector<std::thread> threads;
  Mutex mutex;
  for (int i = 0; i < kPushers; ++i) {
    threads.emplace_back([&, i] {
      Spawned<int> spawned = Spawn(push(i * kEach));
      MutexLock lock(&mutex);
      pushers.push_back(std::move(spawned));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto join = [](std::vector<Spawned<int>>& all) -> Task<int> {
    int sum = 0;
    for (Spawned<int>& one : all) sum += co_await one;
    co_return sum;
  };
  EXPECT_EQ(SyncWait(join(pushers)), kPushers * kEach);
  queue.Close();
  EXPECT_EQ(SyncWait(join(poppers)), kPushers * kEach);
  for (const std::atomic<int>& count : seen) ASSERT_EQ(count, 1);
}

TEST(SleepTest, EndsWithItsTimeOrAStop) {
  std::stop_source source;
  const auto sleep = [](absl::Duration duration, std::stop_token stop) -> Task<bool> {
    co_return co_await Sleep(duration, std::move(stop));
  };
  EXPECT_TRUE(SyncWait(sleep(absl::Milliseconds(2), {})));
  EXPECT_TRUE(SyncWait(sleep(absl::Milliseconds(2), source.get_token())));
  Spawned<bool> slept = Spawn(sleep(absl::InfiniteDuration(), source.get_token()));
  source.request_stop();
  EXPECT_FALSE(SyncWait([](Spawned<bool> one) -> Task<bool> { co_return co_await one; }(std::move(slept))));
  EXPECT_FALSE(SyncWait(sleep(absl::Hours(1), Stopped())));
  EXPECT_TRUE(SyncWait([]() -> Task<bool> { co_return co_await SleepUntil(absl::UnixEpoch()); }()));
}

TEST(SleepTest, ItsTimeAndAStopRace) {
  for (int round = 0; round < 500; ++round) {
    std::stop_source source;
    Spawned<bool> slept = Spawn([](std::stop_token stop) -> Task<bool> {
      co_return co_await Sleep(absl::Microseconds(100), std::move(stop));
    }(source.get_token()));
    source.request_stop();
    SyncWait([](Spawned<bool> one) -> Task<void> { co_await one; }(std::move(slept)));
  }
}

}  // namespace
}  // namespace shmrpc
