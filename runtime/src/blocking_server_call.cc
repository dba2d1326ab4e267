#include "runtime/src/blocking_server_call.h"

#include <utility>

#include "runtime/src/callback_threads.h"
#include "runtime/src/server_call.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {

void BlockingServerCall::Unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void BlockingServerCall::Start() {
  if (started_.exchange(true)) return;
  references_.fetch_add(1, std::memory_order_relaxed);
  call_->Start(this);
}

absl::Status BlockingServerCall::End() {
  DeadlineTimer::Handle timer;
  {
    MutexLock lock(&mutex_);
    timer = timer_;
  }
  if (DeadlineTimer::Get().Cancel(timer)) Unref();
  cancellation_.Clear(/*wait=*/true, /*for_good=*/true);
  EndScope();
  absl::Status status = failure();
  Unref();
  return status;
}

absl::Status BlockingServerCall::ReceiveOnlyRequest(google::protobuf::MessageLite* request) {
  ReadState state = ReadNext(request);
  if (state == ReadState::kHalfClosed) return NoRequest(*method_);
  if (state == ReadState::kMessage) {
    state = ReadNext(nullptr);
    if (state == ReadState::kHalfClosed) return absl::OkStatus();
    if (state == ReadState::kMessage) return SecondRequest(*method_);
  }
  absl::Status status = failure();
  return status.ok() ? EndedBeforeHandler(*call_) : status;
}

bool BlockingServerCall::Read(google::protobuf::MessageLite* message) {
  if (no_more_messages_ || IsOver()) return false;
  if (only_message_ != nullptr) {
    no_more_messages_ = true;  // the client has half-closed with it
    if (!ReadOnlyMessage(message)) return false;
  } else if (ReadNext(message) != ReadState::kMessage) {
    no_more_messages_ = true;
    return false;
  }
  interception_->Received(*message);
  return true;
}

bool BlockingServerCall::ReadOnlyMessage(google::protobuf::MessageLite* message) {
  absl::Status status = ParseRequest(*method_, *only_message_, message);
  if (status.ok()) return true;
  Fail(std::move(status));
  return false;
}

BlockingServerCall::ReadState BlockingServerCall::ReadNext(google::protobuf::MessageLite* message) {
  read_target_ = message;
  read_state_.store(ReadState::kAsked, std::memory_order_release);
  call_->Receive();
  const auto answered = [this] { return read_state_.load(std::memory_order_acquire) > ReadState::kAbandoned; };
  const auto answered_or_cancelled = [&] { return answered() || cancelled_.load(std::memory_order_acquire); };
  call_->WaitUntil(answered_or_cancelled, call_->deadline());
  ReadState state = ReadState::kAsked;
  if (read_state_.compare_exchange_strong(state, ReadState::kAbandoned, std::memory_order_acq_rel)) {
    return ReadState::kAbandoned;
  }
  // Too late to give up: the message is being written to.
  if (state == ReadState::kReading) call_->WaitUntil(answered, SteadyTime::InfiniteFuture());
  return read_state_.load(std::memory_order_acquire);
}

void BlockingServerCall::OnMessage(const IncomingMessage& message) {
  ReadState state = ReadState::kAsked;
  if (!read_state_.compare_exchange_strong(state, ReadState::kReading, std::memory_order_acq_rel)) return;
  state = ReadState::kMessage;
  if (read_target_ != nullptr) {
    absl::Status status = ParseRequest(*method_, message, read_target_);
    if (!status.ok()) {
      Fail(std::move(status));
      state = ReadState::kUnusable;
    }
  }
  read_state_.store(state, std::memory_order_release);
}

void BlockingServerCall::OnHalfClose() {
  ReadState state = ReadState::kAsked;
  read_state_.compare_exchange_strong(state, ReadState::kHalfClosed, std::memory_order_acq_rel);
}

