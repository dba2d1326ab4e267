#ifndef SHMRPC_RUNTIME_SRC_CALLBACK_THREADS_H_
#define SHMRPC_RUNTIME_SRC_CALLBACK_THREADS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"

namespace shmrpc::internal {

// Threads for user code that cannot run where it came up (see NoUserCodeHere). Most user code never comes here, because
// it runs on the thread that brought the news.
//
// One thread is enough for callbacks that are short. When a callback has waited for kPatience, the others are in ones
// that take long: then there are twice as many threads, up to kMaxThreads, as far as callbacks wait for them. An idle
// thread ends after a while. They are never joined: at process exit they just end with the process. The child of a
// fork() gets new ones, without the parent's callbacks. Thread-safe.
class CallbackThreads {
 public:
  static constexpr int kMaxThreads = 256;
  static constexpr absl::Duration kPatience = absl::Milliseconds(10);

  CallbackThreads() = default;
  CallbackThreads(const CallbackThreads&) = delete;
  CallbackThreads& operator=(const CallbackThreads&) = delete;

  // This process's.
  static CallbackThreads& Get();

  // Runs `callback` soon, on another thread. While the system has no thread to give, and none exists, it waits.
  void Run(absl::AnyInvocable<void()> callback);

 private:
  // Counted in threads_ already. False: the system has no thread to give.
  bool StartThread();
  void Serve();
  // Calls CheckProgress in a while, unless that is going to happen.
  void ScheduleCheck() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CheckProgress();

  Mutex mutex_;
  CondVar added_;
  std::deque<absl::AnyInvocable<void()>> callbacks_ ABSL_GUARDED_BY(mutex_);
  int threads_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;               // callbacks that threads have begun with
  uint64_t taken_before_check_ ABSL_GUARDED_BY(mutex_) = 0;  // when the check was scheduled
  bool check_scheduled_ ABSL_GUARDED_BY(mutex_) = false;
};

// While one exists, user code must not run on the calling thread: others wait for the thread, like the timer's and a
// channel's connector, or the thread is inside a function of the library, and its caller may hold locks that the user
// code takes. Events may come on such a thread all the same (to cancel a call is to be told of its end); what they have
// to tell the user goes to CallbackThreads.
class NoUserCodeHere {
 public:
  NoUserCodeHere() { ++depth; }
  ~NoUserCodeHere() { --depth; }
  NoUserCodeHere(const NoUserCodeHere&) = delete;
  NoUserCodeHere& operator=(const NoUserCodeHere&) = delete;

  static bool IsSo() { return depth != 0; }

 private:
  static constinit thread_local int depth;
};

// Runs `function`, which runs user code: here if it may, and otherwise soon on another thread.
template <typename Function>
void RunUserCode(Function&& function) {
  if (NoUserCodeHere::IsSo()) {
    CallbackThreads::Get().Run(std::forward<Function>(function));
  } else {
    std::forward<Function>(function)();
  }
}

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_CALLBACK_THREADS_H_
