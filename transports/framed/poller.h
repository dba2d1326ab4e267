#ifndef SHMRPC_TRANSPORTS_FRAMED_POLLER_H_
#define SHMRPC_TRANSPORTS_FRAMED_POLLER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shmrpc/mutex.h"
#include "transports/framed/task_history.h"
#include "transports/framed/unique_fd.h"
#include "transports/framed/visit.h"

namespace shmrpc::framed {

// The right to look at a link (or anything else that one thread at a time may look at). Who does not get it leaves a
// mark, and who gives it back learns of the mark and looks again: so of a thread that was woken for something, and the
// thread that holds the right, at least one looks after the waking event.
//
// Lock-free; a try-lock. Acquire and release order memory as a mutex does; they are seq_cst so that users may also
// build on "either the holder sees what I stored before I tried, or I get the right".
class PollRight {
 public:
  bool TryAcquire() {
    uint32_t free = 0;
    if (state_.compare_exchange_strong(free, kHeld, std::memory_order_seq_cst)) return true;
    // Held, so leave the mark; if it was given back just now, the mark says nothing to anybody: take the right.
    return (state_.fetch_or(kHeld | kMarked, std::memory_order_seq_cst) & kHeld) == 0;
  }

  // True when somebody has failed to acquire it meanwhile: look again, or make somebody look.
  [[nodiscard]] bool Release() { return (state_.exchange(0, std::memory_order_seq_cst) & kMarked) != 0; }

 private:
  static constexpr uint32_t kHeld = 1;
  static constexpr uint32_t kMarked = 2;
  std::atomic<uint32_t> state_{0};
};

// Something to run that may take long: a server's handler, a client's callback. Deletes or recycles itself in Run.
class Task {
 public:
  virtual void Run() = 0;

  // Whether Run may run an application's code, which may block. Constant.
  virtual bool may_block() const { return true; }

  // It is not run now, as no thread may: it goes back to its pollable, which will find it again before others.
  virtual void PutBack() = 0;

  // Null if nothing is known of such tasks. Lives as long as the pollable that the task comes from.
  virtual TaskHistory* history() { return nullptr; }

 protected:
  virtual ~Task() = default;
};

// What a Poller looks after: a session, a listening socket, a handshake. All methods may be called by any thread of the
// poller, also concurrently.
class Pollable : public std::enable_shared_from_this<Pollable> {
 public:
  virtual ~Pollable() = default;

  virtual int fd() const = 0;

  // epoll has reported `events` for fd(). Only notes them; Poll follows.
  virtual void OnEvents(uint32_t events) = 0;

  enum class Outcome {
    kTask,       // *task is to be run; then poll again
    kTaskMore,   // the same, and there is more input already
    kMore,       // the visit is at its end, and there may be more to do: poll again when it is this one's turn
    kSpin,       // nothing to do now, but it pays to look again at once
    kEmpty,      // nothing to do now: park
    kElsewhere,  // another thread looks after it at present
    kOver,       // it is finished: forget it
  };

  // Does what there is to do without blocking, until there is a task, or nothing, or the visit is over.
  virtual Outcome Poll(Visit* visit, Task** task) = 0;

  // Makes sure that epoll reports whatever comes from now on. False: something has come, poll again.
  virtual bool Park() = 0;

  // After a Poll whose visit may not run tasks: whether there are any that wait for a thread that may.
  virtual bool HasTasks() const { return false; }

  // A task is taking long: what it and the tasks before it have put off (SendBatch) is to be sent now, and the rest of
  // what it sends at once. Called by another thread than the task's.
  virtual void RevokeBatches() {}

