#ifndef SHMRPC_RUNTIME_SRC_RUNNING_HANDLERS_H_
#define SHMRPC_RUNTIME_SRC_RUNNING_HANDLERS_H_

// Which handlers run, and on which threads: so that a server can tell what its Shutdown waits for, and that it is
// called by one of those it would wait for.

#include "absl/functional/function_ref.h"

namespace shmrpc::internal {

struct RegisteredMethod;

// While it exists, the calling thread runs the handler, or a reaction, of a call of `method`. Each thread has a record
// of its own that others read, so that this costs a call no more than two writes to its thread's memory.
class HandlerScope {
 public:
  explicit HandlerScope(const RegisteredMethod* method);
  ~HandlerScope();
  HandlerScope(const HandlerScope&) = delete;
  HandlerScope& operator=(const HandlerScope&) = delete;

  // Calls `visit` with the methods whose handlers this thread is in, the innermost first, until it returns true.
  // Whether it did.
  static bool AnyOfThisThread(absl::FunctionRef<bool(const RegisteredMethod*)> visit);
  // Calls `visit` with the method of each thread that is in a handler; the innermost, if there are several. It may be
  // another server's, and gone by then: `visit` compares the address before it uses it.
  static void OfAllThreads(absl::FunctionRef<void(const RegisteredMethod*)> visit);

 private:
  const RegisteredMethod* const method_;
  HandlerScope* const outer_;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_RUNNING_HANDLERS_H_
