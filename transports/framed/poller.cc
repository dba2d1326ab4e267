#include "transports/framed/poller.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/spin_pause.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/send_batch.h"
#include "transports/framed/spin_policy.h"

namespace shmrpc::framed {
namespace {

constexpr int kThreadsKept = 2;
constexpr int kIdleThreadMilliseconds = 10'000;
constexpr absl::Duration kGuardianPeriod = absl::Milliseconds(1);
// A task that took no longer than this is a quick one.
constexpr absl::Duration kQuickTask = absl::Microseconds(100);
// After so many periods a task counts as one that may take for ever, rather than one that waits for a CPU.
constexpr int kLooksUntilStuck = 4;

// What epoll keeps with a descriptor. A thread may have been told of a descriptor that is then closed, before it looks
// up whose it is; the next one with the same number is told apart by a serial number.
uint64_t EventData(int fd, uint32_t serial_number) { return uint64_t{serial_number} << 32 | static_cast<uint32_t>(fd); }
int DescriptorOf(const epoll_event& event) { return static_cast<int>(static_cast<uint32_t>(event.data.u64)); }
uint32_t SerialNumberOf(const epoll_event& event) { return static_cast<uint32_t>(event.data.u64 >> 32); }

absl::Status SystemError(std::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(ToAbsl(what), " failed"));
}

}  // namespace

// A thread, and what it leaves unattended while it runs a task.
struct Poller::Slot {
  explicit Slot(Poller* its_poller) : poller(its_poller) {}

  Poller* const poller;
  static thread_local Slot* of_this_thread;

  bool leaving = false;       // the thread has found itself superfluous
  bool left_hot_set = false;  // the task was found while scanning, and nobody was told that the scanner is gone
  bool watched = false;       // the task has looked at `current` itself, and then left it to the guardian

  // Odd while a task runs. Both written by the slot's thread only.
  std::atomic<uint64_t> tasks{0};
  std::atomic<bool> unattended{false};  // during this task, `current` is
  Mutex mutex;
  // Where the task came from; kept until the thread has nothing to do, so that the next task costs no reference
  // counting. Written by the slot's thread, which needs the mutex for that only.
  std::shared_ptr<Pollable> current ABSL_GUARDED_BY(mutex);
  // The task's, or an earlier one's of `current`, which keeps it alive. Written by the slot's thread.
  std::atomic<TaskHistory*> history{nullptr};
  uint64_t seen ABSL_GUARDED_BY(mutex) = 0;   // `tasks` when the guardian last looked
  int looks ABSL_GUARDED_BY(mutex) = 0;       // how often it has seen the same task
  uint64_t taken ABSL_GUARDED_BY(mutex) = 0;  // the task that was last taken over from

  // For the slot's own thread.
  void BeginTask(bool leaves_current_unattended) {
    unattended.store(leaves_current_unattended, std::memory_order_relaxed);
    tasks.store(tasks.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  void EndTask() { tasks.store(tasks.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
  const std::shared_ptr<Pollable>& OwnCurrent() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return current; }
  void SetCurrent(const std::shared_ptr<Pollable>& pollable) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (current == pollable) return;
    std::shared_ptr<Pollable> previous = pollable;  // destroyed without the lock
    MutexLock lock(&mutex);
    history.store(nullptr, std::memory_order_relaxed);
    current.swap(previous);
  }
};

thread_local Poller::Slot* Poller::Slot::of_this_thread = nullptr;

absl::StatusOr<std::unique_ptr<Poller>> Poller::Create(const char* name, int max_threads) {
  std::unique_ptr<Poller> poller(new Poller(name, max_threads));
  absl::Status status = poller->Init();
  if (!status.ok()) return status;
  return poller;
}

Poller::Poller(const char* name, int max_threads) : name_(name), max_threads_(std::max(max_threads, kThreadsKept)) {}

absl::Status Poller::Init() {
  epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return SystemError("epoll_create1");
  kick_event_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!kick_event_.valid()) return SystemError("eventfd");
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = EventData(kick_event_.get(), 0);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, kick_event_.get(), &event) != 0) return SystemError("epoll_ctl");
  absl::StatusOr<std::thread> guardian = internal::StartThread(name_, [this] { GuardianMain(); });
  if (!guardian.ok()) return guardian.status();
  guardian_ = *std::move(guardian);
  for (int i = 0; i < kThreadsKept; ++i) MaybeSpawnThread();
  return absl::OkStatus();
}

