#include "runtime/src/client_asynchronous_call.h"

#include <algorithm>
#include <string>

#include "google/protobuf/io/coded_stream.h"

namespace shmrpc {
namespace {

// A request that had to be serialised before it is known which connection it goes to.
class SerializedRequest final : public OutgoingMessage {
 public:
  explicit SerializedRequest(const OutgoingMessage& message) : bytes_(message.size(), '\0') {
    message.SerializeToArray(reinterpret_cast<uint8_t*>(bytes_.data()));
  }

  size_t size() const override { return bytes_.size(); }
  void SerializeToArray(uint8_t* target) const override { std::copy(bytes_.begin(), bytes_.end(), target); }
  bool SerializeToStream(google::protobuf::io::ZeroCopyOutputStream* stream) const override {
    google::protobuf::io::CodedOutputStream coded(stream);
    coded.WriteRaw(bytes_.data(), static_cast<int>(bytes_.size()));
    return !coded.HadError();
  }

 private:
  std::string bytes_;
};

}  // namespace

void AsynchronousCall::Begin(const google::protobuf::MessageLite* request) {
  absl::Status failure = AttachToContext();
  if (failure.ok() && !channel_->options().interceptors.empty() && !PassInterceptors(&failure)) {
    return Finish(std::move(failure), Metadata());
  }
  if (failure.ok()) failure = parameters_.Check(*channel_);
  if (failure.ok() && request != nullptr) failure = parameters_.CheckRequest(*request);
  if (!failure.ok()) return Finish(std::move(failure), Metadata());
  if (request == nullptr) return StartOrWait(nullptr);
  const OutgoingProto message(*request);
  failure = parameters_.CheckRequestSize(message.size());
  if (!failure.ok()) return Finish(std::move(failure), Metadata());
  if (interception_ != nullptr) interception_->Sending(*request);
  StartOrWait(&message);
}

bool AsynchronousCall::PassInterceptors(absl::Status* status) {
  interception_ = std::make_unique<ClientInterception>(parameters_, reply_.message());
  const bool passed = interception_->Begin(channel_->options().interceptors, status);
  parameters_.metadata = interception_->metadata_or_null();
  if (interception_->replied()) reply_.OnFilledIn();
  return passed;
}

absl::Status AsynchronousCall::AttachToContext() {
  MutexLock lock(&mutex_);
  if (context_ == nullptr) return absl::OkStatus();
  absl::Status status = ClientCallAccess::BeginAsynchronous(context_, shared_from_this());
  if (!status.ok()) context_ = nullptr;  // it is another call's
  return status;
}

void AsynchronousCall::StartOrWait(const OutgoingMessage* request) {
  if (parameters_.has_deadline()) {
    // Under the lock, so that the timer cannot find the call without its handle.
    MutexLock lock(&mutex_);
    timer_ = internal::DeadlineTimer::Get().Schedule(
        parameters_.deadline, [self = shared_from_this()] { self->End(self->parameters_.TooLate()); });
  }
  ConnectionPtr connection;
  absl::Status failure;
  switch (channel_->CheckReadiness(parameters_.wait_for_ready, &connection, &failure)) {
    case ChannelImpl::Readiness::kReady:
      return Start(connection, request);
    case ChannelImpl::Readiness::kFailed:
      return Finish(std::move(failure), Metadata());
    case ChannelImpl::Readiness::kMustWait:
      return Wait(request);
  }
}

void AsynchronousCall::Wait(const OutgoingMessage* request) {
  if (request != nullptr) waiting_request_ = std::make_unique<SerializedRequest>(*request);
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
    Finish(std::move(failure), Metadata());
  } else if (!end.ok()) {
    End(std::move(end));
  }
}

void AsynchronousCall::OnConnected(const ConnectionPtr& connection) {
  if (!LeaveQueue()) return channel_->EndAsynchronousCall(*connection->load);
  // The request may be large: it is dropped when it has been sent.
  const std::unique_ptr<OutgoingMessage> request = std::move(waiting_request_);
  Start(connection, request.get());
}

