#include "transports/framed/poller.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/poller_slot.h"
#include "transports/framed/send_batch.h"

namespace shmrpc::framed {
namespace {

constexpr int kThreadsKept = 2;
constexpr int kIdleThreadMilliseconds = 10'000;
// A task that took no longer than this is a quick one.
constexpr absl::Duration kQuickTask = absl::Microseconds(100);

// What epoll keeps with a descriptor. A thread may have been told of a descriptor that is then closed, before it looks
// up whose it is; the next one with the same number is told apart by a serial number.
uint64_t EventData(int fd, uint32_t serial_number) { return uint64_t{serial_number} << 32 | static_cast<uint32_t>(fd); }
int DescriptorOf(const epoll_event& event) { return static_cast<int>(static_cast<uint32_t>(event.data.u64)); }
uint32_t SerialNumberOf(const epoll_event& event) { return static_cast<uint32_t>(event.data.u64 >> 32); }

absl::Status SystemError(absl::string_view what) { return absl::ErrnoToStatus(errno, absl::StrCat(what, " failed")); }

}  // namespace

thread_local Poller::Slot* Poller::Slot::of_this_thread = nullptr;

absl::StatusOr<std::unique_ptr<Poller>> Poller::Create(const char* name, int max_threads, const char* advice) {
  std::unique_ptr<Poller> poller(new Poller(name, max_threads, advice));
  absl::Status status = poller->Init();
  if (!status.ok()) return status;
  return poller;
}

Poller::Poller(const char* name, int max_threads, const char* advice)
    : name_(name),
      max_threads_(std::max(max_threads, 1)),
      half_of_threads_(std::max(max_threads / 2, 1)),
      advice_(advice) {}

absl::Status Poller::Init() {
  epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return SystemError("epoll_create1");
  ring_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!ring_.valid()) return SystemError("eventfd");
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = EventData(ring_.get(), 0);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, ring_.get(), &event) != 0) return SystemError("epoll_ctl");
  absl::StatusOr<std::thread> guardian = internal::StartThread(name_, [this] { GuardianMain(); });
  if (!guardian.ok()) return guardian.status();
  guardian_ = *std::move(guardian);
  for (int i = 0; i < kThreadsKept; ++i) {
    absl::Status status = SpawnThread();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void Poller::Stop() {
  stopping_ = true;
  std::list<std::thread> threads;
  std::vector<std::thread> finished;
  for (;;) {
    Ring();
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
  std::vector<std::shared_ptr<Pollable>> hot = std::move(hot_), new_hot;
  std::deque<std::shared_ptr<Pollable>> ready, backlog;
  absl::flat_hash_map<int, std::shared_ptr<Pollable>> pollables;
  hot_.clear();
  {
    MutexLock lock(&hot_mutex_);
    new_hot.swap(new_hot_);
  }
  {
    MutexLock lock(&threads_mutex_);
    backlog.swap(backlog_);
  }
  {
    MutexLock lock(&mutex_);
    ready.swap(ready_);
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

// ---- The queue.

void Poller::Ring() {
  const uint64_t one = 1;
  (void)!write(ring_.get(), &one, sizeof one);
}

// Who is about to do something that may be long does not keep to itself what is in the queue.
void Poller::RingIfReady() {
  if (has_ready_.load(std::memory_order_seq_cst) && waiting_.load(std::memory_order_seq_cst) > 0) Ring();
}

void Poller::PushReady(std::shared_ptr<Pollable> pollable) {
  MutexLock lock(&mutex_);
  if (stopping_ || std::exchange(pollable->ready_, true)) return;
  ready_.push_back(std::move(pollable));
  has_ready_.store(true, std::memory_order_seq_cst);
}

void Poller::Kick(std::shared_ptr<Pollable> pollable) {
  PushReady(std::move(pollable));
  RingIfReady();
}

void Poller::TakeReady(Slot* slot) {
  std::shared_ptr<Pollable> pollable;
  {
    MutexLock lock(&mutex_);
    if (ready_.empty()) return;
    pollable = std::move(ready_.front());
    ready_.pop_front();
    pollable->ready_ = false;
    if (ready_.empty()) has_ready_.store(false, std::memory_order_seq_cst);
  }
  RingIfReady();
  Attend(pollable, slot);
}

// ---- The threads.

absl::Status Poller::SpawnThread() {
  MutexLock lock(&threads_mutex_);
  for (std::thread& thread : finished_) thread.join();
  finished_.clear();
  // Those that run tasks, those that are stuck elsewhere, one that scans, and one that receives.
  const int most = max_threads_ + half_of_threads_ + stuck_outside_ + 2;
  const int count = thread_count_.load(std::memory_order_relaxed);
  if (stopping_ || count >= most) return absl::OkStatus();
  thread_count_.store(count + 1, std::memory_order_relaxed);
  if (count + 1 > max_threads_) permits_needed_.store(true, std::memory_order_seq_cst);
  ++waiting_;  // as good as: it goes there first
  threads_.emplace_back();
  auto self = std::prev(threads_.end());
  absl::StatusOr<std::thread> thread = internal::StartThread(name_, [this] { ThreadMain(); });
  if (thread.ok()) {
    *self = *std::move(thread);
    return absl::OkStatus();
  }
  threads_.erase(self);
  thread_count_.store(count, std::memory_order_relaxed);
  --waiting_;
  return thread.status();
}

// With no thread to be had, those that there are go on, and the guardian tries again.
void Poller::MaybeSpawnThread() { SpawnThread().IgnoreError(); }

void Poller::ThreadMain() {
  Slot slot(this);
  Slot::of_this_thread = &slot;
  {
    MutexLock lock(&threads_mutex_);
    slots_.push_back(&slot);
  }
  while (Round(&slot)) {
  }
  slot.SetCurrent(nullptr);
  EndWaiting(&slot);
  if (stopping_) Ring();
  MutexLock lock(&threads_mutex_);
  slots_.erase(std::find(slots_.begin(), slots_.end(), &slot));
  auto self = std::find_if(threads_.begin(), threads_.end(),
                           [](const std::thread& thread) { return thread.get_id() == std::this_thread::get_id(); });
  finished_.push_back(std::move(*self));
  threads_.erase(self);
  thread_count_.store(thread_count_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  EndPermitsIfPossible();
  if (slot.leaving) --leaving_;
}

void Poller::BeginWaiting(Slot* slot) {
  if (slot->waits.load(std::memory_order_relaxed)) return;
  slot->waits.store(true, std::memory_order_relaxed);
  waiting_.fetch_add(1, std::memory_order_seq_cst);
}

void Poller::EndWaiting(Slot* slot) {
  if (!slot->waits.load(std::memory_order_relaxed)) return;
  slot->waits.store(false, std::memory_order_relaxed);
  // Whatever this thread does now, somebody is to see whether it comes back.
  if (waiting_.fetch_sub(1, std::memory_order_seq_cst) == 1) CallGuardian();
}

// One event of epoll's, one pollable of the queue, and the hot set, if there is nobody to go round it. False when the
// thread shall end.
bool Poller::Round(Slot* slot) {
  slot->SetCurrent(nullptr);  // while it is not counted as waiting: to let go may take long
  std::shared_ptr<Pollable> reported;
  if (!Sleep(slot, &reported)) return false;
  if (reported != nullptr) {
    RingIfReady();
    Attend(reported, slot);
    reported.reset();
  }
  TakeReady(slot);
  // What was released may have had no task any more: then it is the next one's turn.
  if (has_backlog_.load(std::memory_order_relaxed)) ReleaseDeferred();
  if (has_new_hot_.load(std::memory_order_seq_cst)) {
    RingIfReady();
    Scan(slot);
  }
  return true;
}

// Waits for an event, but not if the queue has something for this thread. False when the thread shall end.
bool Poller::Sleep(Slot* slot, std::shared_ptr<Pollable>* reported) {
  Slot::Increment(&slot->rounds, std::memory_order_relaxed);
  slot->NoteStep();
  int timeout = 0;
  if (!has_ready_.load(std::memory_order_seq_cst)) {
    BeginWaiting(slot);
    if (!has_ready_.load(std::memory_order_seq_cst)) {
      timeout = thread_count_.load(std::memory_order_relaxed) > kThreadsKept ? kIdleThreadMilliseconds : -1;
    }
  }
  // One event at a time: what it leads to may take long, and other threads can take the others.
  epoll_event event;
  const int count = stopping_ ? 0 : epoll_wait(epoll_.get(), &event, 1, timeout);
  if (stopping_) return false;
  if (count == 0 && timeout > 0) return !MayLeave(slot);
  EndWaiting(slot);
  if (count <= 0) return true;
  const int fd = DescriptorOf(event);
  if (fd == ring_.get()) {
    uint64_t ignored;
    (void)!read(ring_.get(), &ignored, sizeof ignored);
    return true;
  }
  {
    MutexLock lock(&mutex_);
    auto found = pollables_.find(fd);
    if (found == pollables_.end() || found->second->serial_number_ != SerialNumberOf(event)) return true;
    *reported = found->second;
  }
  (*reported)->OnEvents(event.events);
  return true;
}

// Of several that waited for nothing, those that are needed stay: two, and one that waits for events.
bool Poller::MayLeave(Slot* slot) {
  MutexLock lock(&threads_mutex_);
  if (thread_count_.load(std::memory_order_relaxed) - leaving_ <= kThreadsKept) return false;
  int others = 0;
  for (const Slot* other : slots_) {
    if (other != slot && !other->leaving && other->waits.load(std::memory_order_relaxed)) ++others;
  }
  if (others == 0) return false;
  ++leaving_;
  slot->leaving = true;
  return true;
}

void Poller::Attend(const std::shared_ptr<Pollable>& pollable, Slot* slot) {
  Visit visit(/*scanning=*/false, MayRun(pollable.get(), slot));
  for (;;) {
    Task* task = nullptr;
    slot->NoteStep();
    const Pollable::Outcome outcome = pollable->Poll(&visit, &task);
    if (!visit.may_run() && pollable->HasTasks()) Defer(pollable);
    switch (outcome) {
      case Pollable::Outcome::kTask:
      case Pollable::Outcome::kTaskMore: {
        slot->SetCurrent(pollable);
        TaskHistory* const history = task->history();
        if (!RunTask(task, outcome == Pollable::Outcome::kTaskMore, slot)) {
          Defer(pollable);
          visit.set_may_run(false);
        }
        // While others wait for a thread one task is a turn.
        if (has_backlog_.load(std::memory_order_relaxed)) break;
        const bool slow = history != nullptr && history->TookLong();
        if (visit.Spend(slow ? Visit::kSlowUnits : Visit::kTaskUnits)) continue;
        break;
      }
      case Pollable::Outcome::kMore:
        break;
      case Pollable::Outcome::kSpin:
        if (!scanner_is_stuck_.load(std::memory_order_relaxed)) {
          AddHot(pollable);
          return;
        }
        [[fallthrough]];
      case Pollable::Outcome::kEmpty:
        if (pollable->Park()) return;
        if (visit.Spend(Visit::kTaskUnits)) continue;
        break;
      case Pollable::Outcome::kElsewhere:
        return;
      case Pollable::Outcome::kOver:
        Remove(pollable.get());
        return;
    }
    // The turn is over. Nobody is rung for: this thread comes back to the queue itself, or rings before it does
    // something else.
    SendBatch::OfThisThread().End();
    PushReady(pollable);
    return;
  }
}

// `unattended`: nobody is told of what comes for slot->current meanwhile. False: the task was put back.
bool Poller::RunTask(Task* task, bool unattended, Slot* slot) {
  TaskHistory* const history = task->history();
  slot->history.store(history, std::memory_order_relaxed);
  slot->BeginTask(unattended, task->may_block());
  if (ABSL_PREDICT_FALSE(permits_needed_.load(std::memory_order_relaxed)) && !TakePermit(task, slot)) {
    SendBatch::OfThisThread().End();
    task->PutBack();
    return false;
  }
  if (unattended) CallGuardian();
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
  if (ABSL_PREDICT_FALSE(permits_needed_.load(std::memory_order_relaxed))) ReleaseDeferred();
  return true;
}

bool Poller::WatchDuringTask(const std::shared_ptr<Pollable>& pollable) {
  Slot* const slot = Slot::of_this_thread;
  if (slot == nullptr || slot->poller != this) return false;
  const bool may_block = slot->may_block.load(std::memory_order_relaxed);
  slot->EndTask();
  slot->SetCurrent(pollable);
  slot->BeginTask(/*leaves_current_unattended=*/true, may_block);
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

}  // namespace shmrpc::framed
