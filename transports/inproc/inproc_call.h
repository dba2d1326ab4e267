#ifndef SHMRPC_TRANSPORTS_INPROC_INPROC_CALL_H_
#define SHMRPC_TRANSPORTS_INPROC_INPROC_CALL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "shmrpc/message.h"
#include "shmrpc/metadata.h"
#include "shmrpc/mutex.h"
#include "shmrpc/transport.h"
#include "transports/inproc/worker_pool.h"

namespace shmrpc::internal {

class InprocServer;

// A serialised message in memory that belongs to the call.
class InprocMessage {
 public:
  InprocMessage() = default;
  explicit InprocMessage(const OutgoingMessage& message);

  // Calls `use` with a view of the message.
  void Read(absl::FunctionRef<void(const IncomingMessage&)> use) const;

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t size_ = 0;
};

// One call, as both its ends see it. References: the client's until Release, the server's until Finish, and one for
// each thread that works on the call meanwhile.
//
// `ended_` decides who tells the client the end: the server with its reply, or whoever cancels. The one who sets it
// delivers all events, and nobody else does. Events that run the user's code are delivered on a thread for that, when
// they come from the server: the thread that has run the handler is the server's, and must not wait for client code,
// which may for example shut the server down.
class InprocCall final : public Call, public ServerCall {
 public:
  // With one reference, the client's.
  InprocCall(std::shared_ptr<InprocServer> server, const void* connection, WaitMode wait_mode, const CallSpec& spec,
             CallEvents* events);

  // The client's side, before the call is started: why it cannot be.
  void FailToStart(absl::Status status) { End(std::move(status)); }
  void SetRequest(const OutgoingMessage& request) { request_ = InprocMessage(request); }

  // Call
  void Cancel(absl::Status status) override { End(std::move(status)); }
  bool WaitUntil(absl::FunctionRef<bool()> done, absl::Time deadline) override;
  void Release() override { Unref(); }

  // ServerCall
  absl::string_view method() const override { return method_; }
  absl::Time deadline() const override { return deadline_; }
  const Metadata& metadata() const override { return metadata_; }
  const Peer& peer() const override;
  bool IsCancelled() const override;
  void Finish(const Reply& reply) override;

  void Ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unref();

  const void* connection() const { return connection_; }
  WorkerPool::Task* handler_task() { return &handler_task_; }

 private:
  friend class InprocServer;

  // Runs the handler; on a thread of the server.
  class HandlerTask final : public WorkerPool::Task {
   public:
    explicit HandlerTask(InprocCall* call) : call_(call) {}
    void Run() override { call_->RunHandler(); }

   private:
    InprocCall* const call_;
  };

  // Delivers the reply; on the thread for the user's callbacks. Holds a reference.
  class DeliveryTask final : public WorkerPool::Task {
   public:
    explicit DeliveryTask(InprocCall* call) : call_(call) {}
    void Run() override { call_->DeliverReply(); }

   private:
    InprocCall* const call_;
  };

  ~InprocCall() override = default;
  void Abandon() override;

  void RunHandler();
  // Lets go of the server's side: it has finished, or its handler will never run.
  void EndServerSide();

  // Ends the call for the client with `status`, unless it has ended.
  void End(absl::Status status);
  void TakeReply(const Reply& reply);
  void DeliverReply();
  void DeliverStatus(absl::Status status, Metadata trailing_metadata);

  const std::shared_ptr<InprocServer> server_;
  const void* const connection_;  // names the connection; not used otherwise
  const absl::Duration spin_time_;
  const std::string method_;
  const absl::Time deadline_;
  const Metadata metadata_;
  const size_t max_receive_message_bytes_;
  CallEvents* const events_;

  std::atomic<int> references_{1};
  std::atomic<bool> ended_{false};
  std::atomic<bool> cancelled_{false};  // the client has ended the call: the reply is of no use

  HandlerTask handler_task_{this};
  DeliveryTask delivery_task_{this};
  InprocMessage request_;

  // The reply, from Finish to its delivery.
  absl::optional<Metadata> reply_headers_;
  absl::optional<InprocMessage> reply_message_;
  absl::Status reply_status_;
  Metadata reply_trailing_metadata_;

  // Where a synchronous caller sleeps.
  Mutex wait_mutex_;
  CondVar delivered_;
  bool somebody_waits_ ABSL_GUARDED_BY(wait_mutex_) = false;

  // The server's list of calls that its side has not finished; guarded by the server's mutex.
  InprocCall* previous_ = nullptr;
  InprocCall* next_ = nullptr;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_TRANSPORTS_INPROC_INPROC_CALL_H_
