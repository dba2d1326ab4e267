#ifndef SHMRPC_TRANSPORTS_FRAMED_POLLER_SLOT_H_
#define SHMRPC_TRANSPORTS_FRAMED_POLLER_SLOT_H_

// The poller's own.

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "shmrpc/mutex.h"
#include "transports/framed/poller.h"
#include "transports/framed/task_history.h"

namespace shmrpc::framed {

// A thread of a poller, and what it leaves unattended while it runs a task.
struct Poller::Slot {
  explicit Slot(Poller* its_poller) : poller(its_poller) {}

  Poller* const poller;
  static thread_local Slot* of_this_thread;

  bool leaving = false;       // the thread has found itself superfluous
  bool left_hot_set = false;  // the task was found while scanning, and nobody was told that the scanner is gone
  bool watched = false;       // the task has looked at `current` itself, and then left it to the guardian

  // For the guardian; written by the slot's thread only.
  std::atomic<bool> waits{true};    // counted in waiting_, as is a thread that has just been started
  std::atomic<uint64_t> rounds{0};  // how often it has asked epoll
  std::atomic<uint64_t> steps{0};   // how often it has begun or ended something

  // Odd while a task runs. Both written by the slot's thread only.
  std::atomic<uint64_t> tasks{0};
  std::atomic<bool> unattended{false};       // during this task, `current` is
  std::atomic<bool> may_block{false};        // this task
  std::atomic<const Pollable*> at{nullptr};  // `current`
  Mutex mutex;
  // Where the task came from; kept until the thread has nothing to do, so that the next task costs no reference
  // counting. Written by the slot's thread, which needs the mutex for that only.
  std::shared_ptr<Pollable> current ABSL_GUARDED_BY(mutex);
  // The task's, or an earlier one's of `current`, which keeps it alive. Written by the slot's thread.
  std::atomic<TaskHistory*> history{nullptr};
  uint64_t taken ABSL_GUARDED_BY(mutex) = 0;  // the task that was last taken over from

  // The guardian's own: what it saw when it last looked, and how often it has seen the same.
  uint64_t seen_tasks = 0;
  uint64_t seen_rounds = 0;
  uint64_t seen_steps = 0;
  int looks = 0;
  int looks_outside = 0;

  bool RunsTaskThatMayBlock() const {
    return tasks.load(std::memory_order_acquire) % 2 == 1 && may_block.load(std::memory_order_relaxed);
  }

  // For the slot's own thread.
  static void Increment(std::atomic<uint64_t>* count, std::memory_order order) {
    count->store(count->load(std::memory_order_relaxed) + 1, order);
  }
  void NoteStep() { Increment(&steps, std::memory_order_relaxed); }
  void BeginTask(bool leaves_current_unattended, bool its_may_block) {
    unattended.store(leaves_current_unattended, std::memory_order_relaxed);
    may_block.store(its_may_block, std::memory_order_relaxed);
    Increment(&tasks, std::memory_order_release);
  }
  void EndTask() { Increment(&tasks, std::memory_order_release); }
  const std::shared_ptr<Pollable>& OwnCurrent() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return current; }
  void SetCurrent(const std::shared_ptr<Pollable>& pollable) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (current == pollable) return;
    std::shared_ptr<Pollable> previous = pollable;  // destroyed without the lock
    MutexLock lock(&mutex);
    history.store(nullptr, std::memory_order_relaxed);
    at.store(pollable.get(), std::memory_order_relaxed);
    current.swap(previous);
  }
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_POLLER_SLOT_H_
