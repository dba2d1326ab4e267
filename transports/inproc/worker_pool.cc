#include "transports/inproc/worker_pool.h"

#include <sched.h>

#include <iterator>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "runtime/src/spin_pause.h"
#include "runtime/src/thread.h"

namespace shmrpc::internal {
namespace {

constexpr absl::Duration kIdleTime = absl::Seconds(5);

bool MayUseSeveralCpus() {
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}

}  // namespace

absl::Duration SpinTime(WaitMode mode) {
  static const bool several_cpus = MayUseSeveralCpus();
  if (!several_cpus) return absl::ZeroDuration();
  switch (mode) {
    case WaitMode::kAdaptive:
      return absl::Microseconds(30);
    case WaitMode::kLatency:
      return absl::Milliseconds(1);
    case WaitMode::kEfficient:
      break;
  }
  return absl::ZeroDuration();
}

WorkerPool::WorkerPool(const char* thread_name, int max_threads, WaitMode wait_mode)
    : thread_name_(thread_name), max_threads_(max_threads), spin_time_(SpinTime(wait_mode)) {}

bool WorkerPool::Submit(Task* task) {
  MutexLock lock(&mutex_);
  if (stopping_) return false;
  if (spinning_) {
    CallSpinner();
  } else if (sleeping_ > 0) {
    --sleeping_;
    ++calls_;
    wake_up_.Signal();
  } else if (active_ < max_threads_ && !StartWorker() && active_ == 0) {
    return false;
  }
  task->next_ = nullptr;
  (first_ == nullptr ? first_ : last_->next_) = task;
  last_ = task;
  return true;
}

void WorkerPool::CallSpinner() {
  spinning_ = false;
  spinner_called_.store(true, std::memory_order_release);
}

bool WorkerPool::StartWorker() {
  threads_.emplace_back();
  const auto self = std::prev(threads_.end());
  absl::StatusOr<std::thread> thread = StartThread(thread_name_, [this, self] { RunWorker(self); });
  if (!thread.ok()) {
    threads_.erase(self);
    return false;
  }
  *self = *std::move(thread);  // the thread does not look before it has the lock
  ++active_;
  return true;
}

void WorkerPool::RunWorker(std::list<std::thread>::iterator self) {
  mutex_.Lock();
  for (;;) {
    if (first_ != nullptr) {
      Task* const task = first_;
      first_ = task->next_;
      mutex_.Unlock();
      task->Run();
      mutex_.Lock();
    } else if (stopping_ || !WaitForWork()) {
      break;
    }
  }
  --active_;
  ++ending_;
  std::vector<std::thread> previous = std::exchange(ended_, {});
  mutex_.Unlock();
  for (std::thread& thread : previous) thread.join();
  mutex_.Lock();
  ended_.push_back(std::move(*self));
  threads_.erase(self);
  --ending_;
  thread_ended_.SignalAll();
  mutex_.Unlock();
}

bool WorkerPool::WaitForWork() {
  // One at a time, also counting one that was called and has not noticed yet.
  if (!spinning_ && !spinner_called_.load(std::memory_order_relaxed) && spin_time_ > absl::ZeroDuration()) {
    spinning_ = true;
    mutex_.Unlock();
    const absl::Time end = absl::Now() + spin_time_;
    while (!spinner_called_.load(std::memory_order_acquire) && absl::Now() < end) SpinPause();
    mutex_.Lock();
    if (spinner_called_.exchange(false, std::memory_order_relaxed)) return true;
    spinning_ = false;
  }
  const absl::Time end = absl::Now() + kIdleTime;
  ++sleeping_;
  bool expired = false;
  while (calls_ == 0 && !stopping_ && !expired) expired = wake_up_.WaitWithDeadline(&mutex_, end);
  if (calls_ > 0) {
    --calls_;  // whoever called has taken this thread off sleeping_
    return true;
  }
  --sleeping_;
  return stopping_;
}

void WorkerPool::Stop() {
  std::vector<std::thread> ended;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    if (spinning_) CallSpinner();
    wake_up_.SignalAll();
    while (active_ + ending_ > 0) thread_ended_.Wait(&mutex_);
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) thread.join();
}

}  // namespace shmrpc::internal
