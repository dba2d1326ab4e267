#include "transports/grpc/client_stream_call.h"

#include <utility>

namespace shmrpc::grpc_transport {
namespace {

// Whether the server has sent nothing but a status. The gRPC library tells only its own kind of call objects.
bool IsTrailersOnly(grpc::ClientContext& context) {
  class Reactor final : public grpc::internal::ClientReactor {
    void OnDone(const grpc::Status&) override {}
  };
  return Reactor().InternalTrailersOnly(context.c_call());
}

}  // namespace

void ClientStreamCall::Begin(const CallSpec& spec, const OutgoingMessage* request) {
  MutexLock lock(&mutex_);
  stream_ = channel_->stub.PrepareCall(&context_, std::string(spec.method), threads_->queue());
  if (request != nullptr) outbox_.Add(ToByteBuffer(*request));
  half_close_wanted_ = !spec.client_streams;
  if (request != nullptr) {
    // What is known already leaves together.
    context_.set_initial_metadata_corked(true);
    stream_->StartCall(nullptr);
    ContinueWriting();
  } else {
    writing_ = true;
    stream_->StartCall(write_.Begin());
  }
  stream_->ReadInitialMetadata(headers_.Begin());
}

// ---- Writing.

SendResult ClientStreamCall::Send(const OutgoingMessage& message, bool last) {
  {
    MutexLock lock(&mutex_);
    if (CannotSend()) return SendResult::kOver;
    if (!outbox_.HasRoom()) {
      sendable_wanted_ = true;
      return SendResult::kWait;
    }
  }
  grpc::ByteBuffer buffer = ToByteBuffer(message);  // not under the lock: it may be large
  MutexLock lock(&mutex_);
  if (CannotSend()) return SendResult::kOver;
  outbox_.Add(std::move(buffer));
  half_close_wanted_ = last;
  ContinueWriting();
  return SendResult::kSent;
}

void ClientStreamCall::HalfClose() {
  MutexLock lock(&mutex_);
  half_close_wanted_ = true;
  ContinueWriting();
}

void ClientStreamCall::ContinueWriting() {
  if (writing_ || half_closed_ || write_failed_ || IsOver()) return;
  if (!outbox_.empty()) {
    const grpc::ByteBuffer message = outbox_.Take();
    half_closed_ = outbox_.empty() && half_close_wanted_;
    grpc::WriteOptions options;
    if (half_closed_) options.set_last_message();
    writing_ = true;
    stream_->Write(message, options, write_.Begin());
  } else if (half_close_wanted_) {
    half_closed_ = true;
    writing_ = true;
    stream_->WritesDone(write_.Begin());
  }
}

void ClientStreamCall::OnWritten(bool ok) {
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) {
      write_failed_ = true;  // the status is on its way, but may wait behind messages
      outbox_.Clear();
    }
    ContinueWriting();
    if (sendable_wanted_ && outbox_.HasRoom()) {
      sendable_wanted_ = false;
      sendable_due_ = true;
    }
  }
  Wake(Where::kElsewhere);
}

// ---- Reading.

void ClientStreamCall::OnHeaders(bool ok) {
  {
    MutexLock lock(&mutex_);
    headers_read_ = true;
    headers_due_ = ok && !IsTrailersOnly(context_);
    stream_->Finish(&grpc_status_, finish_.Begin());
    ContinueReading();
  }
  Wake(Where::kElsewhere);
}

void ClientStreamCall::ContinueReading() {
  if (reading_ || !headers_read_ || no_more_messages_ || inbox_.size() >= kMessagesReadAhead) return;
  reading_ = true;
  stream_->Read(&read_buffer_, read_.Begin());
}

void ClientStreamCall::OnRead(bool ok) {
  {
    MutexLock lock(&mutex_);
    reading_ = false;
    no_more_messages_ = !ok;
    if (ok) {
      ReceivedBuffer message(&read_buffer_);
      if (!dropping_ && !IsOver()) inbox_.push_back(std::move(message));
    }
    ContinueReading();
  }
  Wake(Where::kElsewhere);
}

void ClientStreamCall::Receive() {
  const Keep keep(this);
  {
    MutexLock lock(&mutex_);
    wanted_ = true;
  }
  Wake(Where::kElsewhere);
}

void ClientStreamCall::TookMessage() {
  wanted_ = false;
  ContinueReading();
}

void ClientStreamCall::DropMessages() {
  const Keep keep(this);
  {
    MutexLock lock(&mutex_);
    DropAll();
  }
  Wake(Where::kElsewhere);
}

bool ClientStreamCall::DropAll() {
  const bool loses_messages = !dropping_ && (!inbox_.empty() || HoldsBack());
  dropping_ = true;
  inbox_.clear();
  ContinueReading();
  return loses_messages;
}

void ClientStreamCall::OnCancelled() { outbox_.Clear(); }

void ClientStreamCall::OnFinished(bool) {
  {
    MutexLock lock(&mutex_);
    Ended();
  }
  Wake(Where::kElsewhere);
}

}  // namespace shmrpc::grpc_transport
