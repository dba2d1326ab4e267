#ifndef SHMRPC_RUNTIME_SRC_CANCELLATION_CALLBACK_H_
#define SHMRPC_RUNTIME_SRC_CANCELLATION_CALLBACK_H_

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "shmrpc/mutex.h"

namespace shmrpc::internal {

// What ServerContext::SetCancellationCallback sets. It runs when the call has been cancelled, at most once, and does
// not begin after Close. Thread-safe.
class CancellationCallback {
 public:
  // Keeps `callback`, or runs it here when the call is cancelled already.
  void Set(absl::AnyInvocable<void()> callback);

  // The call is cancelled. True when there is something to Run.
  bool Cancel();

  // Runs the callback, if there still is one.
  void Run() noexcept;

  // Forgets the callback; `for_good` takes no further one either. Afterwards it will not begin, and with
  // `wait` is not running, unless this is called from within it.
  void Clear(bool wait, bool for_good);

 private:
  Mutex mutex_;
  CondVar over_;
  absl::AnyInvocable<void()> callback_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread::id running_on_ ABSL_GUARDED_BY(mutex_);  // of no thread: it is not running
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_CANCELLATION_CALLBACK_H_
