#ifndef SHMRPC_WAIT_H_
#define SHMRPC_WAIT_H_

// What a coroutine can wait for besides a call: time to pass (Sleep), something to happen (Event), the next value
// (Queue); and several things at once, see shmrpc/when.h.
//
//   // A server-streaming handler: the next frame, or the client is gone.
//   shmrpc::Task<absl::Status> Subscribe(shmrpc::ServerContext* context, const Request* request,
//                                        shmrpc::CoServerWriter<Frame>* writer) override {
//     shmrpc::Queue<Frame> frames(/*capacity=*/4);
//     Subscription subscription = camera_.Subscribe(&frames);  // calls frames.PushDroppingOldest from its own thread
//     while (std::optional<Frame> frame = co_await frames.Pop(context->stop_token())) {
//       if (!co_await writer->Write(*frame)) break;
//     }
//     co_return absl::OkStatus();
//   }
//
// Rules of all of them:
//  - A std::stop_token ends the waiting: with ServerContext::stop_token() it ends when the call is cancelled, past its
//    deadline, or its client is gone; with the token that WhenAny gives, when another one was first. What has happened
//    before that counts first. Without a token the waiting cannot be ended.
//  - A coroutine never goes on inside the Set, Push or Close that it waits for, nor inside request_stop, so these may
//  be
//    called with a lock held that the coroutine takes. It resumes on the executor that was given, which outlives that,
//    or else on a thread of the library, with others'; there the rule for callbacks holds: be short.
//  - What they return is to be awaited once, at once. The object that is waited for outlives the waiting, and the
//    functions of it that are being called.
//  - Destroying a coroutine that waits is not allowed: stop it.

#include <cassert>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/task.h"

namespace shmrpc {
namespace internal {

// Resumes `waiting` soon, not inside this: on `executor`, or on a thread of the library if that is null.
void ResumeSoon(Executor* executor, std::coroutine_handle<> waiting);

// A coroutine that waits for its turn; lives in its frame.
struct WaitNode {
  std::coroutine_handle<> waiting;
  WaitNode* previous = nullptr;  // null: in no list
  WaitNode* next = nullptr;
  bool stopped = false;
  bool ok = false;  // how the waiting has ended
};

// First in, first out; a list through the nodes. Guarded by a mutex of whoever has it.
class WaitList final {
 public:
  WaitList() = default;
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList() { assert(empty()); }

  bool empty() const { return end_.next == nullptr || end_.next == &end_; }
  void Add(WaitNode* node);
  // False: it is in no list.
  bool Remove(WaitNode* node);
  // Null: there is none.
  WaitNode* TakeFirst();
  // Takes all, as a list through `next` that ends with null.
  WaitNode* TakeAll();

 private:
  WaitNode end_;
};

// Resumes the nodes of a list that TakeAll has returned.
void ResumeAllSoon(Executor* executor, WaitNode* first);

// What Event and Queue have in common: a lock, and where those who wait resume.
class WaitPlace {
 public:
  WaitPlace(const WaitPlace&) = delete;
  WaitPlace& operator=(const WaitPlace&) = delete;

 protected:
  explicit WaitPlace(Executor* executor) : executor_(executor) {}
  ~WaitPlace() = default;

  // A coroutine that waits at `place`, in a list of it, until it is resumed with `ok` or stopped. A stop may come at
  // any moment, on any thread, even before the coroutine is in the list: `stopped` tells.
  class Waiting : public WaitNode {
   public:
    Waiting(WaitPlace* place, WaitList* list, std::stop_token stop)
        : place_(place), list_(list), stop_(std::move(stop)) {}
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

    bool await_ready() const noexcept { return false; }

   protected:
    ~Waiting() = default;
    void ListenToStop(std::coroutine_handle<> to_resume) {
      waiting = to_resume;
      if (stop_.stop_possible()) on_stop_.emplace(std::move(stop_), Stop{this});
    }
    // Afterwards a stop does nothing any more, and is not about to.
    bool TakeResult() {
      on_stop_.reset();
      return ok;
    }

   private:
    struct Stop {
      Waiting* waiting;
      void operator()() const noexcept { waiting->place_->OnStop(waiting->list_, waiting); }
    };
    WaitPlace* const place_;
    WaitList* const list_;
    std::stop_token stop_;
    std::optional<std::stop_callback<Stop>> on_stop_;
  };

  Executor* const executor_;
  mutable Mutex mutex_;

