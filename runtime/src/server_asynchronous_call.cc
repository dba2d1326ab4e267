#include "runtime/src/server_asynchronous_call.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/log.h"
#include "runtime/src/misuse.h"
#include "runtime/src/running_handlers.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {
namespace {

std::string CopyBytes(const IncomingMessage& message) {
  std::string bytes;
  bytes.reserve(message.size());
  for (std::string_view piece : message.pieces()) absl::StrAppend(&bytes, ToAbsl(piece));
  return bytes;
}

}  // namespace

ServerAsynchronousCall::ServerAsynchronousCall(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call)
    : calls_(calls),
      method_(method),
      owned_call_(std::move(call)),
      call_(owned_call_.get()),
      context_(call_, this),
      interception_(*calls, *method.method, &context_) {
  const ServiceMethod& description = *method_.method;
  if (!ClientStreams(description.kind)) request_.reset(description.request_prototype().New());
  if (!ServerStreams(description.kind)) reply_.reset(description.reply_prototype().New());
  method_.asynchronous->Begin();
}

void ServerAsynchronousCall::Begin(const IncomingMessage* request) {
  const bool awaits_request = request_ != nullptr && request == nullptr;
  absl::Status failure = interception_.Begin();
  if (failure.ok() && request_ != nullptr && request != nullptr) failure = Parse(*request, request_.get());
  {
    MutexLock lock(&mutex_);
    if (awaits_request) {
      phase_ = Phase::kAwaitingRequest;
    } else if (failure.ok()) {
      due_ |= kStart;
    }
    if (request_ == nullptr && request != nullptr) only_message_ = CopyBytes(*request);
  }
  call_->Start(this);
  if (call_->deadline() != SteadyTime::InfiniteFuture()) {
    timer_ = DeadlineTimer::Get().Schedule(call_->deadline(),  // no user code on the timer's thread: see Do
                                           [this] { Cancel(DeadlineBeforeHandler(), Where::kElsewhere); });
  }
  if (!failure.ok()) {
    Finish(std::move(failure), nullptr);
  } else if (awaits_request) {
    Receive();
  }
  RunReactions();
}

// ---- What the user asks for.

bool ServerAsynchronousCall::StartRead(google::protobuf::MessageLite* message, Answer answer) {
  std::optional<std::string> only_message;
  bool over = false;
  bool second = false;
  Duty duty;
  {
    MutexLock lock(&mutex_);
    second = read_target_ != nullptr || (due_ & kReadDone) != 0;
    over = !second && (IsOver() || half_closed_);
    if (over) {
      if (answer == Answer::kReturned) return false;
      read_ok_ = false;
      due_ |= kReadDone;
      duty = TakeDuty();
    } else if (second) {
      // Below, without the lock.
    } else if (only_message_.has_value()) {
      only_message.swap(only_message_);
      half_closed_ = true;
      ++holds_;
    } else {
      read_target_ = message;
    }
  }
  if (over) {
    Do(duty, Where::kElsewhere);
    return true;
  }
  if (second) {
    FailForMisuse("a read was started while another one is under way");
    return false;
  }
  if (only_message.has_value()) return ReadOnlyMessage(*only_message, message, answer);
  Receive();
  return true;
}

bool ServerAsynchronousCall::ReadOnlyMessage(const std::string& bytes, google::protobuf::MessageLite* target,
                                             Answer answer) {
  const std::string_view piece = bytes;
  absl::Status failure = Parse(IncomingMessage(std::span(&piece, piece.empty() ? 0 : 1)), target);
  const bool ok = failure.ok();
  Duty duty;
  {
    MutexLock lock(&mutex_);
    failure_.Update(std::move(failure));
    --holds_;
    if (ok || answer == Answer::kReaction) {
      read_ok_ = ok;
      due_ |= kReadDone;
    }
    duty = TakeDuty();
  }
  Do(duty, Where::kElsewhere);
  return ok || answer == Answer::kReaction;
}

void ServerAsynchronousCall::Receive() {
  {
    MutexLock lock(&mutex_);
    if (finish_taken_) return;
    ++holds_;
  }
  call_->Receive();
  Duty duty;
  {
    MutexLock lock(&mutex_);
    --holds_;
    duty = TakeDuty();
  }
  Do(duty, Where::kElsewhere);
}

