#ifndef SHMRPC_TASK_H_
#define SHMRPC_TASK_H_

// Coroutines. A Task is what a coroutine returns that computes a T:
//
//   shmrpc::Task<absl::Status> Greet(Greeter::Stub& stub, std::string name) {
//     HelloRequest request;
//     request.set_name(name);
//     absl::StatusOr<HelloReply> reply = co_await stub.co().SayHello(request);
//     co_return reply.status();
//   }
//
//   int main() { return shmrpc::SyncWait(Greet(stub, "world")).ok() ? 0 : 1; }
//
// A coroutine is never on two threads at once, but may go from one to another wherever it awaits: it resumes on the
// thread that completed what it waited for. Code that must run elsewhere awaits ResumeOn. On the library's threads the
// rule for callbacks holds between two co_awaits: be short, others wait. What there is to wait for besides calls is in
// shmrpc/wait.h and shmrpc/when.h.
//
// Parameters of a coroutine that are references are used after the call has returned: the caller sees to it that they
// live as long as the Task runs.

#include <atomic>
#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "shmrpc/mutex.h"

namespace shmrpc {

template <typename T>
class Task;

namespace internal {

// What the promises of all Tasks have in common: who waits for it, and how it is told.
//
// Whoever awaits a Task runs it at once, on its own stack, and waits only if the Task stops on the way. To wait means
// to be suspended: it cannot be undone on the spot, so `progress` settles who goes on, the one who awaits or the Task
// that ends meanwhile on another thread. (Jumping from coroutine to coroutine instead, by symmetric transfer, would
// need no atomic variable; but GCC makes that a jump only when it optimises and no sanitizer is on, and otherwise a
// loop that awaits many Tasks overflows the stack.)
class TaskPromiseBase {
 public:
  std::suspend_always initial_suspend() const noexcept { return {}; }

  struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <typename Promise>
    void await_suspend(std::coroutine_handle<Promise> finished) const noexcept {
      TaskPromiseBase& promise = finished.promise();
      const std::coroutine_handle<> waiting = promise.waiting_;
      // Unless somebody waits, the Task may be gone after the exchange.
      if (promise.progress_.exchange(kFinished, std::memory_order_acq_rel) == kAwaited) waiting.resume();
    }
    void await_resume() const noexcept {}
  };
  FinalAwaiter final_suspend() const noexcept { return {}; }

  void unhandled_exception() noexcept { exception_ = std::current_exception(); }
  // As if the exception that has left the coroutine, if there was one, had been thrown where nobody catches it.
  void TerminateIfFailed() noexcept { RethrowException(); }

 protected:
  void RethrowException() {
    if (exception_ != nullptr) std::rethrow_exception(std::move(exception_));
  }

 private:
  template <typename T>
  friend class shmrpc::Task;

  // Runs `self`, the coroutine of this promise. True: `waiting` is resumed when it has finished, later or already.
  // False: it has finished.
  bool Run(std::coroutine_handle<> self, std::coroutine_handle<> waiting) {
    waiting_ = waiting;
    self.resume();
    // If it was resumed in between and has finished on another thread, it found kRunning and left the rest to us.
    return progress_.exchange(kAwaited, std::memory_order_acq_rel) != kFinished;
  }

  enum Progress { kRunning, kAwaited, kFinished };
  std::atomic<Progress> progress_{kRunning};
  std::coroutine_handle<> waiting_;
  std::exception_ptr exception_;
};

template <typename T>
class TaskPromise final : public TaskPromiseBase {
 public:
  Task<T> get_return_object() noexcept;
  template <typename U = T>
  void return_value(U&& value) {
    value_.emplace(std::forward<U>(value));
  }
  T TakeResult() {
    RethrowException();
    return *std::move(value_);
  }

 private:
  std::optional<T> value_;
};

template <>
class TaskPromise<void> final : public TaskPromiseBase {
 public:
  Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void TakeResult() { RethrowException(); }
};

}  // namespace internal

// A coroutine that has yet to run, and its result. Starts when it is awaited, which is done once: co_await
// std::move(task), or directly on the call. A Task that is never awaited never runs. An exception that leaves the
// coroutine is rethrown to whoever awaits it.
//
// Movable; not synchronised. Destroying one that has begun and not finished is not allowed: what it waits for would
// resume it.
template <typename T>
class [[nodiscard]] Task final {
 public:
  using promise_type = internal::TaskPromise<T>;

  Task(Task&& other) noexcept : coroutine_(std::exchange(other.coroutine_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this == &other) return *this;
    if (coroutine_) coroutine_.destroy();
    coroutine_ = std::exchange(other.coroutine_, nullptr);
    return *this;
  }
  ~Task() {
    if (coroutine_) coroutine_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return coroutine_.promise().Run(coroutine_, waiting); }
  T await_resume() { return coroutine_.promise().TakeResult(); }

 private:
  friend promise_type;
  template <typename U>
  friend class Spawned;
  void TerminateIfFailed() noexcept { coroutine_.promise().TerminateIfFailed(); }

