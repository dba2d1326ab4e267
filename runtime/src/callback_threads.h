#ifndef SHMRPC_RUNTIME_SRC_CALLBACK_THREADS_H_
#define SHMRPC_RUNTIME_SRC_CALLBACK_THREADS_H_

#include <cstddef>
#include <cstdint>
#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"

namespace shmrpc::internal {

// Threads for user code that cannot run where it came up: on a thread that may hold the user's locks, or that waits for
// something else. Most user code never comes here, because it runs on the thread that brought the news.
//
// One thread is enough for callbacks that are short. Another one is started, up to kMaxThreads, when a callback has
// waited for kPatience: the others are in ones that take long. An idle thread ends after a while. They are never joined:
// at process exit they just end with the process. The child of a fork() gets new ones, without the parent's callbacks.
// Thread-safe.
class CallbackThreads {
 public:
  static constexpr int kMaxThreads = 32;
  static constexpr absl::Duration kPatience = absl::Milliseconds(10);

  CallbackThreads() = default;
  CallbackThreads(const CallbackThreads&) = delete;
  CallbackThreads& operator=(const CallbackThreads&) = delete;

  // This process's.
  static CallbackThreads& Get();

  // Runs `callback` soon, on another thread. When the system has no thread to give, and none exists, here.
  void Run(absl::AnyInvocable<void()> callback);

 private:
  void StartThread();
  void Serve();
  // Calls CheckProgress in a while, unless that is going to happen.
  void ScheduleCheck() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CheckProgress();

  Mutex mutex_;
  CondVar added_;
  std::deque<absl::AnyInvocable<void()>> callbacks_ ABSL_GUARDED_BY(mutex_);
  int threads_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;             // callbacks that threads have begun with
  uint64_t taken_before_check_ ABSL_GUARDED_BY(mutex_) = 0;  // when the check was scheduled
  bool check_scheduled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_CALLBACK_THREADS_H_