SendResult ServerAsynchronousCall::StartWrite(const google::protobuf::MessageLite* message, Answer answer) {
  bool over = false;
  bool second = false;
  {
    MutexLock lock(&mutex_);
    second = write_state_ != WriteState::kNone || (due_ & kWriteDone) != 0;
    if (!second) ++holds_;
    over = IsOver();
    if (!over && !second) {
      write_state_ = WriteState::kSending;
      write_message_ = message;
    }
  }
  if (second) {
    FailForMisuse("a write was started while another one is under way");
    return SendResult::kOver;
  }
  absl::Status failure;
  SendResult result = SendResult::kOver;
  if (!over) {
    failure = CheckReply(*calls_, *method_.method, *message, OutgoingProto(*message));
    failure.Update(internal::SendInitialMetadata(call_, *method_.method, &context_, /*ahead_of_message=*/true));
    if (failure.ok()) {
      interception_.Sending(*message);
      result = Send(*message);
    }
  }
  EndSend(result, std::move(failure), answer, Where::kElsewhere);
  return result;
}

SendResult ServerAsynchronousCall::Send(const google::protobuf::MessageLite& message) {
  const OutgoingProto outgoing(message);
  for (;;) {
    const SendResult result = call_->Send(outgoing);
    if (result != SendResult::kWait) return result;
    MutexLock lock(&mutex_);
    if (cancelled_ || (finish_requested_ && !finish_status_.ok())) return SendResult::kOver;
    if (!sendable_early_) {
      write_state_ = WriteState::kWaiting;
      return SendResult::kWait;
    }
    sendable_early_ = false;
  }
}

void ServerAsynchronousCall::EndSend(SendResult result, absl::Status failure, Answer answer, Where where) {
  Duty duty;
  {
    MutexLock lock(&mutex_);
    failure_.Update(std::move(failure));
    --holds_;
    if (result != SendResult::kWait) {
      write_state_ = WriteState::kNone;
      write_ok_ = result == SendResult::kSent;
      if (answer == Answer::kReaction) due_ |= kWriteDone;
    }
    duty = TakeDuty();
  }
  Do(duty, where);
}

void ServerAsynchronousCall::StartSendInitialMetadata(Answer answer) {
  bool over = false;
  {
    MutexLock lock(&mutex_);
    over = IsOver();
    ++holds_;
  }
  absl::Status failure;
  if (!over) failure = SendInitialMetadata(call_, *method_.method, &context_, /*ahead_of_message=*/false);
  Duty duty;
  {
    MutexLock lock(&mutex_);
    --holds_;
    if (answer == Answer::kReaction) {
      initial_metadata_ok_ = !over && failure.ok();
      due_ |= kInitialMetadataDone;
    }
    failure_.Update(std::move(failure));
    duty = TakeDuty();
  }
  Do(duty, Where::kElsewhere);
}

// The operation is not answered; the call ends at once, for its client too.
void ServerAsynchronousCall::FailForMisuse(std::string_view what) {
  const absl::Status misuse = Misuse(absl::StrCat(ToAbsl(what), " in a call of ", method_.method->path,
                                                  ": one at a time, after the answer to the last"));
  Finish(absl::InternalError(misuse.message()), nullptr);
}

void ServerAsynchronousCall::Finish(absl::Status status, const google::protobuf::MessageLite* last_message) {
  cancellation_.Clear(/*wait=*/false, /*for_good=*/true);
  std::shared_ptr<CancellationScope> scope;
  Duty duty;
  {
    MutexLock lock(&mutex_);
    if (finish_requested_) return;
    finish_requested_ = true;
    finish_status_ = std::move(status);
    last_message_ = last_message;
    due_ &= ~kCancel;
    FailRead();
    if (!finish_status_.ok()) FailWaitingWrite();
    scope = scope_;
    duty = TakeDuty();
  }
  if (scope != nullptr) scope->End();
  Do(duty, Where::kElsewhere);
}

std::shared_ptr<CancellationScope> ServerAsynchronousCall::cancellation_scope() {
  std::shared_ptr<CancellationScope> scope;
  bool over = false;
  {
    MutexLock lock(&mutex_);
    if (scope_ == nullptr) scope_ = std::make_shared<CancellationScope>();
    scope = scope_;
    over = cancelled_ || finish_requested_;
  }
  if (over) scope->End();
  return scope;
}

std::stop_token ServerAsynchronousCall::stop_token() {
  bool late = false;
  std::stop_source source(std::nostopstate);
  {
    MutexLock lock(&mutex_);
    if (!stop_source_.has_value()) {
      stop_source_.emplace();
      late = cancelled_;
    }
    source = *stop_source_;
  }
  // Otherwise nobody listens yet: nothing runs here.
  if (late) source.request_stop();
  return source.get_token();
}