  explicit Task(std::coroutine_handle<promise_type> coroutine) noexcept : coroutine_(coroutine) {}

  std::coroutine_handle<promise_type> coroutine_;
};

template <typename T>
Task<T> internal::TaskPromise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<TaskPromise<T>>::from_promise(*this));
}

inline Task<void> internal::TaskPromise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<TaskPromise<void>>::from_promise(*this));
}

namespace internal {

// A coroutine that belongs to itself: it runs when called and is gone when it has finished. Nobody could be told of an
// exception: it ends the program.
struct DetachedCoroutine {
  struct promise_type {
    DetachedCoroutine get_return_object() const noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
  };
};

// Lets one thread wait for another, once.
class SyncWaitEvent final {
 public:
  void Set();
  void Wait();

 private:
  Mutex mutex_;
  CondVar changed_;
  bool set_ ABSL_GUARDED_BY(mutex_) = false;
};

// Awaits a Task without taking its result.
template <typename T>
class TaskEnd final {
 public:
  explicit TaskEnd(Task<T>& task) : task_(task) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) const { return task_.await_suspend(waiting); }
  void await_resume() const noexcept {}

 private:
  Task<T>& task_;
};

template <typename T>
DetachedCoroutine RunAndSet(Task<T>& task, SyncWaitEvent& finished) {
  TaskEnd<T> end(task);
  co_await end;
  finished.Set();
}

}  // namespace internal

// What Spawn returns: a Task that runs by itself, and whose result can be had, once, with co_await. May be dropped, and
// then nobody waits for the Task; it goes on. Movable; not synchronised.
template <typename T>
class Spawned final {
 public:
  Spawned(Spawned&& other) noexcept = default;
  Spawned& operator=(Spawned&& other) noexcept {
    if (this == &other) return *this;
    Drop();
    state_ = std::move(other.state_);
    return *this;
  }
  ~Spawned() { Drop(); }

  // Whether the Task has finished, so that co_await goes on at once.
  bool IsFinished() const { return state_->progress.load(std::memory_order_acquire) == kFinished; }

  bool await_ready() const noexcept { return IsFinished(); }
  bool await_suspend(std::coroutine_handle<> waiting) {
    state_->waiting = waiting;
    Progress running = kRunning;
    return state_->progress.compare_exchange_strong(running, kAwaited, std::memory_order_acq_rel);
  }
  // Rethrows an exception that has left the Task.
  T await_resume() { return std::exchange(state_, nullptr)->task.await_resume(); }

 private:
  template <typename U>
  friend Spawned<U> Spawn(Task<U> task);

  enum Progress { kRunning, kAwaited, kDropped, kFinished };
  struct State {
    explicit State(Task<T> its_task) : task(std::move(its_task)) {}
    Task<T> task;
    std::coroutine_handle<> waiting;
    std::atomic<Progress> progress{kRunning};
  };

  explicit Spawned(Task<T> task) : state_(std::make_shared<State>(std::move(task))) { Run(state_); }

  static internal::DetachedCoroutine Run(std::shared_ptr<State> state) {
    internal::TaskEnd<T> end(state->task);
    co_await end;
    switch (state->progress.exchange(kFinished, std::memory_order_acq_rel)) {
      case kAwaited:
        state->waiting.resume();
        break;
      case kDropped:
        state->task.TerminateIfFailed();
        break;
      default:
        break;
    }
  }

  // Nobody could be told of an exception any more: it ends the program.
  void Drop() {
    if (state_ == nullptr) return;
    if (state_->progress.exchange(kDropped, std::memory_order_acq_rel) == kFinished) state_->task.TerminateIfFailed();
    state_ = nullptr;
  }

  std::shared_ptr<State> state_;  // null: moved from, or awaited
};

// Runs a Task: here until it awaits something that is not there yet, then wherever that comes from. Whoever wants its
// result awaits what this returns, and otherwise drops it; then an exception that leaves the Task ends the program.
template <typename T>
Spawned<T> Spawn(Task<T> task) {
  return Spawned<T>(std::move(task));
}

// Runs a Task and blocks until it has finished; rethrows its exception. For main() and for tests: blocking one of the
// library's threads may block what the Task waits for.
template <typename T>
T SyncWait(Task<T> task) {
  internal::SyncWaitEvent finished;
  internal::RunAndSet(task, finished);
  finished.Wait();
  return task.await_resume();
}

// Something that runs functions, such as a program's thread pool or event loop.
class Executor {
 public:
  virtual ~Executor() = default;
  // Runs `function` soon: on another thread, or later on this one. Thread-safe.
  virtual void Execute(absl::AnyInvocable<void()> function) = 0;
};

// co_await ResumeOn(executor): what follows runs on the executor, which outlives that.
class [[nodiscard]] ResumeOn final {
 public:
  explicit ResumeOn(Executor* executor) : executor_(executor) {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) const {
    executor_->Execute([waiting] { waiting.resume(); });
  }
  void await_resume() const noexcept {}

 private:
  Executor* const executor_;
};

}  // namespace shmrpc

#endif  // SHMRPC_TASK_H_
