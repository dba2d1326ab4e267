#ifndef SHMRPC_TRANSPORTS_GRPC_SERVER_CALL_H_
#define SHMRPC_TRANSPORTS_GRPC_SERVER_CALL_H_

#include <grpcpp/generic/async_generic_service.h>

#include <atomic>
#include <deque>
#include <memory>
#include <string>

#include "absl/types/optional.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/grpc/call_base.h"
#include "transports/grpc/server.h"

namespace shmrpc::grpc_transport {

// One call as the server sees it. See ServerCall. Waits for a client's call first, and is one from then on. A handler
// that needs the request is not run before that has been read, and not at all when the call is over earlier.
class GrpcServerCall final : public CallBase, public ServerCall {
 public:
  // Waits for a call of a client. `server` outlives it.
  static void Await(GrpcServer* server);

  // ServerCall
  absl::string_view method() const override { return context_.method(); }
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
  explicit GrpcServerCall(GrpcServer* server);
  ~GrpcServerCall() override;
  void Abandon() override;

  // CallBase
  bool IsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;
  void TellNext() ABSL_LOCKS_EXCLUDED(mutex_) override;
  bool RunsUserCode() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override { return events_->RunsUserCode(); }
  bool IsReceiveAnswered() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return wanted_ && !cancelled_ && (!inbox_.empty() || (half_closed_ && !half_close_told_));
  }

  void OnCall(bool ok);
  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnHeadersSent(bool) {}
  void OnFinished(bool) {}
  void OnDone(bool);

  // What comes next for a call that no handler has seen yet.
  enum class Begin { kNothing, kHandler, kEnd };
  Begin ClaimBegin() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DoBegin(Begin begin) ABSL_LOCKS_EXCLUDED(mutex_);
  void RunHandler();
  void ContinueReading() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ContinueWriting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The last thing that is sent, after what waits to be written.
  void SetEnd(grpc::Status status, absl::optional<grpc::ByteBuffer> message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  GrpcServer* const server_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_{&context_};
  SteadyTime deadline_;
  Metadata metadata_;
  Peer peer_;
  std::atomic<bool> cancelled_{false};  // written under mutex_

  Operation<GrpcServerCall> call_{this, &GrpcServerCall::OnCall};
  Operation<GrpcServerCall> done_{this, &GrpcServerCall::OnDone};
  Operation<GrpcServerCall> read_{this, &GrpcServerCall::OnRead};
  Operation<GrpcServerCall> headers_{this, &GrpcServerCall::OnHeadersSent};
  Operation<GrpcServerCall> write_{this, &GrpcServerCall::OnWritten};
  Operation<GrpcServerCall> finish_{this, &GrpcServerCall::OnFinished};

  grpc::ByteBuffer read_buffer_;  // the read's that is under way
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool needs_request_ ABSL_GUARDED_BY(mutex_) = false;
  bool begun_ ABSL_GUARDED_BY(mutex_) = true;  // a handler runs or has run, or never will, or there is no call yet
  std::deque<ReceivedBuffer> inbox_ ABSL_GUARDED_BY(mutex_);

  SendQueue outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool sendable_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  absl::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);  // to be sent
  absl::optional<grpc::ByteBuffer> last_message_ ABSL_GUARDED_BY(mutex_);
  bool end_sent_ ABSL_GUARDED_BY(mutex_) = false;

  ServerCallEvents* events_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_close_told_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool sendable_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // by the application
  bool over_ ABSL_GUARDED_BY(mutex_) = false;      // OnDone has been, or is being, told
};

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_SERVER_CALL_H_
