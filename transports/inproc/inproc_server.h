#ifndef SHMRPC_TRANSPORTS_INPROC_INPROC_SERVER_H_
#define SHMRPC_TRANSPORTS_INPROC_INPROC_SERVER_H_

#include <atomic>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "shmrpc/peer.h"
#include "shmrpc/transport.h"
#include "transports/inproc/worker_pool.h"

namespace shmrpc::internal {

class InprocCall;

// What listens under one name: the handler, its threads, and the calls that it has accepted. Shared by the listener,
// the connections to it and the calls; it takes no calls once the listener has shut it down. Thread-safe.
class InprocServer {
 public:
  InprocServer(std::string name, const ListenOptions& options, CallHandler* handler);

  const std::string& name() const { return name_; }
  const Peer& peer() const { return peer_; }
  CallHandler* handler() const { return handler_; }
  size_t max_receive_message_bytes() const { return max_receive_message_bytes_; }
  bool IsDraining() const { return draining_.load(std::memory_order_acquire); }
  absl::Status ShutDownError() const;

  // Takes a reference to the call and runs its handler. Not OK: the call has to be ended with that.
  absl::Status Accept(InprocCall* call);

  // The server's side of an accepted call is done; drops the reference that Accept took.
  void OnFinished(InprocCall* call);

  // Ends the calls that came over `connection`.
  void CancelCalls(const void* connection, const absl::Status& status);

  void Shutdown(absl::Time deadline);

 private:
  void CancelCallsIf(absl::FunctionRef<bool(const InprocCall&)> chosen, const absl::Status& status);

  const std::string name_;
  const Peer peer_;
  CallHandler* const handler_;
  const size_t max_receive_message_bytes_;
  std::atomic<bool> draining_{false};  // set under mutex_

  Mutex mutex_;
  CondVar drained_;
  InprocCall* calls_ ABSL_GUARDED_BY(mutex_) = nullptr;  // a doubly linked list

  WorkerPool pool_;
};

// Runs events that call the user's code, one after the other, on one thread for the whole process.
WorkerPool& InprocCallbackPool();

}  // namespace shmrpc::internal

#endif  // SHMRPC_TRANSPORTS_INPROC_INPROC_SERVER_H_
