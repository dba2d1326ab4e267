#include "runtime/src/call_deadlines.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace shmrpc::internal {

void CallDeadlines::Add(Entry* entry, SteadyTime when) {
  MutexLock lock(&mutex_);
  if (entries_.next_ == nullptr) entries_.next_ = entries_.previous_ = &entries_;
  entry->when_ = when;
  entry->previous_ = &entries_;
  entry->next_ = entries_.next_;
  entry->next_->previous_ = entry;
  entries_.next_ = entry;
  ++size_;
  if (when < timer_due_) SetTimer(when);
}

void CallDeadlines::Remove(Entry* entry) {
  MutexLock lock(&mutex_);
  if (entry->previous_ != nullptr) Unlink(entry);
}

void CallDeadlines::Unlink(Entry* entry) {
  entry->previous_->next_ = entry->next_;
  entry->next_->previous_ = entry->previous_;
  entry->previous_ = entry->next_ = nullptr;
  --size_;
}

// One that was set before, for later, is left to itself: to cancel it could mean to wait for it, and it waits for
// mutex_.
void CallDeadlines::SetTimer(SteadyTime when) {
  timer_due_ = when;
  if (when == SteadyTime::InfiniteFuture()) return;
  timer_ = DeadlineTimer::Get().Schedule(when, [weak = weak_from_this(), setting = ++settings_] {
    const std::shared_ptr<CallDeadlines> self = weak.lock();
    if (self != nullptr) self->Look(setting);
  });
}

void CallDeadlines::Look(uint64_t setting) {
  std::vector<std::shared_ptr<Entry>> due;
  {
    MutexLock lock(&mutex_);
    if (setting != settings_) return;
    const SteadyTime now = SteadyTime::Now();
    SteadyTime earliest = SteadyTime::InfiniteFuture();
    const absl::Duration pause = kLookPerEntry * static_cast<int64_t>(size_);
    for (Entry* entry = entries_.next_; entry != &entries_;) {
      Entry* const next = entry->next_;
      if (entry->when_ <= now) {
        Unlink(entry);
        if (std::shared_ptr<Entry> kept = entry->KeepWhileDue()) due.push_back(std::move(kept));
      } else {
        earliest = std::min(earliest, entry->when_);
      }
      entry = next;
    }
    SetTimer(std::max(earliest, now + pause));  // for ever, if there is none
  }
  for (const std::shared_ptr<Entry>& entry : due) entry->OnDeadline();
}

}  // namespace shmrpc::internal
