#ifndef SHMRPC_TRANSPORTS_FRAMED_POLLER_H_
#define SHMRPC_TRANSPORTS_FRAMED_POLLER_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/src/thread.h"
#include "shmrpc/mutex.h"
#include "transports/framed/task_history.h"
#include "transports/framed/unique_fd.h"

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
    kSpin,       // nothing to do now, but it pays to look again at once
    kEmpty,      // nothing to do now: park
    kElsewhere,  // another thread looks after it at present
    kOver,       // it is finished: forget it
  };

  // Does what there is to do without blocking, until there is a task or nothing. `scanning`: the poller goes round the
  // hot set, and its guardian looks after what comes during a long task; otherwise that is to be reported by epoll.
  virtual Outcome Poll(bool scanning, Task** task) = 0;

  // Makes sure that epoll reports whatever comes from now on. False: something has come, poll again.
  virtual bool Park() = 0;

  // A task is taking long: what it and the tasks before it have put off (SendBatch) is to be sent now, and the rest of
  // what it sends at once. Called by another thread than the task's.
  virtual void RevokeBatches() {}

 private:
  friend class Poller;
  uint32_t serial_number_ = 0;  // the poller's: of the Add
};

// Threads that wait for input and run what it asks for.
//
// Any number of threads sleep in epoll_wait. The one that is woken for a pollable polls it and runs its tasks right
// there, without passing anything on. What may spin then joins the hot set, which at most one thread, the scanner, goes
// round. Before it runs a task the scanner gives the right to scan away, so any other thread that is woken meanwhile
// becomes the scanner, and a task that takes long holds up nobody. No thread is woken for that on the fast path: it is
// a sleeping client, or the guardian (below), that notices input nobody looks at.
//
// The guardian: a thread of its own that looks at the others about every millisecond while one of them runs a task that
// may leave something unattended: input that nobody is told of (the thread was scanning, or there was more already), or
// the descriptors themselves (no other thread is in epoll_wait). When it finds the same task twice, other threads take
// over what is unattended; when it finds it some more times and no thread is free, it starts another one. So threads
// become many only when tasks take long, not when there are many of them, and the fast path costs no wake-up. It sleeps
// when nothing is left unattended. It also sends what such a task keeps waiting (SendBatch). What it finds it writes
// into the task's history: before the next task of that kind runs, other threads take over at once.
//
// Threads beyond the second end when they had nothing to do for ten seconds.
//
// Thread-safe.
class Poller {
 public:
  // `name` shows in thread lists.
  static absl::StatusOr<std::unique_ptr<Poller>> Create(const char* name, int max_threads);

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

  // Makes some thread poll it soon.
  void Kick(std::shared_ptr<Pollable> pollable);

  // For the thread that runs a task of this poller and has looked at `pollable` meanwhile: what comes for it during the
  // rest of the task is noticed by the guardian. False: the calling thread runs no task of this poller.
  bool WatchDuringTask(const std::shared_ptr<Pollable>& pollable);

  // For a task that is about to block: what its thread has put off (SendBatch) is sent, and other threads take over at
  // once what it has left unattended, but for `attended`, which the calling thread looks after while it blocks. Does
  // nothing on a thread that runs no poller's task.
  static void TaskBlocks(const Pollable* attended = nullptr);

  // For InForkedChild.
  static void ForgetTaskInForkedChild();

  // Forgets it. It may still be polled once by a thread that is about to.
  void Remove(Pollable* pollable);

 private:
  struct Slot;

  Poller(const char* name, int max_threads);
  absl::Status Init();
  // OK also when it is not to have more.
  absl::Status MaybeSpawnThread();
  void ThreadMain();
  bool WaitForEvents(Slot* slot);
  void TakeKicks(Slot* slot);
  void GuardianMain();
  // True when it has to look again.
  bool LookAfterTasks();
  void Attend(const std::shared_ptr<Pollable>& pollable, Slot* slot);
  void RunTask(Task* task, bool unattended, Slot* slot);
  void AddHot(const std::shared_ptr<Pollable>& pollable);
  void Scan(Slot* slot);
  void CallGuardian();
  void HandOver(Slot* slot, const Pollable* attended);

  const char* const name_;
  const int max_threads_;
  UniqueFd epoll_;
  UniqueFd kick_event_;  // eventfd: kicked_ is not empty, or stopping_
  std::atomic<bool> stopping_{false};
  std::atomic<bool> guardian_called_{false};
  std::atomic<int> waiting_{0};  // threads in epoll_wait

  Mutex mutex_;
  absl::flat_hash_map<int, std::shared_ptr<Pollable>> pollables_ ABSL_GUARDED_BY(mutex_);  // by descriptor
  uint32_t last_serial_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::shared_ptr<Pollable>> kicked_ ABSL_GUARDED_BY(mutex_);

  PollRight scan_right_;
  std::vector<std::shared_ptr<Pollable>> hot_;  // used by who has scan_right_
  Mutex new_hot_mutex_;
  std::vector<std::shared_ptr<Pollable>> new_hot_ ABSL_GUARDED_BY(new_hot_mutex_);
  std::atomic<bool> has_new_hot_{false};

  Mutex threads_mutex_;
  std::list<internal::Thread> threads_ ABSL_GUARDED_BY(threads_mutex_);
  std::vector<internal::Thread> finished_ ABSL_GUARDED_BY(threads_mutex_);
  std::vector<Slot*> slots_ ABSL_GUARDED_BY(threads_mutex_);
  int thread_count_ ABSL_GUARDED_BY(threads_mutex_) = 0;
  int leaving_ ABSL_GUARDED_BY(threads_mutex_) = 0;  // of them

  internal::Thread guardian_;
  Mutex guardian_mutex_;
  CondVar guardian_wanted_;  // guardian_called_ or stopping_ was set, which is done with guardian_mutex_
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_POLLER_H_