void ServerAsynchronousCall::RequestStop() {
  std::stop_source source(std::nostopstate);
  {
    MutexLock lock(&mutex_);
    if (!stop_source_.has_value()) return;
    source = *stop_source_;
  }
  source.request_stop();
}

void ServerAsynchronousCall::SetCancellationCallback(absl::AnyInvocable<void()> callback) {
  {
    MutexLock lock(&mutex_);
    if (finish_requested_) return;
    ++holds_;
  }
  // The deadline may have passed without the timer's having noticed.
  if (call_->IsCancelled()) cancellation_.Cancel();
  cancellation_.Set(std::move(callback));
  Duty duty;
  {
    MutexLock lock(&mutex_);
    --holds_;
    duty = TakeDuty();
  }
  Do(duty, Where::kElsewhere);
}

// ---- What the transport says.

absl::Status ServerAsynchronousCall::Parse(const IncomingMessage& message, google::protobuf::MessageLite* target) {
  absl::Status status = ParseRequest(*method_.method, message, target);
  if (status.ok()) interception_.Received(*target);
  return status;
}

void ServerAsynchronousCall::OnMessage(const IncomingMessage& message) {
  google::protobuf::MessageLite* target = nullptr;
  Phase phase;
  {
    MutexLock lock(&mutex_);
    phase = phase_;
    std::swap(target, read_target_);
  }
  if (phase == Phase::kAwaitingRequest) return OnOnlyRequest(message);
  if (phase == Phase::kAwaitingHalfClose) return Finish(SecondRequest(*method_.method), nullptr);
  if (target == nullptr) return;  // the read has failed meanwhile
  absl::Status failure = Parse(message, target);
  Duty duty;
  {
    MutexLock lock(&mutex_);
    read_ok_ = failure.ok();
    failure_.Update(std::move(failure));
    due_ |= kReadDone;
    duty = TakeDuty();
  }
  Do(duty, Where::kHere);
}

void ServerAsynchronousCall::OnOnlyRequest(const IncomingMessage& message) {
  absl::Status failure = Parse(message, request_.get());
  if (!failure.ok()) return Finish(std::move(failure), nullptr);
  {
    MutexLock lock(&mutex_);
    phase_ = Phase::kAwaitingHalfClose;
  }
  Receive();
}

void ServerAsynchronousCall::OnHalfClose() {
  bool lacks_request = false;
  Duty duty;
  {
    MutexLock lock(&mutex_);
    half_closed_ = true;
    lacks_request = phase_ == Phase::kAwaitingRequest;
    if (phase_ == Phase::kAwaitingHalfClose && !finish_requested_) {
      phase_ = Phase::kRunning;
      due_ |= kStart;
    }
    FailRead();
    duty = TakeDuty();
  }
  if (lacks_request) return Finish(NoRequest(*method_.method), nullptr);
  Do(duty, Where::kHere);
}

void ServerAsynchronousCall::OnSendable() {
  const google::protobuf::MessageLite* message;
  {
    MutexLock lock(&mutex_);
    if (write_state_ == WriteState::kSending) sendable_early_ = true;
    if (write_state_ != WriteState::kWaiting) return;
    write_state_ = WriteState::kSending;
    message = write_message_;
    ++holds_;
  }
  EndSend(Send(*message), absl::OkStatus(), Answer::kReaction, Where::kHere);
}

void ServerAsynchronousCall::OnCancelled() {
  Cancel(absl::CancelledError("the call was cancelled before its request had come; the handler did not run"),
         Where::kHere);
}

void ServerAsynchronousCall::Cancel(absl::Status status, Where where) {
  std::shared_ptr<CancellationScope> scope;
  Duty duty;
  {
    MutexLock lock(&mutex_);
    if (cancelled_) return;
    cancelled_ = true;
    cancellation_.Cancel();
    FailRead();
    FailWaitingWrite();
    if (phase_ == Phase::kRunning) {
      if (!finish_requested_) due_ |= kCancel;
    } else if (!finish_requested_) {
      finish_requested_ = true;
      finish_status_ = std::move(status);
    }
    scope = scope_;
    duty = TakeDuty();
  }
  if (scope != nullptr) scope->End();  // not as a reaction: one of those may be waiting for a call of the scope
  Do(duty, where);
}

