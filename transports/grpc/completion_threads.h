#ifndef SHMRPC_TRANSPORTS_GRPC_COMPLETION_THREADS_H_
#define SHMRPC_TRANSPORTS_GRPC_COMPLETION_THREADS_H_

#include <grpcpp/completion_queue.h>

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace shmrpc::grpc_transport {

// What is told when an operation of the gRPC library is complete: the "tag" of that operation. A member of the call
// that started the operation, which it has to outlive.
class Completion {
 public:
  // On one of the threads of the queue; must not block and must not run user code (see CompletionThreads::RunSoon).
  virtual void OnCompletion(bool ok) = 0;

 protected:
  ~Completion() = default;
};

// The threads that wait on one completion queue of the gRPC library, and that run the user code which its events call
// for. User code runs on the thread that brought the event, so that there is no hop to another one; when it takes long,
// another thread takes over waiting. So threads come and go with the number of handlers that block, up to a limit, and
// there is always one that waits and tells calls of cancellations, messages and ends. (A server's events come on
// threads of the gRPC library, which must not be kept: its user code takes the hop.)
//
// Thread-safe. The destructor shuts the queue down and, unless it runs on one of the threads, waits until they have
// ended; no operation may be under way or be started any more.
class CompletionThreads {
 public:
  using UserCode = absl::AnyInvocable<void()>;

  // `name` is at most 15 characters. `max_user_threads` threads run user code at the same time at most; what comes
  // beyond that waits. RESOURCE_EXHAUSTED when the system has no thread to give.
  static absl::StatusOr<std::unique_ptr<CompletionThreads>> Start(const char* name,
                                                                  std::unique_ptr<grpc::CompletionQueue> queue,
                                                                  int max_user_threads);
  ~CompletionThreads();
  CompletionThreads(const CompletionThreads&) = delete;
  CompletionThreads& operator=(const CompletionThreads&) = delete;

  grpc::CompletionQueue* queue() const;

  // Runs `code` on one of the threads: inside an OnCompletion of this queue on this thread when it returns, otherwise
  // after a hop. From any thread.
  void RunSoon(UserCode code);

 private:
  class Impl;
  explicit CompletionThreads(std::shared_ptr<Impl> impl);

  const std::shared_ptr<Impl> impl_;  // shared with the threads
};

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_COMPLETION_THREADS_H_
