#include "transports/framed/poller.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace shmrpc::framed {
namespace {

using std::chrono::milliseconds;

// Waits until `done`, for as long as ctest lets it.
void AwaitTrue(const std::function<bool()>& done) {
  while (!done()) std::this_thread::sleep_for(milliseconds(1));
}

// Input is a counter beside an eventfd; each unit of it is a task that calls `work`.
class Counter final : public Pollable, public Task {
 public:
  explicit Counter(std::function<void()> work)
      : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), work_(std::move(work)) {}

  // Adds input; with `ring` epoll reports it.
  void Put(int count, bool ring) {
    input_ += count;
    const uint64_t one = 1;
    if (ring) {
      EXPECT_EQ(write(event_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
    }
  }

  int fd() const override { return event_.get(); }
  void OnEvents(uint32_t) override {
    uint64_t ignored;
    (void)!read(event_.get(), &ignored, sizeof ignored);
  }
  Outcome Poll(Visit* visit, Task** task) override {
    if (over) return Outcome::kOver;
    if (elsewhere) {
      if (visit->scanning()) ++met_elsewhere;
      return Outcome::kElsewhere;
    }
    if (!right_.TryAcquire()) return Outcome::kElsewhere;
    ++polls;
    may_run_ = visit->may_run();
    Outcome outcome = spins > 0 && spins-- > 0 ? Outcome::kSpin : Outcome::kEmpty;
    if (input_ > 0 && visit->may_run()) {
      const int left = --input_;
      *task = this;
      outcome = left > 0 ? Outcome::kTaskMore : Outcome::kTask;
    }
    const bool marked = right_.Release();
    return marked && outcome == Outcome::kEmpty ? Outcome::kSpin : outcome;
  }
  bool Park() override { return input_ == 0 || !may_run_; }
  bool HasTasks() const override { return input_ > 0; }
  void PutBack() override { ++input_; }
  void RevokeBatches() override { ++revocations; }
  void Run() override {
    work_();
    ++done;
  }
  TaskHistory* history() override { return &history_; }

  std::atomic<int> polls{0};
  std::atomic<int> done{0};
  std::atomic<int> spins{0};
  std::atomic<int> revocations{0};
  std::atomic<bool> over{false};
  std::atomic<bool> elsewhere{false};  // somebody has it
  std::atomic<int> met_elsewhere{0};   // how often the scanner found that

 private:
  const UniqueFd event_;
  const std::function<void()> work_;
  TaskHistory history_;
  PollRight right_;
  std::atomic<int> input_{0};
  std::atomic<bool> may_run_{true};  // in the last visit
};

std::unique_ptr<Poller> MakePoller(int max_threads = 16) {
  auto poller = Poller::Create("test", max_threads);
  EXPECT_TRUE(poller.ok()) << poller.status();
  return *std::move(poller);
}

TEST(PollRightTest, AMarkIsLeftForTheHolder) {
  PollRight right;
  ASSERT_TRUE(right.TryAcquire());
  EXPECT_FALSE(right.TryAcquire());
  EXPECT_TRUE(right.Release());
  ASSERT_TRUE(right.TryAcquire());
  EXPECT_FALSE(right.Release());
}

TEST(PollRightTest, ExcludesAndOrders) {
  PollRight right;
  int guarded = 0;  // TSan sees whether the right orders the accesses
  std::atomic<int> acquired{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        if (!right.TryAcquire()) continue;
        ++guarded;
        ++acquired;
        (void)right.Release();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(guarded, acquired.load());
}

TEST(PollerTest, RunsATaskForEachInput) {
  auto poller = MakePoller();
  auto counter = std::make_shared<Counter>([] {});
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  for (int i = 1; i <= 100; ++i) {
    counter->Put(1, /*ring=*/true);
    AwaitTrue([&] { return counter->done == i; });
  }
}

TEST(PollerTest, KickPollsWithoutAnEvent) {
  auto poller = MakePoller();
  auto counter = std::make_shared<Counter>([] {});
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  counter->Put(3, /*ring=*/false);
  poller->Kick(counter);
  AwaitTrue([&] { return counter->done == 3; });
}

TEST(PollerTest, TheHotSetIsScannedWithoutEvents) {
  auto poller = MakePoller();
  auto counter = std::make_shared<Counter>([] {});
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  counter->spins = 1'000'000'000;
  poller->Kick(counter);
  for (int i = 1; i <= 1000; ++i) {
    counter->Put(1, /*ring=*/false);
    AwaitTrue([&] { return counter->done == i; });
  }
  counter->spins = 0;
}

TEST(PollerTest, ALongTaskHoldsUpNeitherOthersNorItsOwnSession) {
  auto poller = MakePoller();
  std::atomic<bool> release{false};
  std::atomic<int> started{0};
  auto slow = std::make_shared<Counter>([&] {
    ++started;
    while (!release) std::this_thread::sleep_for(milliseconds(1));
  });
  auto fast = std::make_shared<Counter>([] {});
  ASSERT_TRUE(poller->Add(slow, EPOLLIN).ok());
  ASSERT_TRUE(poller->Add(fast, EPOLLIN).ok());
  // Four units with one event: the thread that takes the first knows of more, and the watch finds others for them.
  slow->Put(4, /*ring=*/true);
  AwaitTrue([&] { return started == 4; });
  fast->Put(1, /*ring=*/true);
  AwaitTrue([&] { return fast->done == 1; });
  EXPECT_EQ(slow->done, 0);
  release = true;
  AwaitTrue([&] { return slow->done == 4; });
}

TEST(PollerTest, WhatALongTaskHasPutOffIsNotLeftToItsThread) {
  auto poller = MakePoller();
  std::atomic<bool> release{false};
  auto counter = std::make_shared<Counter>([&] {
    while (!release) std::this_thread::sleep_for(milliseconds(1));
  });
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  counter->Put(2, /*ring=*/true);
  AwaitTrue([&] { return counter->revocations > 0; });
  EXPECT_EQ(counter->done, 0);
  release = true;
  AwaitTrue([&] { return counter->done == 2; });
}

TEST(PollerTest, ALongTaskIsRememberedUntilEnoughOfItsKindWereQuick) {
  auto poller = MakePoller();
  TaskHistory* history = nullptr;
  std::atomic<bool> wait{true};
  auto counter = std::make_shared<Counter>([&] {
    if (wait) AwaitTrue([&] { return history->TookLong(); });
  });
  history = counter->history();
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  EXPECT_FALSE(history->TookLong());
  counter->Put(2, /*ring=*/true);  // a thread that knows of more leaves the rest to the guardian, who looks
  AwaitTrue([&] { return counter->done == 2; });
  wait = false;
  for (int i = 3; i <= 10; ++i) {
    EXPECT_TRUE(history->TookLong());
    counter->Put(1, /*ring=*/true);
    AwaitTrue([&] { return counter->done == i; });
  }
  // On a busy machine some may not have been quick.
  for (int i = 11; history->TookLong(); ++i) {
    counter->Put(1, /*ring=*/true);
    AwaitTrue([&] { return counter->done == i; });
  }
}

// As a handler does that waits for a message: it receives itself, and so the scanner takes the session off its list.
TEST(PollerTest, WhatATaskHasLookedAtItselfIsNotForgottenWhenItEnds) {
  auto poller = MakePoller();
  auto other = std::make_shared<Counter>([] {});
  Counter* session = nullptr;
  auto counter = std::make_shared<Counter>([&] {
    if (session->done > 0) return;
    session->elsewhere = true;
    other->spins = 1'000'000'000;
    poller->Kick(other);  // for somebody to scan
    AwaitTrue([&] { return session->met_elsewhere > 0; });
    EXPECT_TRUE(poller->WatchDuringTask(session->shared_from_this()));
    session->elsewhere = false;
    session->Put(1, /*ring=*/false);
  });
  session = counter.get();
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  ASSERT_TRUE(poller->Add(other, EPOLLIN).ok());
  counter->spins = 1'000'000'000;
  poller->Kick(counter);
  AwaitTrue([&] { return counter->polls > 100; });  // it is being scanned
  counter->Put(1, /*ring=*/false);
  AwaitTrue([&] { return counter->done == 2; });
  counter->spins = 0;
  other->spins = 0;
}

TEST(PollerTest, NoMoreThreadsThanAllowedAndNothingIsLostForThat) {
  auto poller = MakePoller(/*max_threads=*/3);
  std::atomic<int> running{0}, most{0};
  auto counter = std::make_shared<Counter>([&] {
    const int now = ++running;
    int seen = most;
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    std::this_thread::sleep_for(milliseconds(2));
    --running;
  });
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  counter->Put(50, /*ring=*/true);
  AwaitTrue([&] { return counter->done == 50; });
  EXPECT_LE(most, 3);
}

TEST(PollerTest, WhatIsOverIsForgotten) {
  auto poller = MakePoller();
  auto counter = std::make_shared<Counter>([] {});
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  counter->over = true;
  poller->Kick(counter);
  AwaitTrue([&] { return counter.use_count() == 1; });
}

TEST(PollerTest, DestructionFinishesTheTasksThatRun) {
  auto poller = MakePoller();
  std::atomic<bool> started{false};
  auto counter = std::make_shared<Counter>([&] {
    started = true;
    std::this_thread::sleep_for(milliseconds(50));
  });
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  counter->Put(1, /*ring=*/true);
  AwaitTrue([&] { return started.load(); });
  poller.reset();
  EXPECT_EQ(counter->done, 1);
}

TEST(PollerTest, IdleThreadsDoNotPoll) {
  auto poller = MakePoller();
  auto counter = std::make_shared<Counter>([] {});
  ASSERT_TRUE(poller->Add(counter, EPOLLIN).ok());
  counter->Put(1, /*ring=*/true);
  AwaitTrue([&] { return counter->done == 1; });
  std::this_thread::sleep_for(milliseconds(20));
  const int polls = counter->polls;
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_EQ(counter->polls, polls);
}

}  // namespace
}  // namespace shmrpc::framed
