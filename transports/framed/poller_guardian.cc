// The poller's guardian: the thread that looks after the others.

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/src/log.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/poller.h"
#include "transports/framed/poller_slot.h"

namespace shmrpc::framed {
namespace {

constexpr absl::Duration kPeriod = absl::Milliseconds(1);
// While nothing changes, but pollables wait for a thread.
constexpr absl::Duration kLongPeriod = absl::Milliseconds(100);
// After so many periods a task counts as one that may take for ever, rather than one that waits for a CPU.
constexpr int kLooksUntilStuck = 4;
// After so many without anybody in epoll_wait there is another thread. With many threads it is less likely that all are
// stuck, and more that they wait for a CPU.
constexpr int kLooksWithoutReceiver = 2;
constexpr int kThreadsPerLook = 4;
// A scanner that has polled the same for so long is stuck.
constexpr int kLooksAtScanner = 2;
// So many threads at most are replaced because they are stuck in something that is no task, if max_threads is less.
constexpr int kMostStuckOutside = 64;
// When calls have waited for a thread for that long it is said.
constexpr std::chrono::seconds kBusyForLong{1};
// And again after a minute, if it is still so.
constexpr std::chrono::seconds kBusyIsSaidAgain{60};

}  // namespace

void Poller::CallGuardian() {
  if (guardian_called_.load(std::memory_order_relaxed)) return;
  MutexLock lock(&guardian_mutex_);
  guardian_called_.store(true, std::memory_order_seq_cst);
  guardian_wanted_.Signal();
}

void Poller::GuardianMain() {
  absl::Duration next;  // zero: when it is called
  for (;;) {
    {
      MutexLock lock(&guardian_mutex_);
      if (next == absl::ZeroDuration()) {
        while (!stopping_ && !guardian_called_) guardian_wanted_.Wait(&guardian_mutex_);
      } else if (next > kPeriod) {
        const SteadyTime end = SteadyTime::Now() + next;
        while (!stopping_ && !guardian_called_ && !guardian_wanted_.WaitUntil(&guardian_mutex_, end)) {
        }
      }
      const SteadyTime end = SteadyTime::Now() + kPeriod;
      while (!stopping_ && !guardian_wanted_.WaitUntil(&guardian_mutex_, end)) {
      }
      if (stopping_) return;
    }
    next = LookAfterThreads();
    // While it goes on looking nobody need call. Before it sleeps it looks once more: for a task that began just now,
    // and may have found that it was called already.
    if (next != kPeriod && guardian_called_.exchange(false, std::memory_order_seq_cst)) next = kPeriod;
  }
}

// When to look again: zero when there is nothing to be seen.
absl::Duration Poller::LookAfterThreads() {
  std::vector<std::shared_ptr<Pollable>> left;
  std::string busy;
  int stuck = 0;
  int outside = 0;
  int count = 0;
  bool look_again = false;
  bool waits_in_backlog = false;
  bool received = waiting_.load(std::memory_order_seq_cst) > 0;
  {
    MutexLock lock(&threads_mutex_);
    count = static_cast<int>(slots_.size());
    for (Slot* slot : slots_) {
      const uint64_t rounds = slot->rounds.load(std::memory_order_relaxed);
      if (std::exchange(slot->seen_rounds, rounds) != rounds) received = true;
      look_again |= LookAtTask(slot, &left, &stuck);
      const bool may_be_stuck =
          slot->tasks.load(std::memory_order_relaxed) % 2 == 0 && !slot->waits.load(std::memory_order_relaxed);
      const uint64_t steps = slot->steps.load(std::memory_order_relaxed);
      const bool same = std::exchange(slot->seen_steps, steps) == steps;
      slot->looks_outside = may_be_stuck && same ? slot->looks_outside + 1 : 0;
      if (slot->looks_outside >= kLooksUntilStuck) ++outside;
    }
    stuck_outside_ = std::min(outside, std::max(max_threads_, kMostStuckOutside));
    LookAtScanner();
    waits_in_backlog = !backlog_.empty();
    busy = NoteIfBusy();
  }
  looks_without_receiver_ = received ? 0 : looks_without_receiver_ + 1;
  if (looks_without_receiver_ >= std::min(kLooksWithoutReceiver + count / kThreadsPerLook, kLooksUntilStuck)) {
    for (int i = 0; i < 1 + stuck / 8; ++i) MaybeSpawnThread();
    looks_without_receiver_ = 0;
  }
  if (!left.empty()) has_new_hot_.store(true, std::memory_order_seq_cst);  // the hot set may have lost its scanner
  for (std::shared_ptr<Pollable>& pollable : left) {
    pollable->RevokeBatches();
    Kick(std::move(pollable));
  }
  if (waits_in_backlog) ReleaseDeferred();
  if (!busy.empty()) internal::LogWarning(busy);
  if (look_again || seen_scanner_ != nullptr || waiting_.load(std::memory_order_seq_cst) == 0) return kPeriod;
  return waits_in_backlog ? kLongPeriod : absl::ZeroDuration();
}

// False: there is nothing to be seen of this slot any more until something new begins.
bool Poller::LookAtTask(Slot* slot, std::vector<std::shared_ptr<Pollable>>* left, int* stuck) {
  MutexLock lock(&slot->mutex);
  const uint64_t task = slot->tasks.load(std::memory_order_acquire);
  if (task != slot->seen_tasks) {
    slot->seen_tasks = task;
    slot->looks = 0;
    return true;
  }
  if (task % 2 == 0) return false;
  const bool look_again = slot->looks < kLooksUntilStuck;
  if (look_again && ++slot->looks == kLooksUntilStuck) ++*stuck;
  if (TaskHistory* const history = slot->history.load(std::memory_order_relaxed)) history->NoteLong();
  if (task == slot->taken) return look_again;
  slot->taken = task;
  if (slot->unattended.load(std::memory_order_relaxed)) left->push_back(slot->current);
  return look_again;
}

void Poller::LookAtScanner() {
  Slot* const scanner = scanner_.load(std::memory_order_seq_cst);
  const uint64_t steps = scanner == nullptr ? 0 : scanner->steps.load(std::memory_order_relaxed);
  const bool same = scanner != nullptr && scanner == seen_scanner_ && steps == seen_scanner_steps_;
  seen_scanner_ = scanner;
  seen_scanner_steps_ = steps;
  looks_at_scanner_ = same ? looks_at_scanner_ + 1 : 0;
  // Again with each look: somebody may have taken it for one that is not stuck.
  if (looks_at_scanner_ >= kLooksAtScanner) TakeOverScan();
}

// What is to be said when no task has been able to run for long.
std::string Poller::NoteIfBusy() {
  int running = 0;
  for (const Slot* slot : slots_) running += slot->RunsTaskThatMayBlock();
  if (advice_ == nullptr || backlog_.empty() || running < max_threads_) {
    busy_ = false;
    return std::string();
  }
  const SteadyClock::time_point now = SteadyClock::now();
  if (!std::exchange(busy_, true)) busy_since_ = now;
  if (now - busy_since_ < kBusyForLong) return std::string();
  busy_since_ = now + kBusyIsSaidAgain;
  absl::flat_hash_map<std::string, int> counts;
  for (Slot* slot : slots_) {
    MutexLock lock(&slot->mutex);
    const TaskHistory* const history = slot->history.load(std::memory_order_relaxed);
    if (history != nullptr && slot->RunsTaskThatMayBlock()) ++counts[std::string(history->name())];
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return absl::StrCat("all ", max_threads_, " threads of ", name_, " have been busy for a second, and ",
                      backlog_.size(), " connections have calls that wait for one",
                      most == counts.end() || most->first.empty()
                          ? std::string()
                          : absl::StrCat("; most of them, ", most->second, ", run ", most->first),
                      ": ", advice_);
}

}  // namespace shmrpc::framed
