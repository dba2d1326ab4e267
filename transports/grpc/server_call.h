#ifndef SHMRPC_TRANSPORTS_GRPC_SERVER_CALL_H_
#define SHMRPC_TRANSPORTS_GRPC_SERVER_CALL_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/grpc/call_base.h"
#include "transports/grpc/server.h"

namespace shmrpc::grpc_transport {

// One call as the server sees it. See ServerCall. A handler that needs the request is not run before that has been
// read, or will never be.
class GrpcServerCall final : public CallBase, public ServerCall {
 public:
  // A client has begun a call. `server` outlives it; `context` lives until the reactor that is returned is done.
  static grpc::ServerGenericBidiReactor* Begin(GrpcServer* server, grpc::GenericCallbackServerContext* context);

  // ServerCall
  std::string_view method() const override { return method_; }
  SteadyTime deadline() const override { return deadline_; }
  const Metadata& metadata() const override { return metadata_; }
  const Peer& peer() const override { return peer_; }
  bool IsCancelled() const override;
  void Start(ServerCallEvents* events) override;
  void Receive() override;
  void SendHeaders(const Metadata& metadata) override;
  SendResult Send(const OutgoingMessage& message) override;
  bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) override { return Wait(done, deadline); }
  void Finish(const Reply& reply) override;

 private:
  // What the gRPC library tells of: on its own threads, which must not be kept.
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    explicit Reactor(GrpcServerCall* call) : call_(call) {}
    void OnReadDone(bool ok) override { call_->OnRead(ok); }
    void OnWriteDone(bool ok) override { call_->OnWritten(ok); }
    void OnCancel() override { call_->OnCancel(); }
    void OnDone() override { call_->Unref(); }  // the last it tells of

   private:
    GrpcServerCall* const call_;
  };

  GrpcServerCall(GrpcServer* server, grpc::GenericCallbackServerContext* context);
  ~GrpcServerCall() override;
  void Abandon() override;

  // CallBase
  bool IsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;
  void TellNext() ABSL_LOCKS_EXCLUDED(mutex_) override;
  bool RunsUserCode() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override { return events_->RunsUserCode(); }
  bool IsReceiveAnswered() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return wanted_ && !cancelled_ && (!inbox_.empty() || (half_closed_ && !half_close_told_));
  }

  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnCancel();

  void BeginReading() ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether the handler is to be run now, by the caller.
  bool ClaimHandler() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunHandlerSoon();
  void Refuse(absl::Status status, bool not_processed) ABSL_LOCKS_EXCLUDED(mutex_);
  void RunHandler();
  void ContinueReading() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ContinueWriting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The last thing that is sent, after what waits to be written.
  void SetEnd(grpc::Status status, std::optional<grpc::ByteBuffer> message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  GrpcServer* const server_;
  grpc::GenericCallbackServerContext* const context_;  // the gRPC library's: not to be used once end_sent_
  Reactor reactor_{this};
  const std::string method_;
  const SteadyTime deadline_;
  const Metadata metadata_;
  Peer peer_;
  std::atomic<bool> cancelled_{false};  // written under mutex_

  grpc::ByteBuffer read_buffer_;  // the read's that is under way
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool needs_request_ ABSL_GUARDED_BY(mutex_) = false;
  bool begun_ ABSL_GUARDED_BY(mutex_) = true;  // a handler runs or has run, or never will
  std::deque<ReceivedBuffer> inbox_ ABSL_GUARDED_BY(mutex_);

  SendQueue outbox_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer write_buffer_;  // the write's that is under way
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool sendable_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);  // to be sent
  std::optional<grpc::ByteBuffer> last_message_ ABSL_GUARDED_BY(mutex_);
  bool end_sent_ ABSL_GUARDED_BY(mutex_) = false;

  ServerCallEvents* events_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_close_told_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool sendable_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // by the application
  bool over_ ABSL_GUARDED_BY(mutex_) = false;      // the events' OnDone has been, or is being, told
};

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_SERVER_CALL_H_