void Poller::Stop() {
  stopping_ = true;
  std::list<std::thread> threads;
  std::vector<std::thread> finished;
  for (;;) {
    const uint64_t one = 1;
    (void)!write(kick_event_.get(), &one, sizeof one);
    {
      MutexLock lock(&threads_mutex_);
      if (thread_count_ == 0) {
        threads.swap(threads_);
        finished.swap(finished_);
        break;
      }
    }
    // The event is edge-triggered and wakes one thread, which passes it on as it ends; those that run a task see
    // stopping_ when they are done.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (std::thread& thread : threads) thread.join();
  for (std::thread& thread : finished) thread.join();
  {
    MutexLock lock(&guardian_mutex_);
    guardian_wanted_.Signal();
  }
  if (guardian_.joinable()) guardian_.join();
  // Nobody scans any more. What is forgotten is destroyed without locks.
  std::vector<std::shared_ptr<Pollable>> hot = std::move(hot_), new_hot, kicked;
  absl::flat_hash_map<int, std::shared_ptr<Pollable>> pollables;
  hot_.clear();
  {
    MutexLock lock(&new_hot_mutex_);
    new_hot.swap(new_hot_);
  }
  {
    MutexLock lock(&mutex_);
    kicked.swap(kicked_);
    pollables.swap(pollables_);
  }
}

absl::Status Poller::Add(std::shared_ptr<Pollable> pollable, uint32_t events) {
  const int fd = pollable->fd();
  epoll_event event = {};
  event.events = events | EPOLLRDHUP | EPOLLET;
  {
    MutexLock lock(&mutex_);
    if (++last_serial_number_ == 0) ++last_serial_number_;
    pollable->serial_number_ = last_serial_number_;
    event.data.u64 = EventData(fd, last_serial_number_);
    pollables_[fd] = std::move(pollable);
  }
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return absl::OkStatus();
  absl::Status status = SystemError("epoll_ctl");
  MutexLock lock(&mutex_);
  pollables_.erase(fd);
  return status;
}

void Poller::SetEvents(Pollable* pollable, uint32_t events) {
  epoll_event event = {};
  event.events = events | EPOLLRDHUP | EPOLLET;
  event.data.u64 = EventData(pollable->fd(), pollable->serial_number_);
  // Fails only for what has been removed meanwhile, and then nobody waits for its events.
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, pollable->fd(), &event);
}

void Poller::Remove(Pollable* pollable) {
  std::shared_ptr<Pollable> forgotten;  // destroyed without the lock
  MutexLock lock(&mutex_);
  auto found = pollables_.find(pollable->fd());
  if (found == pollables_.end() || found->second.get() != pollable) return;
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, pollable->fd(), nullptr);
  forgotten = std::move(found->second);
  pollables_.erase(found);
}

void Poller::Kick(std::shared_ptr<Pollable> pollable) {
  {
    MutexLock lock(&mutex_);
    kicked_.push_back(std::move(pollable));
  }
  const uint64_t one = 1;
  (void)!write(kick_event_.get(), &one, sizeof one);
}

void Poller::MaybeSpawnThread() {
  MutexLock lock(&threads_mutex_);
  for (std::thread& thread : finished_) thread.join();
  finished_.clear();
  if (stopping_ || thread_count_ >= max_threads_) return;
  ++thread_count_;
  ++waiting_;  // as good as: it goes there first
  threads_.emplace_back();
  auto self = std::prev(threads_.end());
  try {
    *self = std::thread([this] { ThreadMain(); });
  } catch (const std::system_error&) {
    // No thread to be had: those that there are go on, and the next task tries again.
    threads_.erase(self);
    --thread_count_;
    --waiting_;
  }
}