 private:
  friend class Poller;
  uint32_t serial_number_ = 0;  // the poller's: of the Add
  bool ready_ = false;          // the poller's, with its mutex_: is in its queue
  bool deferred_ = false;       // the poller's, with its threads_mutex_: is in its backlog
};

// Threads that wait for input and run what it asks for.
//
// Any number of threads sleep in epoll_wait. The one that is woken for a pollable polls it and runs its tasks right
// there, without passing anything on. What may spin then joins the hot set, which at most one thread, the scanner, goes
// round. Before it runs a task the scanner gives the right to scan away, so any other thread that is woken meanwhile
// becomes the scanner, and a task that takes long holds up nobody. No thread is woken for that on the fast path: it is
// a sleeping client, or the guardian (below), that notices input nobody looks at.
//
// Nobody owns a thread. A pollable has the thread's attention for the length of a Visit. Then it goes to the end of the
// queue of those that are ready, in which it is once at most, or, in the hot set, it is the next one's turn. A thread
// takes one event of epoll's, which are reported in turn as well, and one from the queue, and so on.
//
// Somebody always receives. At most `max_threads` threads run tasks that may block. What else there is of threads polls
// nevertheless: it receives, and leaves the tasks that it finds with their pollables, which wait in the backlog until a
// task ends. Tasks that do not block (Task::may_block) it runs. From the backlog pollables are taken in turn; and while
// others wait in it, none may have more than half of max_threads. What one has beyond that half, because nobody waited
// then, is not counted against the others: for them up to half as many threads again may run tasks.
//
// The guardian: a thread of its own that looks at the others about every millisecond while it may find something:
//   - A task that leaves something unattended: input that nobody is told of (the thread was scanning, or there was more
//     already). When it finds the same task twice, other threads take over what is unattended; it also sends what such
//     a task keeps waiting (SendBatch), and writes into the task's history what it has found: before the next task of
//     that kind runs, other threads take over at once.
//   - Nobody in epoll_wait, whatever the threads do instead: run tasks, or sleep in a system call that was not meant to
//     sleep. When nobody has come there for some looks it starts another thread. Threads that are stuck outside of
//     tasks are replaced, and do not count as those that run tasks.
//   - A scanner that has got stuck while it polled: what else is in the hot set is polled by other threads, and nothing
//     spins until the scanner is back.
// So threads become many only when tasks take long, not when there are many of them, and the fast path costs no
// wake-up. The guardian sleeps when nothing of this can be.
//
// Threads beyond the second end when they had nothing to do for ten seconds and another one is in epoll_wait. All have
// their signals blocked.
//
// Thread-safe.
class Poller {
 public:
  // `name` shows in thread lists. `advice`: what to do when tasks wait for long because all threads run others, a
  // sentence for the log; null: nothing is said. RESOURCE_EXHAUSTED when there are no threads to be had.
  static absl::StatusOr<std::unique_ptr<Poller>> Create(const char* name, int max_threads,
                                                        const char* advice = nullptr);

  ~Poller() { Stop(); }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // Ends and joins the threads, finishing first what they run, and forgets all pollables. The poller may still be
  // called by what its threads finish, and later, without effect. Idempotent; not from one of its own threads.
  void Stop();

  // Starts to look after `pollable`, which is kept alive until it is over or removed. `events`: see SetEvents.
  absl::Status Add(std::shared_ptr<Pollable> pollable, uint32_t events);

  // What epoll reports of it from now on (edge-triggered), besides hang-ups. If that is the case already it is
  // reported at once.
  void SetEvents(Pollable* pollable, uint32_t events);

  // Makes some thread poll it soon. Also lets go of it on one of the poller's threads, which may be long: to give a
  // descriptor back can block.
  void Kick(std::shared_ptr<Pollable> pollable);

  // For the thread that runs a task of this poller and has looked at `pollable` meanwhile: what comes for it during the
  // rest of the task is noticed by the guardian. False: the calling thread runs no task of this poller.
  bool WatchDuringTask(const std::shared_ptr<Pollable>& pollable);

  // For a task that is about to block: what its thread has put off (SendBatch) is sent, and other threads take over at
  // once what it has left unattended, but for `attended`, which the calling thread looks after while it blocks. Does
  // nothing on a thread that runs no poller's task.
  static void TaskBlocks(const Pollable* attended = nullptr);

  // Forgets it. It may still be polled once by a thread that is about to.
  void Remove(Pollable* pollable);

 private:
  struct Slot;

  Poller(const char* name, int max_threads, const char* advice);
  absl::Status Init();

  // The threads: poller.cc.
  absl::Status SpawnThread() ABSL_LOCKS_EXCLUDED(threads_mutex_);
  void MaybeSpawnThread();
  void ThreadMain();
  bool Round(Slot* slot);
  bool Sleep(Slot* slot, std::shared_ptr<Pollable>* reported);
  bool MayLeave(Slot* slot) ABSL_LOCKS_EXCLUDED(threads_mutex_);
  void BeginWaiting(Slot* slot);
  void EndWaiting(Slot* slot);
  void Ring();
  void RingIfReady();
  void PushReady(std::shared_ptr<Pollable> pollable) ABSL_LOCKS_EXCLUDED(mutex_);
  void TakeReady(Slot* slot);
  void Attend(const std::shared_ptr<Pollable>& pollable, Slot* slot);
  bool RunTask(Task* task, bool unattended, Slot* slot);
  void HandOver(Slot* slot, const Pollable* attended);

