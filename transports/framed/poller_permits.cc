// Which threads may run tasks that block, once there are more threads than may.
//
// What is counted is what the slots say, under threads_mutex_, so that tasks need not be counted as long as there are
// few threads. A thread says that it runs a task before it looks whether permits are needed; who makes the thread that
// is one too many says first that they are. A store may reach the other thread a little late, but not as late as a
// thread begins that was started meanwhile.
//
// The backlog. A pollable is in it whenever it has tasks and no thread may run one:
//   1. Who is refused a permit has put the task back before it puts the pollable into the backlog, and looks once more
//      whether it may run, under the lock.
//   2. Who ends a task has said so before it looks into the backlog, under the lock.
// So of a thread that is refused and one whose task ends at the same time the later one finds the pollable and the
// permit. The guardian looks as well, as long as there is a backlog.

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "transports/framed/poller.h"
#include "transports/framed/poller_slot.h"

namespace shmrpc::framed {

int Poller::CountRunning(const Pollable* pollable, const Slot* self) const {
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [&](const Slot* slot) {
    return slot != self && slot->RunsTaskThatMayBlock() && slot->at.load(std::memory_order_relaxed) == pollable;
  }));
}

bool Poller::MayRunLocked(const Pollable* pollable, const Slot* self) {
  int running = 0;
  int own = 0;
  for (const Slot* slot : slots_) {
    if (slot == self || !slot->RunsTaskThatMayBlock()) continue;
    ++running;
    if (slot->at.load(std::memory_order_relaxed) == pollable) ++own;
  }
  if (running < max_threads_) {
    if (own < half_of_threads_) return true;
    // More than its half only while nobody waits who has less.
    return std::none_of(backlog_.begin(), backlog_.end(), [&](const std::shared_ptr<Pollable>& other) {
      return other.get() != pollable && CountRunning(other.get(), self) < half_of_threads_;
    });
  }
  if (own >= half_of_threads_) return false;
  // What others have beyond their half is not counted.
  absl::flat_hash_map<const Pollable*, int> counts;
  for (const Slot* slot : slots_) {
    if (slot != self && slot->RunsTaskThatMayBlock()) ++counts[slot->at.load(std::memory_order_relaxed)];
  }
  int counted = 0;
  for (const auto& [other, count] : counts) counted += std::min(count, half_of_threads_);
  return counted < max_threads_;
}

bool Poller::MayRun(const Pollable* pollable, const Slot* self) {
  if (!permits_needed_.load(std::memory_order_relaxed)) return true;
  MutexLock lock(&threads_mutex_);
  return MayRunLocked(pollable, self);
}

// For the task that the slot has just said that it runs; which it takes back if it may not.
bool Poller::TakePermit(const Task* task, Slot* slot) {
  if (!task->may_block()) return true;
  MutexLock lock(&threads_mutex_);
  if (MayRunLocked(slot->at.load(std::memory_order_relaxed), slot)) return true;
  slot->EndTask();
  return false;
}

void Poller::EndPermitsIfPossible() {
  if (thread_count_.load(std::memory_order_relaxed) <= max_threads_ && backlog_.empty()) {
    permits_needed_.store(false, std::memory_order_relaxed);
  }
}

// `pollable` has tasks that this thread may not run.
void Poller::Defer(const std::shared_ptr<Pollable>& pollable) {
  {
    MutexLock lock(&threads_mutex_);
    if (!std::exchange(pollable->deferred_, true)) backlog_.push_back(pollable);
    has_backlog_.store(true, std::memory_order_relaxed);
  }
  ReleaseDeferred();
  CallGuardian();
}

// Has the first of the backlog polled of which a task may run. Its tasks go on asking for permits themselves.
void Poller::ReleaseDeferred() {
  std::shared_ptr<Pollable> released;
  {
    MutexLock lock(&threads_mutex_);
    const auto found = std::find_if(backlog_.begin(), backlog_.end(),
                                    [&](const std::shared_ptr<Pollable>& pollable) ABSL_NO_THREAD_SAFETY_ANALYSIS {
                                      return MayRunLocked(pollable.get(), nullptr);
                                    });
    if (found == backlog_.end()) return;
    released = std::move(*found);
    backlog_.erase(found);
    released->deferred_ = false;
    has_backlog_.store(!backlog_.empty(), std::memory_order_relaxed);
    EndPermitsIfPossible();
  }
  Kick(std::move(released));
}

}  // namespace shmrpc::framed