 private:
  void OnStop(WaitList* list, WaitNode* node);
};

// The waiting of one Sleep, shared with the timer.
class SleepState;

}  // namespace internal

// Something that happens, and that coroutines wait for:
//
//   shmrpc::Event ready;
//   ...
//   if (!co_await ready.Wait(context->stop_token())) co_return absl::CancelledError();
//
// Thread-safe.
class Event final : private internal::WaitPlace {
 public:
  explicit Event(Executor* executor = nullptr) : WaitPlace(executor) {}

  // All who wait go on, and who comes later does not wait, until Reset.
  void Set();
  void Reset();
  bool IsSet() const;

  class [[nodiscard]] Waiter final : public WaitPlace::Waiting {
   public:
    bool await_suspend(std::coroutine_handle<> to_resume);
    bool await_resume() { return TakeResult(); }

   private:
    friend class Event;
    Waiter(Event* event, std::stop_token stop) : Waiting(event, &event->waiting_, std::move(stop)), event_(event) {}
    Event* const event_;
  };
  // co_await gives true once the event is set, false when `stop` came first.
  Waiter Wait(std::stop_token stop = {}) { return Waiter(this, std::move(stop)); }

 private:
  bool set_ ABSL_GUARDED_BY(mutex_) = false;
  internal::WaitList waiting_ ABSL_GUARDED_BY(mutex_);
};

// Values on their way from those who make them to those who use them, first in, first out, `capacity` of them at most.
// Each goes to one; whoever waits longest goes first. Thread-safe.
template <typename T>
class Queue final : private internal::WaitPlace {
 public:
  // `capacity` is at least 1.
  explicit Queue(size_t capacity, Executor* executor = nullptr)
      : WaitPlace(executor), capacity_(capacity == 0 ? 1 : capacity) {}

  class [[nodiscard]] Popper final : public WaitPlace::Waiting {
   public:
    bool await_suspend(std::coroutine_handle<> to_resume) {
      this->ListenToStop(to_resume);
      return queue_->BeginPop(this);
    }
    std::optional<T> await_resume() {
      this->TakeResult();
      return std::move(value_);
    }

   private:
    friend class Queue;
    Popper(Queue* queue, std::stop_token stop) : Waiting(queue, &queue->poppers_, std::move(stop)), queue_(queue) {}
    Queue* const queue_;
    std::optional<T> value_;
  };
  // co_await gives the next value; nullopt when there is none and either the queue is closed or `stop` came.
  Popper Pop(std::stop_token stop = {}) { return Popper(this, std::move(stop)); }

  class [[nodiscard]] Pusher final : public WaitPlace::Waiting {
   public:
    bool await_suspend(std::coroutine_handle<> to_resume) {
      this->ListenToStop(to_resume);
      return queue_->BeginPush(this);
    }
    bool await_resume() { return this->TakeResult(); }

   private:
    friend class Queue;
    Pusher(Queue* queue, T value, std::stop_token stop)
        : Waiting(queue, &queue->pushers_, std::move(stop)), queue_(queue), value_(std::move(value)) {}
    Queue* const queue_;
    T value_;
  };
  // co_await gives true once the value is in the queue, which takes until there is room; false, and the value is
  // dropped, when the queue is closed or `stop` came first.
  Pusher Push(T value, std::stop_token stop = {}) { return Pusher(this, std::move(value), std::move(stop)); }

  // For whoever cannot wait, a coroutine or not. False: there is no room, or the queue is closed.
  bool TryPush(T value) { return Add(std::move(value), /*drop_oldest=*/false); }
  // The same, but when there is no room the oldest value makes way: for values of which the latest count. False: the
  // queue is closed.
  bool PushDroppingOldest(T value) { return Add(std::move(value), /*drop_oldest=*/true); }
  // nullopt: there is none.
  std::optional<T> TryPop() {
    std::optional<T> value;
    internal::WaitNode* pushed = nullptr;
    {
      MutexLock lock(&mutex_);
      if (!values_.empty()) pushed = TakeFront(&value);
    }
    if (pushed != nullptr) internal::ResumeSoon(executor_, pushed->waiting);
    return value;
  }

  // Nothing more can be pushed, by those who wait to, either; what is there can still be popped. Idempotent.
  void Close() {
    internal::WaitNode* poppers;
    internal::WaitNode* pushers;
    {
      MutexLock lock(&mutex_);
      closed_ = true;
      poppers = poppers_.TakeAll();
      pushers = pushers_.TakeAll();
    }
    internal::ResumeAllSoon(executor_, poppers);
    internal::ResumeAllSoon(executor_, pushers);
  }

  size_t size() const {
    MutexLock lock(&mutex_);
    return values_.size();
  }