bool BlockingServerCall::Write(const google::protobuf::MessageLite& message) {
  if (IsOver()) return false;
  const OutgoingProto outgoing(message);
  absl::Status status = CheckReply(*calls_, *method_, message, outgoing);
  status.Update(internal::SendInitialMetadata(call_, *method_, context_, /*ahead_of_message=*/true));
  if (!status.ok()) {
    Fail(std::move(status));
    return false;
  }
  interception_->Sending(message);
  for (;;) {
    const SendResult result = call_->Send(outgoing);
    if (result != SendResult::kWait) return result == SendResult::kSent;
    const auto sendable_or_cancelled = [this] {
      return sendable_.load(std::memory_order_acquire) || cancelled_.load(std::memory_order_acquire);
    };
    if (!call_->WaitUntil(sendable_or_cancelled, call_->deadline()) || IsOver()) return false;
    sendable_.store(false, std::memory_order_relaxed);  // OnSendable comes once for each kWait
  }
}

void BlockingServerCall::SendInitialMetadata() {
  if (IsOver()) return;
  absl::Status status = internal::SendInitialMetadata(call_, *method_, context_, /*ahead_of_message=*/false);
  if (!status.ok()) Fail(std::move(status));
}

bool BlockingServerCall::IsOver() const {
  return failed_.load(std::memory_order_acquire) || cancelled_.load(std::memory_order_acquire) ||
         call_->deadline().HasPassed();
}

void BlockingServerCall::Fail(absl::Status status) {
  MutexLock lock(&mutex_);
  failure_.Update(std::move(status));
  failed_.store(true, std::memory_order_release);
}

absl::Status BlockingServerCall::failure() {
  MutexLock lock(&mutex_);
  return failure_;
}

void BlockingServerCall::SetCancellationCallback(absl::AnyInvocable<void()> callback) {
  if (call_->IsCancelled()) cancellation_.Cancel();
  cancellation_.Set(std::move(callback));
  WatchCancellation();
}

std::shared_ptr<CancellationScope> BlockingServerCall::cancellation_scope() {
  std::shared_ptr<CancellationScope> scope;
  {
    MutexLock lock(&mutex_);
    if (scope_ == nullptr) scope_ = std::make_shared<CancellationScope>();
    scope = scope_;
  }
  if (call_->IsCancelled()) scope->End();
  WatchCancellation();
  return scope;
}

std::stop_token BlockingServerCall::stop_token() {
  std::stop_source source;
  bool first = false;
  {
    MutexLock lock(&mutex_);
    first = !stop_source_.has_value();
    if (first) stop_source_ = source;
    source = *stop_source_;
  }
  if (first && call_->IsCancelled()) source.request_stop();  // nobody listens yet: nothing runs here
  WatchCancellation();
  return source.get_token();
}

void BlockingServerCall::WatchCancellation() {
  Start();
  if (call_->deadline() == SteadyTime::InfiniteFuture()) return;
  MutexLock lock(&mutex_);
  if (timer_.id != 0) return;
  references_.fetch_add(1, std::memory_order_relaxed);
  timer_ = DeadlineTimer::Get().Schedule(call_->deadline(), [this] {
    TellOfCancellation();
    Unref();
  });
}

void BlockingServerCall::OnCancelled() {
  cancelled_.store(true, std::memory_order_release);
  TellOfCancellation();
}

void BlockingServerCall::EndScope() {
  std::shared_ptr<CancellationScope> scope;
  {
    MutexLock lock(&mutex_);
    scope = scope_;
  }
  if (scope != nullptr) scope->End();
}

void BlockingServerCall::TellOfCancellation() {
  EndScope();
  std::stop_source stop_source(std::nostopstate);
  {
    MutexLock lock(&mutex_);
    if (stop_source_.has_value()) stop_source = *stop_source_;
  }
  if (!cancellation_.Cancel() && !stop_source.stop_possible()) return;
  references_.fetch_add(1, std::memory_order_relaxed);
  CallbackThreads::Get().Run([this, stop_source = std::move(stop_source)]() mutable {
    cancellation_.Run();
    stop_source.request_stop();
    Unref();
  });
}

}  // namespace shmrpc::internal