  // Who may run tasks that block: poller_permits.cc. Costs nothing as long as there are no more threads than may.
  bool MayRun(const Pollable* pollable, const Slot* self) ABSL_LOCKS_EXCLUDED(threads_mutex_);
  bool MayRunLocked(const Pollable* pollable, const Slot* self) ABSL_EXCLUSIVE_LOCKS_REQUIRED(threads_mutex_);
  bool TakePermit(const Task* task, Slot* slot) ABSL_LOCKS_EXCLUDED(threads_mutex_);
  int CountRunning(const Pollable* pollable, const Slot* self) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(threads_mutex_);
  void Defer(const std::shared_ptr<Pollable>& pollable) ABSL_LOCKS_EXCLUDED(threads_mutex_);
  void ReleaseDeferred() ABSL_LOCKS_EXCLUDED(threads_mutex_);
  void EndPermitsIfPossible() ABSL_EXCLUSIVE_LOCKS_REQUIRED(threads_mutex_);

  // The hot set: poller_scan.cc.
  void AddHot(const std::shared_ptr<Pollable>& pollable);
  void Scan(Slot* slot);
  bool TakeNewHot();
  void RemoveHot(size_t index);
  void TakeOverScan();

  // The guardian: poller_guardian.cc.
  void CallGuardian();
  void GuardianMain();
  absl::Duration LookAfterThreads();
  bool LookAtTask(Slot* slot, std::vector<std::shared_ptr<Pollable>>* left, int* stuck)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(threads_mutex_);
  void LookAtScanner() ABSL_EXCLUSIVE_LOCKS_REQUIRED(threads_mutex_);
  std::string NoteIfBusy() ABSL_EXCLUSIVE_LOCKS_REQUIRED(threads_mutex_);

  const char* const name_;
  const int max_threads_;
  const int half_of_threads_;
  const char* const advice_;
  UniqueFd epoll_;
  UniqueFd ring_;  // eventfd: there is something in the queue, or stopping_
  std::atomic<bool> stopping_{false};
  std::atomic<bool> guardian_called_{false};
  // Threads in epoll_wait, or about to go there without doing anything before. Who goes there counts itself and looks
  // at the queue then; who puts something into the queue looks at this then: so one of the two sees the other.
  std::atomic<int> waiting_{0};

  Mutex mutex_;
  absl::flat_hash_map<int, std::shared_ptr<Pollable>> pollables_ ABSL_GUARDED_BY(mutex_);  // by descriptor
  uint32_t last_serial_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::shared_ptr<Pollable>> ready_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> has_ready_{false};  // changed with mutex_

  PollRight scan_right_;
  std::atomic<Slot*> scanner_{nullptr};        // the thread that has scan_right_
  std::atomic<bool> scanner_is_stuck_{false};  // set by the guardian, cleared by the scanner
  Mutex hot_mutex_;
  std::vector<std::shared_ptr<Pollable>> hot_;  // read by who has scan_right_; written with hot_mutex_ as well
  std::vector<std::shared_ptr<Pollable>> new_hot_ ABSL_GUARDED_BY(hot_mutex_);
  std::atomic<bool> has_new_hot_{false};

  Mutex threads_mutex_;
  std::list<std::thread> threads_ ABSL_GUARDED_BY(threads_mutex_);
  std::vector<std::thread> finished_ ABSL_GUARDED_BY(threads_mutex_);
  std::vector<Slot*> slots_ ABSL_GUARDED_BY(threads_mutex_);
  std::atomic<int> thread_count_{0};                       // changed with threads_mutex_
  int leaving_ ABSL_GUARDED_BY(threads_mutex_) = 0;        // of them
  int stuck_outside_ ABSL_GUARDED_BY(threads_mutex_) = 0;  // of them, in something that is no task
  // There are more threads than may run tasks: a permit is needed.
  std::atomic<bool> permits_needed_{false};
  std::deque<std::shared_ptr<Pollable>> backlog_ ABSL_GUARDED_BY(threads_mutex_);
  std::atomic<bool> has_backlog_{false};  // changed with threads_mutex_

  std::thread guardian_;
  Mutex guardian_mutex_;
  CondVar guardian_wanted_;  // guardian_called_ or stopping_ was set, which is done with guardian_mutex_
  // The guardian's own.
  int looks_without_receiver_ = 0;
  Slot* seen_scanner_ = nullptr;
  uint64_t seen_scanner_steps_ = 0;
  int looks_at_scanner_ = 0;
  bool busy_ = false;
  SteadyClock::time_point busy_since_;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_POLLER_H_
