#include "shmrpc/mutex.h"

#include <atomic>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace shmrpc {
namespace {

TEST(MutexTest, ExcludesOtherThreads) {
  Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 10000; ++j) {
        MutexLock lock(&mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 40000);
}

TEST(MutexTest, TryLockFailsWhileAnotherThreadHasIt) {
  Mutex mutex;
  mutex.Lock();
  std::thread([&] { EXPECT_FALSE(mutex.TryLock()); }).join();
  mutex.Unlock();
  std::thread([&] {
    ASSERT_TRUE(mutex.TryLock());
    mutex.Unlock();
  }).join();
}

TEST(CondVarTest, SignalEndsAWait) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::thread waiter([&] {
    MutexLock lock(&mutex);
    while (!ready) changed.Wait(&mutex);
  });
  {
    MutexLock lock(&mutex);
    ready = true;
  }
  changed.Signal();
  waiter.join();
}

TEST(CondVarTest, SignalAllEndsAllWaits) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] {
      MutexLock lock(&mutex);
      bool expired = false;
      while (!ready && !expired) expired = changed.WaitWithDeadline(&mutex, absl::Now() + absl::Seconds(60));
      EXPECT_FALSE(expired);
    });
  }
  {
    MutexLock lock(&mutex);
    ready = true;
    changed.SignalAll();
  }
  for (std::thread& waiter : waiters) waiter.join();
}

TEST(CondVarTest, ADeadlineEndsAWait) {
  Mutex mutex;
  CondVar changed;
  MutexLock lock(&mutex);
  EXPECT_TRUE(changed.WaitWithDeadline(&mutex, absl::InfinitePast()));
  const absl::Time deadline = absl::Now() + absl::Milliseconds(20);
  while (!changed.WaitWithDeadline(&mutex, deadline)) {
  }
  EXPECT_GE(absl::Now(), deadline - absl::Milliseconds(1));  // two clocks
}

// What is left cannot be told to the system as it is.
TEST(CondVarTest, ADeadlineFarAwayIsNoDeadline) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::thread waiter([&] {
    MutexLock lock(&mutex);
    while (!ready) EXPECT_FALSE(changed.WaitWithDeadline(&mutex, absl::FromUnixSeconds(int64_t{1} << 60)));
  });
  {
    MutexLock lock(&mutex);
    ready = true;
  }
  changed.Signal();
  waiter.join();
}

}  // namespace
}  // namespace shmrpc
