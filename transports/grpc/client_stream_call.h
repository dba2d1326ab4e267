#ifndef SHMRPC_TRANSPORTS_GRPC_CLIENT_STREAM_CALL_H_
#define SHMRPC_TRANSPORTS_GRPC_CLIENT_STREAM_CALL_H_

#include <memory>

#include "transports/grpc/client_call.h"

namespace shmrpc::grpc_transport {

// A call with a stream of messages in one direction or both. Three sequences of operations run beside each other:
//
//   writing:  start ─▶ write ─▶ write … ─▶ half-close
//   reading:  headers ─▶ read ─▶ read … (until one fails, or kMessagesReadAhead wait to be asked for)
//   the end:  headers ─▶ status
//
// The status is told once there is no read under way and no message left.
class ClientStreamCall final : public ClientCall {
 public:
  ClientStreamCall(std::shared_ptr<ClientChannel> channel, const CallSpec& spec, CallEvents* events)
      : ClientCall(std::move(channel), spec, events), one_by_one_(spec.server_streams) {}

  // Call
  SendResult Send(const OutgoingMessage& message, bool last) override;
  void HalfClose() override;
  void Receive() override;
  void DropMessages() override;

 private:
  // ClientCall
  void Begin(const CallSpec& spec, const OutgoingMessage* request) override;
  bool HoldsBack() const override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return reading_; }
  bool IsMessageDue() const override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !inbox_.empty() && (wanted_ || !one_by_one_);
  }
  void TookMessage() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool DropAll() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnCancelled() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void ContinueWriting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ContinueReading() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool CannotSend() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return IsOver() || ended() || write_failed_; }

  void OnWritten(bool ok);
  void OnHeaders(bool ok);
  void OnRead(bool ok);
  void OnFinished(bool ok);

  const bool one_by_one_;  // messages come one for each Receive
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;

  Operation<ClientStreamCall> write_{this, &ClientStreamCall::OnWritten};
  Operation<ClientStreamCall> headers_{this, &ClientStreamCall::OnHeaders};
  Operation<ClientStreamCall> read_{this, &ClientStreamCall::OnRead};
  Operation<ClientStreamCall> finish_{this, &ClientStreamCall::OnFinished};

  SendQueue outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool write_failed_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_close_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool sendable_wanted_ ABSL_GUARDED_BY(mutex_) = false;

  grpc::ByteBuffer read_buffer_;  // the read's that is under way
  bool headers_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool no_more_messages_ ABSL_GUARDED_BY(mutex_) = false;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool dropping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_CLIENT_STREAM_CALL_H_
