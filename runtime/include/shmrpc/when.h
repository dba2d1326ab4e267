#ifndef SHMRPC_WHEN_H_
#define SHMRPC_WHEN_H_

// Several coroutines at the same time.
//
//   auto [a, b] = co_await shmrpc::WhenAll(Fetch(first), Fetch(second));
//
//   // A value, or five seconds.
//   auto any = co_await shmrpc::WhenAny(
//       context->stop_token(), [&](std::stop_token stop) { return queue.Pop(stop); },
//       [&](std::stop_token stop) { return shmrpc::Sleep(absl::Seconds(5), stop); });
//   if (any.first == 1) co_return absl::DeadlineExceededError("no value came");
//
// All of them begin here, on this thread, one after the other, and each runs here until it awaits something that is not
// there yet. What awaits them goes on, on the thread that completed the last of them, when *all* have finished: nothing
// of theirs is left behind. The exception of the first one, in their order, that has thrown is rethrown.

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <functional>
#include <stop_token>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "shmrpc/task.h"

namespace shmrpc {
namespace internal {

// What stands for the result of a T in a tuple.
template <typename T>
using ResultOrUnit = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

template <typename T>
ResultOrUnit<T> TakeResultOrUnit(Task<T>& task) {
  if constexpr (std::is_void_v<T>) {
    task.await_resume();
    return std::monostate();
  } else {
    return task.await_resume();
  }
}

// Resumes whoever awaits it when `count` have finished.
class Countdown final {
 public:
  explicit Countdown(size_t count) : left_(count + 1) {}
  void Finish() {
    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) waiting_.resume();
  }
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) {
    waiting_ = waiting;
    return left_.fetch_sub(1, std::memory_order_acq_rel) != 1;
  }
  void await_resume() const noexcept {}

 private:
  std::atomic<size_t> left_;  // and one for who has yet to await it
  std::coroutine_handle<> waiting_;
};

template <typename T>
DetachedCoroutine RunAndFinish(Task<T>& task, Countdown& countdown) {
  TaskEnd<T> end(task);
  co_await end;
  countdown.Finish();
}

// What an awaitable that `Start` returns gives.
template <typename Start>
using StartedResult = decltype(std::declval<std::invoke_result_t<Start&, std::stop_token>&>().await_resume());

// Who was first, and how the others hear of it.
struct Race {
  static constexpr size_t kNobody = static_cast<size_t>(-1);
  std::stop_source stop_others;
  std::atomic<size_t> first{kNobody};

  void Finish(size_t index) {
    size_t nobody = kNobody;
    if (first.compare_exchange_strong(nobody, index, std::memory_order_acq_rel)) stop_others.request_stop();
  }
};

template <typename Start>
Task<StartedResult<Start>> RunInRace(Start& start, Race& race, size_t index) {
  struct Finish {
    Race& race;
    const size_t index;
    ~Finish() { race.Finish(index); }
  };
  const Finish finish{race, index};
  co_return co_await start(race.stop_others.get_token());
}

template <typename... Starts, size_t... kIndices>
auto StartRace(Race& race, std::index_sequence<kIndices...>, Starts&... starts) {
  return std::tuple<Task<StartedResult<Starts>>...>(RunInRace(starts, race, kIndices)...);
}

}  // namespace internal

// co_await WhenAll(tasks...) gives a std::tuple of their results, std::monostate for void.
template <typename... Ts>
Task<std::tuple<internal::ResultOrUnit<Ts>...>> WhenAll(Task<Ts>... tasks) {
  internal::Countdown countdown(sizeof...(Ts));
  (internal::RunAndFinish(tasks, countdown), ...);
  co_await countdown;
  co_return std::tuple<internal::ResultOrUnit<Ts>...>{internal::TakeResultOrUnit(tasks)...};
}

// The same for any number of one kind: gives a std::vector in their order.
template <typename T>
Task<std::vector<internal::ResultOrUnit<T>>> WhenAll(std::vector<Task<T>> tasks) {
  internal::Countdown countdown(tasks.size());
  for (Task<T>& task : tasks) internal::RunAndFinish(task, countdown);
  co_await countdown;
  std::vector<internal::ResultOrUnit<T>> results;
  results.reserve(tasks.size());
  for (Task<T>& task : tasks) results.push_back(internal::TakeResultOrUnit(task));
  co_return results;
}

// What WhenAny gives.
template <typename... Ts>
struct AnyResult {
  size_t first;                                       // who finished first, counted from 0
  std::tuple<internal::ResultOrUnit<Ts>...> results;  // of all; of the others what they gave when they were stopped
};

// co_await WhenAny(stop, starts...): each of `starts` is called with a std::stop_token and returns what can be awaited,
// a Task or another. When the first of them has finished, the others' token is stopped; so it is when `stop` is. Then
// the others have to finish, too: whatever takes no notice of its token is waited for.
template <typename... Starts>
Task<AnyResult<internal::StartedResult<Starts>...>> WhenAny(std::stop_token stop, Starts... starts) {
  internal::Race race;
  auto tasks = internal::StartRace(race, std::index_sequence_for<Starts...>(), starts...);
  internal::Countdown countdown(sizeof...(Starts));
  std::apply([&](auto&... task) { (internal::RunAndFinish(task, countdown), ...); }, tasks);
  {
    const auto pass_on = [&race] { race.stop_others.request_stop(); };
    const std::stop_callback<decltype(pass_on)> on_stop(std::move(stop), pass_on);
    co_await countdown;
  }
  co_return std::apply(
      [&](auto&... task) {
        return AnyResult<internal::StartedResult<Starts>...>{race.first.load(std::memory_order_acquire),
                                                             {internal::TakeResultOrUnit(task)...}};
      },
      tasks);
}

}  // namespace shmrpc

#endif  // SHMRPC_WHEN_H_
