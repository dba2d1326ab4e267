#include "runtime/src/cancellation_scope.h"

#include <utility>
#include <vector>

#include "runtime/src/callback_threads.h"
#include "runtime/src/client_call_access.h"

namespace shmrpc::internal {

void CancellationScope::Add(ClientContext* context) {
  MutexLock lock(&mutex_);
  contexts_.insert(context);
  if (ended_) ClientCallAccess::CancelUnlessInProgress(context);  // it has no call yet
}

void CancellationScope::Remove(ClientContext* context) {
  MutexLock lock(&mutex_);
  contexts_.erase(context);
}

void CancellationScope::End() {
  {
    MutexLock lock(&mutex_);
    if (ended_) return;
    ended_ = true;
    // Usually there is nothing left to cancel, and no need for a thread.
    bool in_progress = false;
    for (ClientContext* const context : contexts_) in_progress |= !ClientCallAccess::CancelUnlessInProgress(context);
    if (!in_progress) return;
  }
  CallbackThreads::Get().Run([self = shared_from_this()] { self->CancelAll(); });
}

void CancellationScope::CancelAll() {
  std::vector<std::shared_ptr<CallInProgress>> calls;
  {
    MutexLock lock(&mutex_);
    for (ClientContext* const context : contexts_) {
      std::shared_ptr<CallInProgress> call = ClientCallAccess::BeginCancel(context);
      if (call != nullptr) calls.push_back(std::move(call));
    }
  }
  // Without the lock, and without the contexts, which these may destroy.
  for (const std::shared_ptr<CallInProgress>& call : calls) call->OnTryCancel();
}

}  // namespace shmrpc::internal
