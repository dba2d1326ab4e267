#ifndef SHMRPC_RUNTIME_SRC_CANCELLATION_SCOPE_H_
#define SHMRPC_RUNTIME_SRC_CANCELLATION_SCOPE_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "shmrpc/mutex.h"

namespace shmrpc {

class ClientContext;

namespace internal {

// The calls that a handler makes on behalf of its own, and that are cancelled with it. Shared by the server's call and
// the contexts of those calls, whichever goes first: it knows the contexts that still exist, and nothing of the
// server's call. Thread-safe.
class CancellationScope : public std::enable_shared_from_this<CancellationScope> {
 public:
  // `context` belongs here until Remove. When the scope has ended it is cancelled at once, before its call begins.
  void Add(ClientContext* context);
  // The context goes, and is not used any more when this returns.
  void Remove(ClientContext* context);

  // The server's call is cancelled, or over: cancels all that are here and all that come. On a thread of its own,
  // because the end of a call may run its user's code.
  void End();

 private:
  void CancelAll();

  Mutex mutex_;  // taken before that of a context
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace internal
}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CANCELLATION_SCOPE_H_
