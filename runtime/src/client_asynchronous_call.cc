#include "runtime/src/client_asynchronous_call.h"

#include <optional>

#include "absl/base/optimization.h"
#include "runtime/src/callback_threads.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {
void AsynchronousCall::Begin(const google::protobuf::MessageLite* request, bool request_outlives_call) {
  const internal::NoUserCodeHere in_a_call_of_the_users;
  absl::Status failure = AttachToContext();
  if (failure.ok() && !channel_->options().interceptors.empty() && !PassInterceptors(&failure)) {
    if (interception_->answered() && parameters_.kind != MethodKind::kUnary) {
      return StartAnswered(interception_->TakeAnswer(std::move(failure)));
    }
    return Finish(std::move(failure), Metadata());
  }
  if (failure.ok()) failure = parameters_.Check(*channel_);
  if (failure.ok() && request != nullptr && interception_ != nullptr) {
    const google::protobuf::MessageLite* const given = std::exchange(request, &interception_->Sending(*request));
    request_outlives_call = request_outlives_call || request != given;  // the interception keeps its copy
    parameters_.waited = true;
  }
  if (failure.ok() && request != nullptr) failure = parameters_.CheckRequest(*request);
  if (!failure.ok()) return Finish(std::move(failure), Metadata());
  const auto note_deadline = [this] {
    if (parameters_.has_deadline()) channel_->deadlines().Add(this, parameters_.deadline);
  };
  if (request == nullptr) {
    note_deadline();
    return StartOrWait(nullptr);
  }
  const OutgoingProto message(*request);
  failure = parameters_.CheckRequestSize(message.size());
  if (!failure.ok()) return Finish(std::move(failure), Metadata());
  if (request_outlives_call) {
    outliving_request_ = request;
  } else if (message.size() <= kMaxKeptRequestBytes) {
    kept_request_.Keep(message);
  }
  note_deadline();
  StartOrWait(kept_request_.kept() ? static_cast<const OutgoingMessage*>(&kept_request_) : &message);
}

bool AsynchronousCall::PassInterceptors(absl::Status* status) {
  interception_ = std::make_unique<ClientInterception>(parameters_, reply_.message());
  const bool passed = interception_->Begin(channel_->options().interceptors, status);
  parameters_.metadata = interception_->metadata_or_null();
  if (parameters_.kind == MethodKind::kUnary) interception_->FillInReply(&reply_, status);
  return passed;
}

// The channel keeps the connection that answers, as it does one that takes no more calls.
void AsynchronousCall::StartAnswered(internal::CallAnswer answer) {
  const auto connection = std::make_shared<EstablishedConnection>(
      std::make_unique<internal::AnsweredConnection>(std::move(answer)), Target());
  channel_->KeepForCall(connection);
  if (parameters_.has_deadline()) channel_->deadlines().Add(this, parameters_.deadline);
  Start(connection, nullptr);
}

// Without the lock: nobody else uses the context, and only once this is done somebody may know of the call.
absl::Status AsynchronousCall::AttachToContext() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (context_ == nullptr) return absl::OkStatus();
  absl::Status status = ClientCallAccess::Begin(context_, this);
  if (!status.ok()) context_ = nullptr;  // it is another call's
  return status;
}

void AsynchronousCall::StartOrWait(const OutgoingMessage* request) {
  ConnectionPtr connection;
  absl::Status failure;
  switch (channel_->CheckReadiness(parameters_.wait_for_ready, &connection, &failure)) {
    case ChannelImpl::Readiness::kReady:
      return Start(connection, request);
    case ChannelImpl::Readiness::kFailed:
      return NotConnected(std::move(failure));
    case ChannelImpl::Readiness::kMustWait:
      return Wait(request);
  }
}

void AsynchronousCall::StartAgain(const ConnectionPtr& connection) {
  const auto start = [&](const OutgoingMessage* request) {
    connection != nullptr ? Start(connection, request) : StartOrWait(request);
  };
  if (outliving_request_ != nullptr) {
    const OutgoingProto message(*outliving_request_);
    return start(&message);
  }
  start(kept_request_.kept() ? &kept_request_ : nullptr);
}

void AsynchronousCall::Wait(const OutgoingMessage* request) {
  parameters_.waited = true;
  if (request != nullptr && outliving_request_ == nullptr && !kept_request_.kept()) kept_request_.Keep(*request);
  if (parameters_.metadata != nullptr) {
    waiting_metadata_ = *parameters_.metadata;
    parameters_.metadata = &waiting_metadata_;
  }
  ConnectionPtr connection;
  absl::Status failure;
  ChannelImpl::Readiness readiness;
  absl::Status end;
  {
    // Under the lock, so that the connector thread finds the call in kWaiting.
    MutexLock lock(&mutex_);
    readiness = channel_->AddWaiter(shared_from_this(), parameters_.wait_for_ready, &connection, &failure);
    if (readiness == ChannelImpl::Readiness::kMustWait) {
      phase_ = Phase::kWaiting;
      end = end_;
    }
  }
  if (readiness == ChannelImpl::Readiness::kReady) {
    Start(connection, request);
  } else if (readiness == ChannelImpl::Readiness::kFailed) {
    NotConnected(std::move(failure));
  } else if (!end.ok()) {
    End(std::move(end));
  }
}