void Poller::ThreadMain() {
  pthread_setname_np(pthread_self(), name_);
  Slot slot(this);
  Slot::of_this_thread = &slot;
  {
    MutexLock lock(&threads_mutex_);
    slots_.push_back(&slot);
  }
  while (WaitForEvents(&slot)) {
    // Whoever added something to the hot set tries to be the one who scans it.
    if (has_new_hot_.load(std::memory_order_seq_cst)) Scan(&slot);
    ++waiting_;
  }
  if (stopping_) {
    const uint64_t one = 1;
    (void)!write(kick_event_.get(), &one, sizeof one);
  }
  MutexLock lock(&threads_mutex_);
  slots_.erase(std::find(slots_.begin(), slots_.end(), &slot));
  auto self = std::find_if(threads_.begin(), threads_.end(),
                           [](const std::thread& thread) { return thread.get_id() == std::this_thread::get_id(); });
  finished_.push_back(std::move(*self));
  threads_.erase(self);
  --thread_count_;
  if (slot.leaving) --leaving_;
}

// Waits for events and attends to them. False when the thread shall end. Counted in waiting_ when called, no longer
// when it returns.
bool Poller::WaitForEvents(Slot* slot) {
  slot->SetCurrent(nullptr);
  bool superfluous;
  {
    MutexLock lock(&threads_mutex_);
    superfluous = thread_count_ > kThreadsKept;
  }
  // One event at a time: what it leads to may take long, and other threads can take the others.
  epoll_event event;
  const int count = stopping_ ? 0 : epoll_wait(epoll_.get(), &event, 1, superfluous ? kIdleThreadMilliseconds : -1);
  --waiting_;
  if (stopping_) return false;
  if (count == 0) {  // of several that waited for nothing, those that are needed stay
    MutexLock lock(&threads_mutex_);
    if (thread_count_ - leaving_ <= kThreadsKept) return true;
    ++leaving_;
    slot->leaving = true;
    return false;
  }
  if (count < 0) return true;
  if (DescriptorOf(event) == kick_event_.get()) {
    uint64_t ignored;
    (void)!read(kick_event_.get(), &ignored, sizeof ignored);
    TakeKicks(slot);
  } else {
    std::shared_ptr<Pollable> pollable;
    {
      MutexLock lock(&mutex_);
      auto found = pollables_.find(DescriptorOf(event));
      if (found != pollables_.end() && found->second->serial_number_ == SerialNumberOf(event)) {
        pollable = found->second;
      }
    }
    if (pollable != nullptr) {
      pollable->OnEvents(event.events);
      Attend(pollable, slot);
    }
  }
  return true;
}

void Poller::TakeKicks(Slot* slot) {
  for (;;) {
    std::shared_ptr<Pollable> pollable;
    bool more;
    {
      MutexLock lock(&mutex_);
      if (kicked_.empty()) return;
      pollable = std::move(kicked_.back());
      kicked_.pop_back();
      more = !kicked_.empty();
    }
    if (more) {  // for other threads, as this one may be long
      const uint64_t one = 1;
      (void)!write(kick_event_.get(), &one, sizeof one);
    }
    Attend(pollable, slot);
  }
}

void Poller::CallGuardian() {
  if (guardian_called_.load(std::memory_order_relaxed)) return;
  MutexLock lock(&guardian_mutex_);
  guardian_called_.store(true, std::memory_order_seq_cst);
  guardian_wanted_.Signal();
}

