#ifndef SHMRPC_RUNTIME_SRC_CALL_DEADLINES_H_
#define SHMRPC_RUNTIME_SRC_CALL_DEADLINES_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "runtime/src/deadline_timer.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {

// The deadlines of a channel's asynchronous calls. Nearly every call ends long before its deadline, so what has to be
// cheap is to add an entry and to remove it: a list through the entries, and no timer for each. One timer serves all;
// it is set for the earliest deadline there was when it was set, and when it is due it looks at the whole list, and is
// set again. With timeouts of ten seconds, that is once in ten seconds, whatever number of calls there was in between.
//
// Deadlines pass unnoticed for a little when there are very many calls: the looks take a tenth of a CPU's time at most.
// That is less than kLookPerEntry for each entry of the list.
//
// Thread-safe. Held by shared pointers, because the timer may be due while the last one lets go.
class CallDeadlines final : public std::enable_shared_from_this<CallDeadlines> {
 public:
  static constexpr absl::Duration kLookPerEntry = absl::Nanoseconds(100);

  class Entry {
   public:
    virtual ~Entry() = default;

    // A reference to the entry's owner; it is asked for only while the entry is in the list, with the list's lock.
    // Null: the owner is about to go.
    virtual std::shared_ptr<Entry> KeepWhileDue() = 0;
    // The time has come. At most once for each Add, on the timer's thread, with no lock; the entry is in no list any
    // more. It may be running, or yet to come, when Remove returns.
    virtual void OnDeadline() = 0;

   private:
    friend class CallDeadlines;
    // The list's, guarded by its mutex.
    SteadyTime when_;
    Entry* previous_ = nullptr;  // null: in no list
    Entry* next_ = nullptr;
  };

  CallDeadlines() = default;
  ~CallDeadlines() { DeadlineTimer::Get().Cancel(timer_); }
  CallDeadlines(const CallDeadlines&) = delete;
  CallDeadlines& operator=(const CallDeadlines&) = delete;

  // `entry` is in no list, and stays alive until it is removed or due.
  void Add(Entry* entry, SteadyTime when);
  // Harmless when it is in no list.
  void Remove(Entry* entry);

 private:
  // The list's end: no entry, but linked like one.
  struct Anchor final : Entry {
    std::shared_ptr<Entry> KeepWhileDue() override { return nullptr; }
    void OnDeadline() override {}
  };

  void Unlink(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetTimer(SteadyTime when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The timer is due, which was set as the `setting`th: only the latest counts.
  void Look(uint64_t setting);

  Mutex mutex_;  // taken before the timer's
  Anchor entries_ ABSL_GUARDED_BY(mutex_);
  size_t size_ ABSL_GUARDED_BY(mutex_) = 0;
  SteadyTime timer_due_ ABSL_GUARDED_BY(mutex_) = SteadyTime::InfiniteFuture();
  uint64_t settings_ ABSL_GUARDED_BY(mutex_) = 0;
  DeadlineTimer::Handle timer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_CALL_DEADLINES_H_
