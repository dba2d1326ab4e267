// The hot set: pollables that it pays to look at again and again, and the one thread that does.

#include <algorithm>
#include <utility>

#include "runtime/src/spin_pause.h"
#include "transports/framed/poller.h"
#include "transports/framed/poller_slot.h"
#include "transports/framed/send_batch.h"

namespace shmrpc::framed {

void Poller::AddHot(const std::shared_ptr<Pollable>& pollable) {
  {
    MutexLock lock(&hot_mutex_);
    new_hot_.push_back(pollable);
  }
  has_new_hot_.store(true, std::memory_order_seq_cst);
  // If the scanner does not come for it, somebody is to notice.
  if (scanner_.load(std::memory_order_relaxed) != nullptr) CallGuardian();
}

// For the scanner. False: there is nothing to scan.
bool Poller::TakeNewHot() {
  if (has_new_hot_.load(std::memory_order_relaxed)) {
    MutexLock lock(&hot_mutex_);
    has_new_hot_.store(false, std::memory_order_seq_cst);
    for (std::shared_ptr<Pollable>& added : new_hot_) {
      if (std::find(hot_.begin(), hot_.end(), added) == hot_.end()) hot_.push_back(std::move(added));
    }
    new_hot_.clear();
    if (hot_.size() > 1) CallGuardian();  // one of them may hold up the others
  }
  return !hot_.empty() && !stopping_.load(std::memory_order_relaxed);
}

// For the scanner.
void Poller::RemoveHot(size_t index) {
  std::shared_ptr<Pollable> removed;  // destroyed without the lock
  MutexLock lock(&hot_mutex_);
  removed = std::move(hot_[index]);
  std::swap(hot_[index], hot_.back());
  hot_.pop_back();
}

// Goes round the hot set until it is empty, if nobody else does. What is added while somebody else scans is seen by
// that thread before it ends: it gives the right back first and looks for new members then.
void Poller::Scan(Slot* slot) {
  Visit visit(/*scanning=*/true, /*may_run=*/true);
  do {
    if (!scan_right_.TryAcquire()) return;
    scanner_.store(slot, std::memory_order_relaxed);
    bool elsewhere = false;
    bool found_something = true;  // in this round
    for (size_t i = 0; TakeNewHot();) {
      if (scanner_is_stuck_.load(std::memory_order_relaxed)) scanner_is_stuck_.store(false, std::memory_order_relaxed);
      if (i >= hot_.size()) {
        i = 0;
        if (!std::exchange(found_something, false)) internal::SpinPause();
      }
      visit.set_may_run(MayRun(hot_[i].get(), slot));
      Task* task = nullptr;
      slot->NoteStep();
      const Pollable::Outcome outcome = hot_[i]->Poll(&visit, &task);
      if (!visit.may_run() && hot_[i]->HasTasks()) Defer(hot_[i]);
      if (outcome == Pollable::Outcome::kSpin || outcome == Pollable::Outcome::kMore) {
        if (outcome == Pollable::Outcome::kMore) found_something = true;
        visit.Renew();
        ++i;
        continue;
      }
      if (outcome == Pollable::Outcome::kTask || outcome == Pollable::Outcome::kTaskMore) {
        found_something = true;
        slot->SetCurrent(hot_[i]);  // before it is somebody else's
        slot->left_hot_set = hot_.size() > 1;
        slot->watched = false;
        scanner_.store(nullptr, std::memory_order_relaxed);
        (void)scan_right_.Release();
        const bool has_run = RunTask(task, /*unattended=*/true, slot);
        slot->left_hot_set = false;
        if (!has_run) Defer(slot->OwnCurrent());
        // Who scanned meanwhile may have met the task looking at its session, and left that to it.
        if (slot->watched) AddHot(slot->OwnCurrent());
        if (!scan_right_.TryAcquire()) {
          elsewhere = true;
          break;
        }
        scanner_.store(slot, std::memory_order_relaxed);
        // The others' turn, unless this one's tasks are sent together.
        if (!SendBatch::OfThisThread().is_open() || !visit.Spend(Visit::kTaskUnits)) {
          visit.Renew();
          ++i;
        }
        continue;
      }
      if (outcome == Pollable::Outcome::kEmpty && !hot_[i]->Park()) {
        if (visit.Spend(Visit::kTaskUnits)) continue;
        visit.Renew();
        ++i;
        continue;
      }
      if (outcome == Pollable::Outcome::kOver) Remove(hot_[i].get());
      RemoveHot(i);
      visit.Renew();
    }
    SendBatch::OfThisThread().End();  // of the session whose task was the last: others will run the next
    if (elsewhere) return;
    scanner_.store(nullptr, std::memory_order_relaxed);
  } while (scan_right_.Release() || (has_new_hot_.load(std::memory_order_seq_cst) && !stopping_));
}

// For the guardian, when the scanner polls one for so long that it has got stuck: the others are polled without it.
void Poller::TakeOverScan() {
  scanner_is_stuck_.store(true, std::memory_order_relaxed);
  std::vector<std::shared_ptr<Pollable>> left;
  {
    MutexLock lock(&hot_mutex_);
    left.swap(new_hot_);
    left.insert(left.end(), hot_.begin(), hot_.end());
  }
  for (std::shared_ptr<Pollable>& pollable : left) Kick(std::move(pollable));
}

}  // namespace shmrpc::framed
