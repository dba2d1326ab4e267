#include "transports/grpc/server_call.h"

#include <grpc/grpc.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"

namespace shmrpc::grpc_transport {

grpc::ServerGenericBidiReactor* GrpcServerCall::Begin(GrpcServer* server, grpc::GenericCallbackServerContext* context) {
  auto* const call = new GrpcServerCall(server, context);
  call->Ref();  // the gRPC library's, until its reactor is done
  call->peer_.transport = "grpc";
  call->peer_.address = DecodePeer(context->peer());
  if (server->options_.peer_uid.has_value()) {
    call->peer_.credentials.emplace().uid = *server->options_.peer_uid;
  }
  const bool wanted = server->CallBegan();
  absl::Status allowed = server->CheckClient(*context);
  if (!allowed.ok()) {
    call->Refuse(std::move(allowed), /*not_processed=*/false);  // and would be again
  } else if (!wanted) {
    call->Refuse(absl::UnavailableError("the server is shutting down"), /*not_processed=*/true);
  } else {
    call->BeginReading();
  }
  return &call->reactor_;
}

GrpcServerCall::GrpcServerCall(GrpcServer* server, grpc::GenericCallbackServerContext* context)
    : CallBase(server->threads_),
      server_(server),
      context_(context),
      method_(context->method()),
      deadline_(FromGrpcTime(context->raw_deadline())),
      metadata_(FromGrpcRequestMetadata(context->client_metadata())) {}

GrpcServerCall::~GrpcServerCall() { server_->CallEnded(); }

void GrpcServerCall::BeginReading() {
  const bool needs_request = server_->options_.handler->NeedsRequest(method());
  bool run;
  {
    MutexLock lock(&mutex_);
    needs_request_ = needs_request;
    begun_ = false;
    ContinueReading();
    run = ClaimHandler();
  }
  if (run) RunHandlerSoon();
}

bool GrpcServerCall::ClaimHandler() {
  // A client that half-closes without a request, sends two, or cancels, is for the handler to judge.
  const bool ready = cancelled_ || !needs_request_ || half_closed_ || inbox_.size() > 1;
  if (begun_ || !ready) return false;
  begun_ = true;
  return true;
}

void GrpcServerCall::RunHandlerSoon() {
  threads_->RunSoon([this] { RunHandler(); });
}

// For a call that no handler sees.
void GrpcServerCall::Refuse(absl::Status status, bool not_processed) {
  Reply reply;
  reply.status = std::move(status);
  reply.not_processed = not_processed;
  Finish(reply);
}

void GrpcServerCall::RunHandler() {
  std::optional<ReceivedBuffer> request;
  {
    MutexLock lock(&mutex_);
    if (inbox_.size() == 1 && half_closed_ && !cancelled_) {
      request = std::move(inbox_.front());
      inbox_.pop_front();
    }
  }
  // The call may be finished, and this object gone, long before the handler is done with what belongs to the server.
  GrpcServer* const server = server_;
  CallHandler* const handler = server->options_.handler;
  server->HandlerBegins();
  if (request.has_value()) {
    const IncomingMessage message(request->pieces());
    handler->OnCall(ServerCallPtr(this), &message);
  } else {
    handler->OnCall(ServerCallPtr(this), nullptr);
  }
  server->HandlerEnded();
}

bool GrpcServerCall::IsCancelled() const { return cancelled_.load(std::memory_order_acquire) || deadline_.HasPassed(); }

// ---- Reading.

void GrpcServerCall::ContinueReading() {
  if (reading_ || half_closed_ || cancelled_ || end_sent_ || inbox_.size() >= kMessagesReadAhead) return;
  reading_ = true;
  reactor_.StartRead(&read_buffer_);
}

void GrpcServerCall::OnRead(bool ok) {
  bool run;
  {
    MutexLock lock(&mutex_);
    reading_ = false;
    if (!ok) {
      half_closed_ = true;
      // Otherwise the application might take the end of a cancelled call for a half-close before OnCancel tells.
      if (grpc_call_failed_before_recv_message(context_->c_call()) != 0) NoteCancelled();
    } else {
      ReceivedBuffer message(&read_buffer_);
      const size_t limit = server_->options_.listen.max_receive_message_bytes;
      if (message.size() <= limit) {
        inbox_.push_back(std::move(message));
      } else if (!end_.has_value()) {
        // The client is told, and the application sees a cancelled call; its reply will be dropped.
        outbox_.Clear();
        SetEnd(ToGrpcStatus(absl::ResourceExhaustedError(
                   absl::StrCat("a message of ", message.size(), " bytes came, more than the server's limit of ", limit,
                                ": raise it with the option max_receive_message_bytes"))),
               std::nullopt);
        NoteCancelled();
      }
    }
    ContinueReading();
    run = ClaimHandler();
  }
  if (run) RunHandlerSoon();
  Wake(Where::kElsewhere);
}

void GrpcServerCall::Receive() {
  const Keep keep(this);
  {
    MutexLock lock(&mutex_);
    wanted_ = true;
  }
  Wake(Where::kElsewhere);
}

// ---- Writing.

void GrpcServerCall::SendHeaders(const Metadata& metadata) {
  MutexLock lock(&mutex_);
  if (cancelled_ || end_sent_) return;
  for (const auto& [key, value] : metadata) context_->AddInitialMetadata(key, value);
  reactor_.StartSendInitialMetadata();
}

SendResult GrpcServerCall::Send(const OutgoingMessage& message) {
  {
    MutexLock lock(&mutex_);
    if (cancelled_ || end_.has_value()) return SendResult::kOver;
    if (!outbox_.HasRoom()) {
      sendable_wanted_ = true;
      return SendResult::kWait;
    }
  }
  grpc::ByteBuffer buffer = ToByteBuffer(message);  // not under the lock: it may be large
  MutexLock lock(&mutex_);
  if (cancelled_ || end_.has_value()) return SendResult::kOver;
  outbox_.Add(std::move(buffer));
  ContinueWriting();
  return SendResult::kSent;
}

void GrpcServerCall::ContinueWriting() {
  if (writing_ || end_sent_) return;
  if (!outbox_.empty()) {
    write_buffer_ = outbox_.Take();
    writing_ = true;
    reactor_.StartWrite(&write_buffer_);
  } else if (end_.has_value()) {
    end_sent_ = true;
    if (last_message_.has_value()) {
      reactor_.StartWriteAndFinish(&*last_message_, grpc::WriteOptions(), *end_);
    } else {
      reactor_.Finish(*end_);
    }
  }
}

void GrpcServerCall::OnWritten(bool ok) {
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    write_buffer_.Clear();
    if (!ok) outbox_.Clear();  // the call is over, as OnCancel is going to tell
    ContinueWriting();
    if (sendable_wanted_ && outbox_.HasRoom()) {
      sendable_wanted_ = false;
      sendable_due_ = ok;
    }
  }
  Wake(Where::kElsewhere);
}