 private:
  // False: it need not wait.
  bool BeginPop(Popper* popper) {
    internal::WaitNode* pushed = nullptr;
    {
      MutexLock lock(&mutex_);
      if (values_.empty()) {
        if (closed_ || popper->stopped) return false;
        poppers_.Add(popper);
        return true;
      }
      pushed = TakeFront(&popper->value_);
    }
    if (pushed != nullptr) internal::ResumeSoon(executor_, pushed->waiting);
    return false;
  }
  bool BeginPush(Pusher* pusher) {
    internal::WaitNode* popped = nullptr;
    {
      MutexLock lock(&mutex_);
      if (closed_) return false;
      if (values_.size() >= capacity_) {
        if (pusher->stopped) return false;
        pushers_.Add(pusher);
        return true;
      }
      pusher->ok = true;
      popped = Hand(&pusher->value_);
    }
    if (popped != nullptr) internal::ResumeSoon(executor_, popped->waiting);
    return false;
  }
  bool Add(T value, bool drop_oldest) {
    std::optional<T> dropped;  // destroyed after the lock is released: that may run anything
    internal::WaitNode* popped = nullptr;
    {
      MutexLock lock(&mutex_);
      if (closed_) return false;
      if (values_.size() >= capacity_) {
        if (!drop_oldest) return false;
        dropped = std::move(values_.front());
        values_.pop_front();
      }
      popped = Hand(&value);
    }
    if (popped != nullptr) internal::ResumeSoon(executor_, popped->waiting);
    return true;
  }

  // The value goes to who has waited longest, who is then to be resumed, or into the queue.
  internal::WaitNode* Hand(T* value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    internal::WaitNode* const node = poppers_.TakeFirst();
    if (node == nullptr) {
      values_.push_back(std::move(*value));
    } else {
      static_cast<Popper*>(node)->value_ = std::move(*value);
    }
    return node;
  }
  // There is one. Whoever has waited longest to push puts its own behind, and is then to be resumed.
  internal::WaitNode* TakeFront(std::optional<T>* value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    *value = std::move(values_.front());
    values_.pop_front();
    internal::WaitNode* const node = pushers_.TakeFirst();
    if (node != nullptr) {
      node->ok = true;
      values_.push_back(std::move(static_cast<Pusher*>(node)->value_));
    }
    return node;
  }

  using WaitPlace::executor_;
  using WaitPlace::mutex_;
  const size_t capacity_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<T> values_ ABSL_GUARDED_BY(mutex_);
  // Somebody waits to pop only while there are no values, and to push only while there is no room.
  internal::WaitList poppers_ ABSL_GUARDED_BY(mutex_);
  internal::WaitList pushers_ ABSL_GUARDED_BY(mutex_);
};

// co_await Sleep(duration): goes on after that time, without a thread being kept meanwhile. Gives true, or false when
// `stop` came first.
class [[nodiscard]] Sleep final {
 public:
  explicit Sleep(absl::Duration duration, std::stop_token stop = {}, Executor* executor = nullptr)
      : Sleep(SteadyTime::Now() + duration, std::move(stop), executor) {}
  ~Sleep();
  Sleep(const Sleep&) = delete;
  Sleep& operator=(const Sleep&) = delete;

  bool await_ready() const { return when_.HasPassed(); }
  bool await_suspend(std::coroutine_handle<> waiting);
  bool await_resume();

 private:
  friend class SleepUntil;
  struct Stop {
    internal::SleepState* state;
    void operator()() const noexcept;
  };
  Sleep(SteadyTime when, std::stop_token stop, Executor* executor)
      : when_(when), stop_(std::move(stop)), executor_(executor) {}

  const SteadyTime when_;
  std::stop_token stop_;
  Executor* const executor_;
  std::shared_ptr<internal::SleepState> state_;  // null: it has not begun to wait
  std::optional<std::stop_callback<Stop>> on_stop_;
};

// The same until a time of the system's clock; how long that is is found out here, once.
class [[nodiscard]] SleepUntil final {
 public:
  explicit SleepUntil(absl::Time time, std::stop_token stop = {}, Executor* executor = nullptr)
      : sleep_(SteadyTime::FromSystem(time), std::move(stop), executor) {}

  bool await_ready() const { return sleep_.await_ready(); }
  bool await_suspend(std::coroutine_handle<> waiting) { return sleep_.await_suspend(waiting); }
  bool await_resume() { return sleep_.await_resume(); }

 private:
  Sleep sleep_;
};

}  // namespace shmrpc

#endif  // SHMRPC_WAIT_H_
