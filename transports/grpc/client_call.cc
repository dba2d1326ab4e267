#include "transports/grpc/client_call.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shmrpc/steady_time.h"
#include "transports/grpc/client_stream_call.h"

namespace shmrpc::grpc_transport {
namespace {

// A call with one message each way: a single batch for the gRPC library, which tells everything at the end.
class ClientUnaryCall final : public ClientCall {
 public:
  ClientUnaryCall(std::shared_ptr<ClientChannel> channel, const CallSpec& spec, CallEvents* events)
      : ClientCall(std::move(channel), spec, events) {}

  // There is nothing left to be sent or asked for.
  SendResult Send(const OutgoingMessage&, bool) override { return SendResult::kOver; }
  void HalfClose() override {}
  void Receive() override {}
  void DropMessages() override {}

 private:
  void Begin(const CallSpec& spec, const OutgoingMessage* request) override {
    MutexLock lock(&mutex_);
    reader_ =
        channel_->stub.PrepareUnaryCall(&context_, std::string(spec.method), ToByteBuffer(*request), threads_->queue());
    reader_->StartCall();
    reader_->Finish(&reply_, &grpc_status_, finish_.Begin());
  }

  void OnFinish(bool) {
    {
      MutexLock lock(&mutex_);
      Ended();
      if (grpc_status_.ok() && reply_.Valid()) inbox_.emplace_back(&reply_);
      headers_due_ = !inbox_.empty() || !context_.GetServerInitialMetadata().empty();
    }
    Wake(Where::kElsewhere);
  }

  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader_;
  grpc::ByteBuffer reply_;
  Operation<ClientUnaryCall> finish_{this, &ClientUnaryCall::OnFinish};
};

}  // namespace

void ClientCall::Start(const std::shared_ptr<ClientChannel>& channel, const CallSpec& spec,
                       const OutgoingMessage* request, CallEvents* events, std::atomic<Call*>* call) {
  ClientCall* started;
  if (spec.client_streams || spec.server_streams) {
    started = new ClientStreamCall(channel, spec, events);
  } else {
    started = new ClientUnaryCall(channel, spec, events);
  }
  call->store(started);
  const Keep keep(started);
  bool closed;
  {
    MutexLock lock(&channel->mutex);
    closed = channel->closed;
    if (!closed) channel->calls.insert(started);
  }
  if (closed) return started->CancelHere(absl::CancelledError("the channel was destroyed before the call began"));
  started->Begin(spec, request);
}

ClientCall::ClientCall(std::shared_ptr<ClientChannel> channel, const CallSpec& spec, CallEvents* events)
    : CallBase(channel->threads),
      channel_(std::move(channel)),
      events_(events),
      runs_user_code_(events->RunsUserCode()),
      max_receive_message_bytes_(spec.max_receive_message_bytes) {
  if (spec.deadline != SteadyTime::InfiniteFuture()) context_.set_deadline(ToGrpcTime(spec.deadline));
  if (spec.metadata != nullptr) {
    for (const auto& [key, value] : *spec.metadata) {
      context_.AddMetadata(key == kPreviousAttempts ? kSentPreviousAttempts : key, value);
    }
  }
}

bool ClientCall::IsDue() const {
  if (status_told_) return false;
  return headers_due_ || sendable_due_ || IsMessageDue() || IsEndDue();
}

void ClientCall::TellNext() {
  mutex_.Lock();
  if (cancelled_.has_value()) {
    status_told_ = true;
    inbox_.clear();
    mutex_.Unlock();
    return TellStatus(*std::move(cancelled_), Metadata());
  }
  if (headers_due_) {
    headers_due_ = false;
    mutex_.Unlock();
    return events_->OnHeaders(FromGrpcMetadata(context_.GetServerInitialMetadata()));
  }
  if (sendable_due_) {
    sendable_due_ = false;
    mutex_.Unlock();
    return events_->OnSendable();
  }
  if (IsMessageDue()) {
    const ReceivedBuffer message = std::move(inbox_.front());
    inbox_.pop_front();
    if (message.size() > max_receive_message_bytes_) {
      cancelled_ = absl::ResourceExhaustedError(
          absl::StrCat("the reply is ", message.size(), " bytes long, more than the client's limit of ",
                       max_receive_message_bytes_, ": raise max_receive_message_bytes of the channel or the call"));
      context_.TryCancel();
      mutex_.Unlock();
      return;
    }
    TookMessage();
    mutex_.Unlock();
    return events_->OnMessage(IncomingMessage(message.pieces()));
  }
  status_told_ = true;
  mutex_.Unlock();
  TellStatus(StatusOfServer(), FromGrpcMetadata(context_.GetServerTrailingMetadata()));
}

absl::Status ClientCall::StatusOfServer() {
  absl::Status status = FromGrpcStatus(grpc_status_);
  // So the gRPC library's servers refuse calls that come while they shut down. It does not prove that no handler has
  // seen them: one may end a call just so.
  if (absl::IsCancelled(status) && status.message() == "CANCELLED" && context_.GetServerInitialMetadata().empty() &&
      context_.GetServerTrailingMetadata().empty()) {
    status = absl::UnavailableError("the server is shutting down");
  }
  if (context_.GetServerTrailingMetadata().count(kNotProcessedKey) > 0) not_processed_ = true;
  if (absl::IsUnavailable(status) && absl::StrContains(status.message(), "keepalive watchdog timeout")) {
    status = absl::UnavailableError(
        absl::StrCat("nothing was heard of the server for ", absl::FormatDuration(channel_->keepalive_timeout)));
  }
  if (absl::IsUnavailable(status)) {
    MutexLock lock(&channel_->mutex);
    channel_->last_failure = std::string(status.message());
  }
  return status;
}

void ClientCall::TellStatus(absl::Status status, Metadata trailing_metadata) {
  {
    MutexLock lock(&channel_->mutex);
    channel_->calls.erase(this);
  }
  events_->OnStatus({.status = std::move(status),
                     .trailing_metadata = std::move(trailing_metadata),
                     .not_processed = not_processed_});
}

void ClientCall::CancelAnd(absl::Status status, Where where) {
  const Keep keep(this);
  {
    MutexLock lock(&mutex_);
    if (!status_told_ && !cancelled_.has_value()) {
      if (ended_) {
        // The server's status, told without the messages before it, would pass a part of the stream off as the whole.
        if (DropAll()) cancelled_ = std::move(status);
      } else {
        cancelled_ = std::move(status);
        context_.TryCancel();
        OnCancelled();
      }
    }
  }
  Wake(where);
}

}  // namespace shmrpc::grpc_transport