void GrpcServerCall::SetEnd(grpc::Status status, std::optional<grpc::ByteBuffer> message) {
  end_ = std::move(status);
  last_message_ = std::move(message);
  ContinueWriting();
}

void GrpcServerCall::Finish(const Reply& reply) {
  const Keep keep(this);
  std::optional<grpc::ByteBuffer> message;
  if (reply.status.ok() && reply.message != nullptr) message = ToByteBuffer(*reply.message);
  bool has_events;
  {
    MutexLock lock(&mutex_);
    has_events = events_ != nullptr;
    if (!end_.has_value()) {
      if (reply.initial_metadata != nullptr) {
        for (const auto& [key, value] : *reply.initial_metadata) context_->AddInitialMetadata(key, value);
      }
      if (reply.trailing_metadata != nullptr) {
        for (const auto& [key, value] : *reply.trailing_metadata) context_->AddTrailingMetadata(key, value);
      }
      if (reply.not_processed) context_->AddTrailingMetadata(kNotProcessedKey, "1");
      SetEnd(ToGrpcStatus(reply.status), std::move(message));
    }
    inbox_.clear();
    finished_ = true;
  }
  if (!has_events) return Unref();
  Wake(Where::kHere);
}

void GrpcServerCall::Abandon() {
  Reply reply;
  reply.status =
      absl::InternalError(absl::StrCat("the server dropped the call of ", ToAbsl(method()), " without a reply"));
  Finish(reply);
}

// ---- What happens.

void GrpcServerCall::Start(ServerCallEvents* events) {
  const Keep keep(this);
  {
    MutexLock lock(&mutex_);
    events_ = events;
    cancelled_due_ = cancelled_;
  }
  Wake(Where::kElsewhere);
}

void GrpcServerCall::NoteCancelled() {
  if (cancelled_) return;
  cancelled_.store(true, std::memory_order_release);
  cancelled_due_ = events_ != nullptr;
}

void GrpcServerCall::OnCancel() {
  bool run;
  {
    MutexLock lock(&mutex_);
    NoteCancelled();
    run = ClaimHandler();
  }
  if (run) RunHandlerSoon();
  Wake(Where::kElsewhere);
}

bool GrpcServerCall::IsDue() const {
  if (events_ == nullptr || over_) return false;
  return finished_ || cancelled_due_ || sendable_due_ || IsReceiveAnswered();
}

void GrpcServerCall::TellNext() {
  mutex_.Lock();
  ServerCallEvents* const events = events_;
  if (finished_) {
    over_ = true;
    mutex_.Unlock();
    events->OnDone();
    return Unref();  // the application's reference
  }
  if (cancelled_due_) {
    cancelled_due_ = false;
    wanted_ = false;
    mutex_.Unlock();
    return events->OnCancelled();
  }
  if (sendable_due_) {
    sendable_due_ = false;
    mutex_.Unlock();
    return events->OnSendable();
  }
  if (!IsReceiveAnswered()) return mutex_.Unlock();
  wanted_ = false;
  if (inbox_.empty()) {
    half_close_told_ = true;
    mutex_.Unlock();
    return events->OnHalfClose();
  }
  const ReceivedBuffer message = std::move(inbox_.front());
  inbox_.pop_front();
  ContinueReading();
  mutex_.Unlock();
  events->OnMessage(IncomingMessage(message.pieces()));
}

}  // namespace shmrpc::grpc_transport