void Poller::GuardianMain() {
  bool look_again = false;
  while (!stopping_) {
    {
      MutexLock lock(&guardian_mutex_);
      while (!stopping_ && !look_again && !guardian_called_) guardian_wanted_.Wait(&guardian_mutex_);
      const SteadyTime end = SteadyTime::Now() + kGuardianPeriod;
      while (!stopping_ && !guardian_wanted_.WaitUntil(&guardian_mutex_, end)) {
      }
    }
    look_again = LookAfterTasks();
    // While it goes on looking nobody need call. Before it sleeps it looks once more: for a task that began just now,
    // and may have found that it was called already.
    if (!look_again && guardian_called_.exchange(false, std::memory_order_seq_cst)) look_again = true;
  }
}

bool Poller::LookAfterTasks() {
  std::vector<std::shared_ptr<Pollable>> left;
  int stuck = 0;
  bool look_again = false;
  {
    MutexLock lock(&threads_mutex_);
    for (Slot* slot : slots_) {
      MutexLock slot_lock(&slot->mutex);
      const uint64_t task = slot->tasks.load(std::memory_order_acquire);
      if (task != slot->seen) {
        slot->seen = task;
        slot->looks = 0;
        look_again = true;
        continue;
      }
      if (task % 2 == 0) continue;
      if (slot->looks < kLooksUntilStuck) {
        look_again = true;
        stuck += ++slot->looks == kLooksUntilStuck;
      }
      if (TaskHistory* const history = slot->history.load(std::memory_order_relaxed)) history->NoteLong();
      if (task == slot->taken) continue;
      slot->taken = task;
      if (slot->unattended.load(std::memory_order_relaxed)) left.push_back(slot->current);
    }
  }
  if (stuck > 0 && waiting_.load(std::memory_order_relaxed) == 0) {
    for (int i = 0; i < 1 + stuck / 8; ++i) MaybeSpawnThread();
  }
  if (!left.empty()) has_new_hot_.store(true, std::memory_order_seq_cst);  // the hot set may have lost its scanner
  for (std::shared_ptr<Pollable>& pollable : left) {
    pollable->RevokeBatches();
    Kick(std::move(pollable));
  }
  return look_again;
}

void Poller::Attend(const std::shared_ptr<Pollable>& pollable, Slot* slot) {
  for (;;) {
    Task* task = nullptr;
    switch (const Pollable::Outcome outcome = pollable->Poll(/*scanning=*/false, &task)) {
      case Pollable::Outcome::kTask:
      case Pollable::Outcome::kTaskMore:
        slot->SetCurrent(pollable);
        RunTask(task, outcome == Pollable::Outcome::kTaskMore, slot);
        continue;
      case Pollable::Outcome::kSpin:
        AddHot(pollable);
        return;
      case Pollable::Outcome::kEmpty:
        if (pollable->Park()) return;
        continue;
      case Pollable::Outcome::kElsewhere:
        return;
      case Pollable::Outcome::kOver:
        Remove(pollable.get());
        return;
    }
  }
}

// `unattended`: nobody is told of what comes for slot->current meanwhile.
void Poller::RunTask(Task* task, bool unattended, Slot* slot) {
  TaskHistory* const history = task->history();
  slot->history.store(history, std::memory_order_relaxed);
  slot->BeginTask(unattended);
  if (unattended || waiting_.load(std::memory_order_relaxed) == 0) CallGuardian();
  if (ABSL_PREDICT_FALSE(history != nullptr && history->TookLong())) {
    // It does not follow that this one does, so no thread is started for it: that is left to the guardian.
    SendBatch::OfThisThread().End();
    if (waiting_.load(std::memory_order_relaxed) > 0) HandOver(slot, nullptr);
    const SteadyTime end = SteadyTime::Now() + kQuickTask;
    task->Run();
    if (!end.HasPassed()) history->NoteQuick();
  } else {
    task->Run();
  }
  slot->EndTask();
}

bool Poller::WatchDuringTask(const std::shared_ptr<Pollable>& pollable) {
  Slot* const slot = Slot::of_this_thread;
  if (slot == nullptr || slot->poller != this) return false;
  slot->EndTask();
  slot->SetCurrent(pollable);
  slot->BeginTask(/*leaves_current_unattended=*/true);
  slot->watched = true;
  CallGuardian();
  return true;
}