void ServerAsynchronousCall::OnDone() {
  Where where;
  Duty duty;
  {
    MutexLock lock(&mutex_);
    // From inside Finish, which the user may have called, and with a lock held.
    where = finishing_on_ == std::this_thread::get_id() ? Where::kElsewhere : Where::kHere;
    due_ |= kDone;
    duty = TakeDuty();
  }
  Do(duty, where);
}

void ServerAsynchronousCall::FailRead() {
  if (read_target_ == nullptr) return;
  read_target_ = nullptr;
  read_ok_ = false;
  due_ |= kReadDone;
}

void ServerAsynchronousCall::FailWaitingWrite() {
  if (write_state_ != WriteState::kWaiting) return;
  write_state_ = WriteState::kNone;
  write_ok_ = false;
  due_ |= kWriteDone;
}

// ---- Duties.

ServerAsynchronousCall::Duty ServerAsynchronousCall::TakeDuty() {
  Duty duty;
  if (finish_requested_ && !finish_taken_ && holds_ == 0 && write_state_ == WriteState::kNone) {
    duty.finish = finish_taken_ = true;
  }
  if (due_ != 0 && !reacting_) duty.run_reactions = reacting_ = true;
  return duty;
}

void ServerAsynchronousCall::Do(Duty duty, Where where) {
  if (NoUserCodeHere::IsSo() && (duty.finish || duty.run_reactions)) {  // interceptors hear of the end, and it may wait
    return CallbackThreads::Get().Run([this, duty] { Do(duty, Where::kHere); });
  }
  if (duty.finish) SendFinish();
  // From here on this object may be gone, unless this thread is the one to run reactions.
  if (!duty.run_reactions) return;
  if (where == Where::kHere) return RunReactions();
  CallbackThreads::Get().Run([this] { RunReactions(); });
}

void ServerAsynchronousCall::SendFinish() {
  absl::Status status;
  const google::protobuf::MessageLite* message = reply_.get();
  {
    MutexLock lock(&mutex_);
    finishing_on_ = std::this_thread::get_id();
    status = failure_.ok() ? std::move(finish_status_) : failure_;
    if (last_message_ != nullptr) message = last_message_;
  }
  status = interception_.Ended(*call_, std::move(status), message);
  FinishServerCall(calls_, std::move(owned_call_), *method_.method, context_, std::move(status), message);
}

void ServerAsynchronousCall::RunReactions() {
  const HandlerScope in_a_reaction(&method_);
  for (Due reaction = 0;;) {
    bool ok = false;
    {
      MutexLock lock(&mutex_);
      if (due_ == 0) {
        reacting_ = false;
        return;
      }
      reaction = Next(due_, reaction);
      due_ &= ~reaction;
      if (reaction == kInitialMetadataDone) ok = initial_metadata_ok_;
      if (reaction == kReadDone) ok = read_ok_;
      if (reaction == kWriteDone) ok = write_ok_;
    }
    if (reaction == kDone) return End();
    absl::Status status = RunGuarded(method_.method->path, [&] {
      React(reaction, ok);
      return absl::OkStatus();
    });
    if (!status.ok()) Finish(std::move(status), nullptr);
  }
}

// In turn, so that none keeps the others waiting for ever; kDone when there is nothing else.
ServerAsynchronousCall::Due ServerAsynchronousCall::Next(Due due, Due previous) {
  if (due == kDone) return kDone;
  due &= ~kDone;
  const Due later = previous == 0 ? 0 : due & ~(2 * previous - 1);
  if (later != 0) due = later;
  return due & -due;
}

void ServerAsynchronousCall::React(Due reaction, bool ok) {
  switch (reaction) {
    case kStart:
      return OnStart();
    case kInitialMetadataDone:
      return OnInitialMetadataDone(ok);
    case kReadDone:
      return OnReadDone(ok);
    case kWriteDone:
      return OnWriteDone(ok);
    case kCancel:
      cancellation_.Run();
      RequestStop();
      return OnCancel();
  }
}

void ServerAsynchronousCall::End() {
  DeadlineTimer::Get().Cancel(timer_);
  const absl::Status status = RunGuarded(method_.method->path, [this] {
    OnFinished();
    return absl::OkStatus();
  });
  if (!status.ok()) {
    static LogLimiter limiter;
    LogWarningLimited(limiter, absl::StrCat("too late to tell the client: ", status.message()));
  }
  AsynchronousCalls* const calls = method_.asynchronous;
  delete this;
  calls->End();
}

}  // namespace shmrpc::internal
