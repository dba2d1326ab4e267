#include "runtime/src/client_asynchronous_stream.h"

#include "runtime/src/client_reply.h"

namespace shmrpc {

AsynchronousStream::Outcome AsynchronousStream::Read(google::protobuf::MessageLite* message) {
  Call* call;
  {
    MutexLock lock(&stream_mutex_);
    if (ended_) return Outcome::kFailed;
    read_target_ = message;
    if (read_type_.load(std::memory_order_relaxed) == nullptr) {
      read_type_.store(internal::DescriptorOf(*message), std::memory_order_relaxed);
    }
    if (call_ == nullptr) return Outcome::kLater;
    call = call_;
  }
  call->Receive();
  return Outcome::kLater;
}

AsynchronousStream::Outcome AsynchronousStream::Write(const google::protobuf::MessageLite& message, bool last) {
  {
    MutexLock lock(&stream_mutex_);
    if (ended_ || half_closed_) return Outcome::kFailed;
    half_closed_ = last;
    write_message_ = &message;
    write_last_ = last;
    write_intercepted_ = false;
    writing_ = call_ != nullptr ? Writing::kSending : Writing::kQueued;
    if (call_ == nullptr) return Outcome::kLater;
    client_has_sent_ = true;
  }
  const Outcome outcome = Send();
  if (outcome == Outcome::kDone) HalfCloseIfQueued();
  return outcome;
}

AsynchronousStream::Outcome AsynchronousStream::HalfClose() {
  Call* call;
  {
    MutexLock lock(&stream_mutex_);
    if (ended_ || half_closed_) return Outcome::kFailed;
    half_closed_ = true;
    if (call_ == nullptr || writing_ != Writing::kNone) {
      half_close_queued_ = true;
      return Outcome::kLater;
    }
    client_has_sent_ = true;
    call = call_;
  }
  call->HalfClose();
  return Outcome::kDone;
}

void AsynchronousStream::DropMessages() {
  Call* call;
  {
    MutexLock lock(&stream_mutex_);
    if (ended_) return;
    drop_messages_ = true;
    if (call_ == nullptr) return;
    call = call_;
  }
  call->DropMessages();
}

bool AsynchronousStream::PrepareForAttempt(int attempt) {
  MutexLock lock(&stream_mutex_);
  if (client_has_sent_) return false;
  attempt_ = attempt;
  call_ = nullptr;
  return true;
}

void AsynchronousStream::OnStarted(int attempt, Call* call) {
  bool receive = false;
  bool drop = false;
  bool send = false;
  {
    MutexLock lock(&stream_mutex_);
    if (ended_ || attempt != attempt_) return;
    call_ = call;
    receive = read_target_ != nullptr;
    drop = drop_messages_;
    send = writing_ == Writing::kQueued;
    if (send) writing_ = Writing::kSending;
    if (send || half_close_queued_) client_has_sent_ = true;
  }
  // An answer may let go of the last other reference.
  const std::shared_ptr<AsynchronousCall> self = shared_from_this();
  if (receive) call->Receive();
  if (drop) call->DropMessages();
  if (send) {
    SendAndAnswer();
  } else {
    HalfCloseIfQueued();
  }
}

void AsynchronousStream::OnMessage(const IncomingMessage& message) {
  if (!ServerStreams(parameters().kind)) return AsynchronousCall::OnMessage(message);
  google::protobuf::MessageLite* target;
  {
    MutexLock lock(&stream_mutex_);
    target = std::exchange(read_target_, nullptr);
  }
  absl::Status status = ParseReply(parameters().method, message, target);
  if (status.ok()) {
    if (interception() != nullptr) interception()->Received(target);
    return OnReadDone(true);
  }
  const std::shared_ptr<AsynchronousCall> self = shared_from_this();  // the call may end inside End
  End(std::move(status));
  OnReadDone(false);
}

void AsynchronousStream::OnSendable() {
  {
    MutexLock lock(&stream_mutex_);
    if (writing_ == Writing::kSending) {
      sendable_ = true;
      return;
    }
    if (writing_ != Writing::kBlocked) return;
    writing_ = Writing::kSending;
  }
  const std::shared_ptr<AsynchronousCall> self = shared_from_this();
  SendAndAnswer();
}

// In kSending, which it leaves.
AsynchronousStream::Outcome AsynchronousStream::Send() {
  if (interception() != nullptr && !std::exchange(write_intercepted_, true)) {
    write_message_ = &interception()->Sending(*write_message_);
  }
  absl::Status error = parameters().CheckRequest(*write_message_);
  if (error.ok()) {
    const OutgoingProto outgoing(*write_message_);
    error = parameters().CheckRequestSize(outgoing.size());
    Call* call;  // the only one: once something is sent there is no other attempt
    {
      MutexLock lock(&stream_mutex_);
      call = call_;
    }
    while (error.ok()) {
      const SendResult result = call->Send(outgoing, write_last_);
      MutexLock lock(&stream_mutex_);
      if (result == SendResult::kWait && !ended_) {
        if (std::exchange(sendable_, false)) continue;
        writing_ = Writing::kBlocked;
        return Outcome::kLater;
      }
      writing_ = Writing::kNone;
      return result == SendResult::kSent ? Outcome::kDone : Outcome::kFailed;
    }
  }
  {
    MutexLock lock(&stream_mutex_);
    writing_ = Writing::kNone;
  }
  End(std::move(error));
  return Outcome::kFailed;
}

void AsynchronousStream::SendAndAnswer() {
  const Outcome outcome = Send();
  if (outcome == Outcome::kLater) return;
  OnWriteDone(outcome == Outcome::kDone);
  if (outcome == Outcome::kDone) HalfCloseIfQueued();
}

void AsynchronousStream::HalfCloseIfQueued() {
  Call* call;
  {
    MutexLock lock(&stream_mutex_);
    if (writing_ != Writing::kNone || !std::exchange(half_close_queued_, false)) return;
    call = call_;
  }
  call->HalfClose();
  OnHalfCloseDone(true);
}

void AsynchronousStream::OnEnd(absl::Status status) {
  bool read = false;
  bool write = false;
  bool half_close = false;
  {
    MutexLock lock(&stream_mutex_);
    ended_ = true;
    read = std::exchange(read_target_, nullptr) != nullptr;
    write = writing_ == Writing::kQueued || writing_ == Writing::kBlocked;
    if (write) writing_ = Writing::kNone;
    half_close = std::exchange(half_close_queued_, false);
  }
  if (read) OnReadDone(false);
  if (write) OnWriteDone(false);
  if (half_close) OnHalfCloseDone(false);
  OnStreamEnd(std::move(status));
}

}  // namespace shmrpc