void AsynchronousCall::OnConnected(const ConnectionPtr& connection) {
  if (interception_ != nullptr && internal::NoUserCodeHere::IsSo()) {  // interceptors see what has waited to be sent
    return internal::CallbackThreads::Get().Run(
        [self = shared_from_this(), connection] { self->OnConnected(connection); });
  }
  if (!LeaveQueue()) return channel_->EndAsynchronousCall(*connection->load);
  StartAgain(connection);
  // It may be large, and was kept only until it could be sent.
  if (!CanSendAgain()) kept_request_.Drop();
}

void AsynchronousCall::OnNotConnected(absl::Status status) {
  if (LeaveQueue()) NotConnected(std::move(status));
}

// kWaiting or kPausing becomes kStarting, unless the call has ended there.
bool AsynchronousCall::LeaveQueue() {
  MutexLock lock(&mutex_);
  if (phase_ != Phase::kWaiting && phase_ != Phase::kPausing) return false;
  phase_ = Phase::kStarting;
  return true;
}

// In kStarting, on a connection in whose load the call is counted.
void AsynchronousCall::Start(const ConnectionPtr& connection, const OutgoingMessage* request) {
  load_ = connection->load;
  int attempt = 0;
  if (!parameters_.waited) {
    EnterFirstAttempt(*connection);
  } else if (!EnterAttempt(*connection, &attempt)) {
    channel_->EndAsynchronousCall(*load_);
    return Finish(RememberedEnd(), Metadata());
  }
  CallSpec spec = parameters_.ToSpec();
  spec.cancelled = &ended_early_;
  connection->connection->StartCall(spec, request, this, &call_);
  // From here on the context may be gone.
  absl::Status end;
  Call* call;
  {
    MutexLock lock(&mutex_);
    if (attempt_ != attempt || phase_ != Phase::kStarting) return;  // over already
    phase_ = Phase::kStarted;
    end = end_;
    call = call_.load(std::memory_order_relaxed);
  }
  if (end.ok()) {
    OnStarted(attempt, call);
  } else {
    call->Cancel(std::move(end));
  }
}

// Without the lock: Begin has yet to return, so the context does not go. Who ends the call now is heeded once the
// attempt is on its way.
void AsynchronousCall::EnterFirstAttempt(const EstablishedConnection& connection) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  self_ = shared_from_this();
  if (context_ != nullptr) ClientCallAccess::set_peer(context_, connection.peer);
}

bool AsynchronousCall::EnterAttempt(const EstablishedConnection& connection, int* attempt) {
  MutexLock lock(&mutex_);
  *attempt = attempt_;
  if (!end_.ok()) return false;
  self_ = shared_from_this();
  if (context_ != nullptr) ClientCallAccess::set_peer(context_, connection.peer);
  return true;
}

absl::Status AsynchronousCall::RememberedEnd() {
  MutexLock lock(&mutex_);
  return end_;
}

// ---- Further attempts.

bool AsynchronousCall::CanSendAgain() const {
  if (ClientStreams(parameters_.kind) || outliving_request_ != nullptr) return true;
  return kept_request_.kept() && kept_request_.size() <= kMaxKeptRequestBytes;
}

bool AsynchronousCall::Retry(AttemptEnd how, absl::Status* status) {
  if (!CanSendAgain()) return false;
  const std::optional<absl::Duration> pause =
      attempts_.NextAfter(how, *status, parameters_.retry_policy, channel_->retry_throttle());
  if (!pause.has_value()) return false;
  int attempt;
  {
    MutexLock lock(&mutex_);
    attempt = attempt_ + 1;
  }
  if (!PrepareForAttempt(attempt)) return false;
  parameters_.waited = true;
  {
    MutexLock lock(&mutex_);
    if (!end_.ok()) {
      *status = end_;
      return false;
    }
    // Now, while the context cannot go.
    parameters_.metadata = attempts_.KeepMetadata(parameters_.metadata);
    Call* const earlier = call_.exchange(nullptr);
    if (earlier != nullptr) earlier_calls_.push_back(earlier);
    attempt_ = attempt;
    phase_ = Phase::kStarting;
  }
  if (*pause > absl::ZeroDuration()) {
    Pause(*pause);
  } else {
    StartAgain(nullptr);
  }
  return true;
}