void Poller::TaskBlocks(const Pollable* attended) {
  SendBatch::OfThisThread().End();
  Slot* const slot = Slot::of_this_thread;
  if (slot == nullptr || slot->tasks.load(std::memory_order_relaxed) % 2 == 0) return;
  if (slot->poller->waiting_.load(std::memory_order_relaxed) == 0) slot->poller->MaybeSpawnThread();
  slot->poller->HandOver(slot, attended);
}

void Poller::HandOver(Slot* slot, const Pollable* attended) {
  std::shared_ptr<Pollable> left;
  {
    MutexLock lock(&slot->mutex);
    const uint64_t task = slot->tasks.load(std::memory_order_relaxed);
    if (slot->current.get() == attended && !slot->left_hot_set) {
      slot->unattended.store(false, std::memory_order_relaxed);
      return;
    }
    if (slot->taken != task && slot->unattended.load(std::memory_order_relaxed)) left = slot->current;
    slot->taken = task;
  }
  slot->left_hot_set = false;
  if (left == nullptr) return;
  has_new_hot_.store(true, std::memory_order_seq_cst);  // the hot set may have lost its scanner
  Kick(std::move(left));
}

void Poller::AddHot(const std::shared_ptr<Pollable>& pollable) {
  {
    MutexLock lock(&new_hot_mutex_);
    new_hot_.push_back(pollable);
  }
  has_new_hot_.store(true, std::memory_order_seq_cst);
}

// Goes round the hot set until it is empty, if nobody else does. What is added while somebody else scans is seen by
// that thread before it ends: it gives the right back first and looks for new members then.
void Poller::Scan(Slot* slot) {
  do {
    if (!scan_right_.TryAcquire()) return;
    bool elsewhere = false;
    for (size_t i = 0;;) {
      if (has_new_hot_.load(std::memory_order_relaxed)) {
        MutexLock lock(&new_hot_mutex_);
        has_new_hot_.store(false, std::memory_order_seq_cst);
        for (std::shared_ptr<Pollable>& added : new_hot_) {
          if (std::find(hot_.begin(), hot_.end(), added) == hot_.end()) hot_.push_back(std::move(added));
        }
        new_hot_.clear();
      }
      if (hot_.empty() || stopping_.load(std::memory_order_relaxed)) break;
      if (i >= hot_.size()) {
        i = 0;
        internal::SpinPause();
      }
      Task* task = nullptr;
      const Pollable::Outcome outcome = hot_[i]->Poll(/*scanning=*/true, &task);
      if (outcome == Pollable::Outcome::kSpin) {
        ++i;
        continue;
      }
      if (outcome == Pollable::Outcome::kTask || outcome == Pollable::Outcome::kTaskMore) {
        slot->SetCurrent(hot_[i]);  // before it is somebody else's
        slot->left_hot_set = hot_.size() > 1;
        slot->watched = false;
        (void)scan_right_.Release();
        RunTask(task, /*unattended=*/true, slot);
        slot->left_hot_set = false;
        // Who scanned meanwhile may have met the task looking at its session, and left that to it.
        if (slot->watched) AddHot(slot->OwnCurrent());
        if (!scan_right_.TryAcquire()) {
          elsewhere = true;
          break;
        }
        continue;
      }
      if (outcome == Pollable::Outcome::kEmpty && !hot_[i]->Park()) continue;
      if (outcome == Pollable::Outcome::kOver) Remove(hot_[i].get());
      std::swap(hot_[i], hot_.back());
      hot_.pop_back();
    }
    SendBatch::OfThisThread().End();  // of the session whose task was the last: others will run the next
    if (elsewhere) return;
  } while (scan_right_.Release() || (has_new_hot_.load(std::memory_order_seq_cst) && !stopping_));
}

}  // namespace shmrpc::framed
