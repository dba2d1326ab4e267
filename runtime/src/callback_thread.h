#ifndef SHMRPC_RUNTIME_SRC_CALLBACK_THREAD_H_
#define SHMRPC_RUNTIME_SRC_CALLBACK_THREAD_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "shmrpc/mutex.h"

namespace shmrpc::internal {

// Runs the user's code for which there is no better thread, on one thread for the whole process: callbacks of
// operations that were complete when the user started them (who may hold locks that the callback wants), and coroutines
// that have slept (the timer's thread has deadlines to keep).
//
// The thread starts with the first function and is never joined, like the timer's. The child of a fork() gets a new
// one. Thread-safe. Functions run one after the other, in order, with no lock held.
class CallbackThread {
 public:
  CallbackThread() = default;
  CallbackThread(const CallbackThread&) = delete;
  CallbackThread& operator=(const CallbackThread&) = delete;

  // This process's.
  static CallbackThread& Get();

  // Runs `function` soon. Here and now if the system has no thread to give.
  void Run(absl::AnyInvocable<void()> function);

 private:
  bool StartThreadIfNeeded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunThread();

  Mutex mutex_;
  CondVar added_;
  std::vector<absl::AnyInvocable<void()>> functions_ ABSL_GUARDED_BY(mutex_);
  bool sleeping_ ABSL_GUARDED_BY(mutex_) = false;
  bool thread_started_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_CALLBACK_THREAD_H_