void AsynchronousCall::NotConnected(absl::Status status) {
  if (!Retry(AttemptEnd::kNotConnected, &status)) Finish(std::move(status), Metadata());
}

void AsynchronousCall::Pause(absl::Duration pause) {
  absl::Status end;
  bool pausing;
  {
    // Under the lock, so that whoever ends the pause finds the call in kPausing.
    MutexLock lock(&mutex_);
    end = channel_->AddPausing(shared_from_this());
    pausing = end.ok();
    if (pausing) {
      phase_ = Phase::kPausing;
      // To start a call may take a while, which the timer has not got.
      pause_timer_ = internal::DeadlineTimer::Get().Schedule(SteadyTime::Now() + pause, [self = shared_from_this()] {
        internal::CallbackThreads::Get().Run([self] { self->EndPause(); });
      });
      end = end_;
    }
  }
  if (!pausing) return Finish(std::move(end), Metadata());
  if (!end.ok()) End(std::move(end));
}

void AsynchronousCall::EndPause() {
  // Otherwise the channel has gone or the call has ended.
  if (channel_->RemoveWaiter(this) && LeaveQueue()) StartAgain(nullptr);
}

// ---- The end.

void AsynchronousCall::End(absl::Status status) {
  bool waiting = false;
  Call* call = nullptr;
  {
    MutexLock lock(&mutex_);
    switch (phase_) {
      case Phase::kEnded:
        return;
      case Phase::kStarting:
        end_.Update(status);  // the first one counts
        // StartCall sets call_ and then looks at ended_early_, before it waits for anything: one sees the other.
        ended_early_.store(true, std::memory_order_seq_cst);
        call = call_.load(std::memory_order_seq_cst);
        if (call == nullptr) return;
        break;
      case Phase::kWaiting:
      case Phase::kPausing:
        phase_ = Phase::kEnded;
        waiting = true;
        break;
      case Phase::kStarted:
        end_.Update(status);
        call = call_.load(std::memory_order_relaxed);
        break;
    }
  }
  if (waiting) {
    channel_->RemoveWaiter(this);
    Finish(std::move(status), Metadata());
  } else {
    call->Cancel(std::move(status));  // not released before this object goes
  }
}

void AsynchronousCall::Abandon(absl::Status status) {
  {
    MutexLock lock(&mutex_);
    if (context_ != nullptr) ClientCallAccess::End(context_);
    context_ = nullptr;
    end_.Update(status);  // with the context: a further attempt would need it
  }
  End(std::move(status));
}

void AsynchronousCall::OnHeaders(Metadata metadata) {
  if (interception_ != nullptr) interception_->ReceivedInitialMetadata(metadata);
  if (!metadata.empty()) {  // the context has none yet
    MutexLock lock(&mutex_);
    if (context_ != nullptr) ClientCallAccess::set_server_initial_metadata(context_, std::move(metadata));
  }
  OnInitialMetadata();
}

void AsynchronousCall::OnStatus(CallEnd end) {
  const std::shared_ptr<AsynchronousCall> self = std::move(self_);
  channel_->EndAsynchronousCall(*load_);
  if (ABSL_PREDICT_FALSE(end.not_processed)) {
    if (Retry(AttemptEnd::kNotProcessed, &end.status)) return;
  } else if (ABSL_PREDICT_FALSE(parameters_.retry_policy != nullptr)) {
    channel_->retry_throttle().Record(*parameters_.retry_policy, end.status);
  }
  Finish(std::move(end.status), std::move(end.trailing_metadata));
}

// On the one thread that has ended the call.
void AsynchronousCall::Finish(absl::Status status, Metadata trailing_metadata) {
  if (interception_ != nullptr && internal::NoUserCodeHere::IsSo()) {
    return internal::CallbackThreads::Get().Run(
        [self = shared_from_this(), status = std::move(status), trailing = std::move(trailing_metadata)]() mutable {
          self->Finish(std::move(status), std::move(trailing));
        });
  }
  if (!ServerStreams(parameters_.kind)) status = reply_.Conclude(std::move(status));
  if (interception_ != nullptr) status = interception_->Ended(std::move(status), trailing_metadata);
  internal::DeadlineTimer::Handle pause_timer;
  {
    MutexLock lock(&mutex_);
    phase_ = Phase::kEnded;
    pause_timer = pause_timer_;
    if (context_ != nullptr) {
      ClientCallAccess::set_server_trailing_metadata(context_, std::move(trailing_metadata));
      ClientCallAccess::End(context_);
      context_ = nullptr;
    }
  }
  if (parameters_.has_deadline()) channel_->deadlines().Remove(this);
  if (ABSL_PREDICT_FALSE(pause_timer.id != 0)) internal::DeadlineTimer::Get().Cancel(pause_timer);
  OnEnd(std::move(status));
}

}  // namespace shmrpc