void AsynchronousCall::OnNotConnected(absl::Status status) {
  if (LeaveQueue()) Finish(std::move(status), Metadata());
}

// kWaiting becomes kStarting, unless the call has ended there.
bool AsynchronousCall::LeaveQueue() {
  MutexLock lock(&mutex_);
  if (phase_ != Phase::kWaiting) return false;
  phase_ = Phase::kStarting;
  return true;
}

// In kStarting, on a connection in whose load the call is counted.
void AsynchronousCall::Start(const ConnectionPtr& connection, const OutgoingMessage* request) {
  load_ = connection->load;
  {
    MutexLock lock(&mutex_);
    if (end_.ok()) {
      self_ = shared_from_this();
      if (context_ != nullptr) ClientCallAccess::set_peer(context_, connection->peer);
    }
  }
  if (self_ == nullptr) {
    channel_->EndAsynchronousCall(*load_);
    return Finish(RememberedEnd(), Metadata());
  }
  connection->connection->StartCall(parameters_.ToSpec(), request, this, &call_);
  // From here on the context may be gone.
  absl::Status end;
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kStarting) return;  // over already
    phase_ = Phase::kStarted;
    end = end_;
  }
  if (end.ok()) {
    OnStarted();
  } else {
    call_->Cancel(std::move(end));
  }
}

absl::Status AsynchronousCall::RememberedEnd() {
  MutexLock lock(&mutex_);
  return end_;
}

void AsynchronousCall::End(absl::Status status) {
  bool waiting = false;
  {
    MutexLock lock(&mutex_);
    switch (phase_) {
      case Phase::kEnded:
        return;
      case Phase::kStarting:
        end_.Update(std::move(status));  // the first one counts
        return;
      case Phase::kWaiting:
        phase_ = Phase::kEnded;
        waiting = true;
        break;
      case Phase::kStarted:
        break;
    }
  }
  if (waiting) {
    channel_->RemoveWaiter(this);
    Finish(std::move(status), Metadata());
  } else {
    call_->Cancel(std::move(status));  // not released before this object goes
  }
}

void AsynchronousCall::Abandon(absl::Status status) {
  {
    MutexLock lock(&mutex_);
    if (context_ != nullptr) ClientCallAccess::End(context_);
    context_ = nullptr;
  }
  End(std::move(status));
}

void AsynchronousCall::OnHeaders(Metadata metadata) {
  if (interception_ != nullptr) interception_->ReceivedInitialMetadata(metadata);
  {
    MutexLock lock(&mutex_);
    if (context_ != nullptr) ClientCallAccess::set_server_initial_metadata(context_, std::move(metadata));
  }
  OnInitialMetadata();
}

void AsynchronousCall::OnStatus(absl::Status status, Metadata trailing_metadata) {
  const std::shared_ptr<AsynchronousCall> self = std::move(self_);
  channel_->EndAsynchronousCall(*load_);
  Finish(std::move(status), std::move(trailing_metadata));
}

// On the one thread that has ended the call.
void AsynchronousCall::Finish(absl::Status status, Metadata trailing_metadata) {
  if (!ServerStreams(parameters_.kind)) status = reply_.Conclude(std::move(status));
  if (interception_ != nullptr) status = interception_->Ended(std::move(status), trailing_metadata);
  internal::DeadlineTimer::Handle timer;
  {
    MutexLock lock(&mutex_);
    phase_ = Phase::kEnded;
    timer = timer_;
    if (context_ != nullptr) {
      ClientCallAccess::set_server_trailing_metadata(context_, std::move(trailing_metadata));
      ClientCallAccess::End(context_);
      context_ = nullptr;
    }
  }
  internal::DeadlineTimer::Get().Cancel(timer);
  OnEnd(std::move(status));
}

}  // namespace shmrpc
