#include "transports/grpc/server_call.h"

#include <grpc/grpc.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace shmrpc::grpc_transport {

void GrpcServerCall::Await(GrpcServer* server) {
  auto* const call = new GrpcServerCall(server);
  // The end is told only of a call that has begun, but then perhaps before its beginning.
  call->context_.AsyncNotifyWhenDone(call->done_.Begin());
  grpc::CompletionQueue* const queue = server->threads_->queue();
  server->service_.RequestCall(&call->context_, &call->stream_, queue, static_cast<grpc::ServerCompletionQueue*>(queue),
                               call->call_.Begin());
}

GrpcServerCall::GrpcServerCall(GrpcServer* server) : CallBase(server->threads_), server_(server) {}

GrpcServerCall::~GrpcServerCall() { server_->CallEnded(); }

void GrpcServerCall::OnCall(bool ok) {
  if (!ok) {  // the server is shutting down
    Unref();  // done_'s
    return Unref();
  }
  const bool wanted = server_->CallBegan();
  deadline_ = FromGrpcTime(context_.raw_deadline());
  metadata_ = FromGrpcMetadata(context_.client_metadata());
  peer_.transport = "grpc";
  peer_.address = DecodePeer(context_.peer());
  peer_.uid = server_->options_.peer_uid;
  if (!wanted) {
    Reply reply;
    reply.status = absl::UnavailableError("the server is shutting down");
    reply.not_processed = true;
    return Finish(reply);
  }
  const bool needs_request = server_->options_.handler->NeedsRequest(method());
  Begin begin;
  {
    MutexLock lock(&mutex_);
    needs_request_ = needs_request;
    begun_ = false;
    ContinueReading();
    begin = ClaimBegin();
  }
  DoBegin(begin);
}

GrpcServerCall::Begin GrpcServerCall::ClaimBegin() {
  // A client that half-closes without a request, or sends two, is for the handler to judge.
  const bool ready = cancelled_ || !needs_request_ || half_closed_ || inbox_.size() > 1;
  if (begun_ || !ready) return Begin::kNothing;
  begun_ = true;
  return cancelled_ ? Begin::kEnd : Begin::kHandler;
}

void GrpcServerCall::DoBegin(Begin begin) {
  if (begin == Begin::kHandler) threads_->RunSoon([this] { RunHandler(); });
  if (begin != Begin::kEnd) return;
  Reply reply;
  reply.status = absl::CancelledError("the call was cancelled before its request had come");
  Finish(reply);
}

void GrpcServerCall::RunHandler() {
  absl::optional<ReceivedBuffer> request;
  {
    MutexLock lock(&mutex_);
    if (inbox_.size() == 1 && half_closed_ && !cancelled_) {
      request = std::move(inbox_.front());
      inbox_.pop_front();
    }
  }
  CallHandler* const handler = server_->options_.handler;
  if (!request.has_value()) return handler->OnCall(ServerCallPtr(this), nullptr);
  const IncomingMessage message(request->pieces());
  handler->OnCall(ServerCallPtr(this), &message);
}

bool GrpcServerCall::IsCancelled() const { return cancelled_.load(std::memory_order_acquire) || deadline_.HasPassed(); }

// ---- Reading.

void GrpcServerCall::ContinueReading() {
  if (reading_ || half_closed_ || cancelled_ || end_sent_ || inbox_.size() >= kMessagesReadAhead) return;
  reading_ = true;
  stream_.Read(&read_buffer_, read_.Begin());
}

void GrpcServerCall::OnRead(bool ok) {
  Begin begin;
  {
    MutexLock lock(&mutex_);
    reading_ = false;
    if (!ok) {
      half_closed_ = true;
      // Otherwise the application might take the end of a cancelled call for a half-close before OnDone tells.
      if (grpc_call_failed_before_recv_message(context_.c_call()) != 0) NoteCancelled();
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
                                ": raise it with ServerBuilder::SetMaxReceiveMessageBytes"))),
               absl::nullopt);
        NoteCancelled();
      }
    }
    ContinueReading();
    begin = ClaimBegin();
  }
  DoBegin(begin);
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
  for (const auto& [key, value] : metadata) context_.AddInitialMetadata(key, value);
  stream_.SendInitialMetadata(headers_.Begin());
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
    const grpc::ByteBuffer message = outbox_.Take();
    writing_ = true;
    stream_.Write(message, write_.Begin());
  } else if (end_.has_value()) {
    end_sent_ = true;
    if (last_message_.has_value()) {
      stream_.WriteAndFinish(*last_message_, grpc::WriteOptions(), *end_, finish_.Begin());
      last_message_.reset();
    } else {
      stream_.Finish(*end_, finish_.Begin());
    }
  }
}

void GrpcServerCall::OnWritten(bool ok) {
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) outbox_.Clear();  // the call is over, as OnDone is going to tell
    ContinueWriting();
    if (sendable_wanted_ && outbox_.HasRoom()) {
      sendable_wanted_ = false;
      sendable_due_ = ok;
    }
  }
  Wake(Where::kElsewhere);
}

void GrpcServerCall::SetEnd(grpc::Status status, absl::optional<grpc::ByteBuffer> message) {
  end_ = std::move(status);
  last_message_ = std::move(message);
  ContinueWriting();
}

void GrpcServerCall::Finish(const Reply& reply) {
  const Keep keep(this);
  absl::optional<grpc::ByteBuffer> message;
  if (reply.status.ok() && reply.message != nullptr) message = ToByteBuffer(*reply.message);
  bool has_events;
  {
    MutexLock lock(&mutex_);
    has_events = events_ != nullptr;
    if (!end_.has_value()) {
      if (reply.initial_metadata != nullptr) {
        for (const auto& [key, value] : *reply.initial_metadata) context_.AddInitialMetadata(key, value);
      }
      if (reply.trailing_metadata != nullptr) {
        for (const auto& [key, value] : *reply.trailing_metadata) context_.AddTrailingMetadata(key, value);
      }
      if (reply.not_processed) context_.AddTrailingMetadata(kNotProcessedKey, "1");
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
  reply.status = absl::InternalError(absl::StrCat("the server dropped the call of ", method(), " without a reply"));
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

void GrpcServerCall::OnDone(bool) {
  Begin begin;
  {
    MutexLock lock(&mutex_);
    if (context_.IsCancelled()) NoteCancelled();
    begin = ClaimBegin();
  }
  DoBegin(begin);
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
