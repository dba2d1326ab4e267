#ifndef SHMRPC_RUNTIME_SRC_DEADLINE_TIMER_H_
#define SHMRPC_RUNTIME_SRC_DEADLINE_TIMER_H_

#include <cstdint>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {

// Runs callbacks at given times, on one thread for the whole process. It serves CallDeadlines, deadlines of a server's
// calls, and pauses: most timers are cancelled long before they are due, so that has to be cheap.
//
// The thread starts with the first timer, sleeps until the earliest one is due, and is woken early only by a timer
// that is earlier still; a cancelled timer costs it at most one empty wake-up. It is never joined, and a
// timer never destroyed: at process exit both just end with the process. The child of a fork() gets a new timer of its
// own, without the parent's entries.
//
// Thread-safe. Callbacks run one after the other with no lock held; they may schedule and cancel timers.
class DeadlineTimer {
 public:
  DeadlineTimer() = default;
  DeadlineTimer(const DeadlineTimer&) = delete;
  DeadlineTimer& operator=(const DeadlineTimer&) = delete;

  // Names one scheduled callback.
  struct Handle {
    SteadyTime when = SteadyTime::InfiniteFuture();
    uint64_t id = 0;  // 0: nothing was scheduled

    friend bool operator<(const Handle& a, const Handle& b) { return std::tie(a.when, a.id) < std::tie(b.when, b.id); }
  };

  // This process's timer.
  static DeadlineTimer& Get();

  // Makes sure that the thread runs, so that what is scheduled later is in good hands; who relies on that asks before.
  absl::Status Start();

  // Runs `callback` once `when` has come, which may be now. With InfiniteFuture it never runs, and is dropped at once.
  Handle Schedule(SteadyTime when, absl::AnyInvocable<void()> callback);

  // Afterwards the callback neither is running nor will run, but when called from within that very callback. True when
  // it will never have run. To cancel a handle twice, or that of another process, is harmless.
  bool Cancel(Handle handle);

 private:
  absl::Status StartThreadIfNeeded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run();

  Mutex mutex_;
  CondVar earlier_;        // a timer was added that is due before sleeping_until_
  CondVar callback_over_;  // running_ changed and somebody waits for that
  absl::btree_map<Handle, absl::AnyInvocable<void()>> timers_ ABSL_GUARDED_BY(mutex_);
  SteadyTime sleeping_until_ ABSL_GUARDED_BY(mutex_) = SteadyTime::InfinitePast();  // InfinitePast: the thread is awake
  uint64_t running_ ABSL_GUARDED_BY(mutex_) = 0;  // the id of the callback in progress
  int cancels_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool thread_started_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_DEADLINE_TIMER_H_
