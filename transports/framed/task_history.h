#ifndef SHMRPC_TRANSPORTS_FRAMED_TASK_HISTORY_H_
#define SHMRPC_TRANSPORTS_FRAMED_TASK_HISTORY_H_

#include <algorithm>
#include <atomic>
#include <chrono>

#include "absl/strings/string_view.h"
#include "transports/framed/spin_policy.h"

namespace shmrpc::framed {

// What is remembered of tasks of one kind: the handlers of a method, or the callbacks of a connection. Two questions,
// of different weight:
//
// TookLong: the poller's guardian has met one at work twice, so it took a millisecond or more. Then other threads,
// which have to be woken, take over before the next one runs. To look costs a load; time is measured only for kinds
// that did.
//
// IsSlow: whether nothing should be put off until one is over (SendBatch). That costs a system call, and pays from some
// tens of microseconds on; such tasks are measured while there are batches. One long task says little: a thread may
// lose its CPU in the middle of any, on a busy machine about every millisecond. So a score rises by kStep with each
// long task and falls by one with each other one, and tasks count as slow from kLimit on. The first long one of a new
// kind reaches that at once; later it takes two within kStep tasks. A kind of which more than one in kStep takes long
// therefore stays slow, one with rarer exceptions does not become so.
//
// Thread-safe. The threads that run such tasks at the same time may lose one another's notes, which is as good.
class TaskHistory {
 public:
  // `name`: of the method, if there is one; outlives this object.
  explicit TaskHistory(absl::string_view name = "") : name_(name) {}
  absl::string_view name() const { return name_; }

  bool TookLong() const { return quick_runs_needed_.load(std::memory_order_relaxed) > 0; }
  void NoteLong() { quick_runs_needed_.store(kQuickRuns, std::memory_order_relaxed); }
  void NoteQuick() { quick_runs_needed_.store(std::max(quick_runs_needed_.load(std::memory_order_relaxed) - 1, 0)); }

  static constexpr std::chrono::nanoseconds kLong = std::chrono::microseconds(50);
  static constexpr int kStep = 32;
  static constexpr int kLimit = 2 * kStep;
  static constexpr int kMost = 16 * kStep;

  // A kind that took long is slow in any case: the guardian leaves its tasks to whoever has taken over.
  bool IsSlow() const { return score_.load(std::memory_order_relaxed) >= kLimit || TookLong(); }
  // So many have been fast that nobody need look at each.
  bool IsKnownFast() const { return score_.load(std::memory_order_relaxed) == 0 && !TookLong(); }

  // One took so long, without what it took to send.
  void OnTask(std::chrono::nanoseconds duration) {
    const int score = score_.load(std::memory_order_relaxed);
    if (duration > kLong) {
      score_.store(std::min(score + kStep, kMost), std::memory_order_relaxed);
    } else if (score > 0) {
      score_.store(score - 1, std::memory_order_relaxed);
    }
  }

 private:
  // After so many quick ones in a row the one that took long is forgotten.
  static constexpr int kQuickRuns = 64;
  const absl::string_view name_;
  std::atomic<int> quick_runs_needed_{0};
  std::atomic<int> score_{kStep};
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_TASK_HISTORY_H_
