#include "runtime/src/cancellation_callback.h"

#include <utility>

namespace shmrpc::internal {

void CancellationCallback::Set(absl::AnyInvocable<void()> callback) {
  {
    MutexLock lock(&mutex_);
    if (closed_) return;
    if (!cancelled_) {
      callback_.swap(callback);
      return;
    }
  }
  callback();
}

bool CancellationCallback::Cancel() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
  return callback_ != nullptr;
}

void CancellationCallback::Run() noexcept {
  absl::AnyInvocable<void()> callback;
  {
    MutexLock lock(&mutex_);
    if (callback_ == nullptr) return;
    callback.swap(callback_);
    running_on_ = std::this_thread::get_id();
  }
  callback();
  callback = nullptr;  // what it captured is not used any more either
  MutexLock lock(&mutex_);
  running_on_ = std::thread::id();
  over_.SignalAll();
}

void CancellationCallback::Clear(bool wait, bool for_good) {
  absl::AnyInvocable<void()> cleared;  // destroyed after the lock is released: that may run anything
  MutexLock lock(&mutex_);
  cleared.swap(callback_);
  if (for_good) closed_ = true;
  if (!wait || running_on_ == std::this_thread::get_id()) return;
  while (running_on_ != std::thread::id()) over_.Wait(&mutex_);
}

}  // namespace shmrpc::internal
