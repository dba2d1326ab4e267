// Unary calls, synchronous and asynchronous, from the check of their arguments to their one status.

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/io/coded_stream.h"
#include "runtime/src/channel_impl.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/deadline_timer.h"
#include "shmrpc/message.h"
#include "shmrpc/mutex.h"
#include "shmrpc/stub.h"
#include "shmrpc/transport.h"

namespace shmrpc {
namespace {

// What a call says, taken from its context and its channel. A copy, but for the metadata.
struct CallParameters {
  CallParameters(const char* method_path, const ClientContext* context, const ChannelOptions& options)
      : method(method_path),
        max_send_message_bytes(options.max_send_message_bytes),
        max_receive_message_bytes(options.max_receive_message_bytes) {
    if (context == nullptr) return;
    deadline = context->deadline();
    wait_for_ready = context->wait_for_ready();
    if (!context->metadata().empty()) metadata = &context->metadata();
    max_send_message_bytes = ClientCallAccess::max_send_message_bytes(*context).value_or(max_send_message_bytes);
    max_receive_message_bytes =
        ClientCallAccess::max_receive_message_bytes(*context).value_or(max_receive_message_bytes);
  }

  CallSpec ToSpec() const {
    CallSpec spec;
    spec.method = method;
    spec.deadline = deadline;
    spec.metadata = metadata;
    spec.max_receive_message_bytes = max_receive_message_bytes;
    return spec;
  }

  const char* method;
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time start = absl::InfinitePast();  // set only when there is a deadline: to read the clock takes time
  bool wait_for_ready = false;
  const Metadata* metadata = nullptr;
  size_t max_send_message_bytes;
  size_t max_receive_message_bytes;
};

absl::Status TooLate(const CallParameters& parameters) {
  if (parameters.start >= parameters.deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat(parameters.method, ": the deadline had passed before the call began; nothing was sent"));
  }
  absl::Duration timeout = parameters.deadline - parameters.start;
  // The caller said 100ms and means to read that, not what was left of it when the call began.
  if (timeout > absl::Milliseconds(1)) timeout = absl::Ceil(timeout, absl::Milliseconds(1));
  return absl::DeadlineExceededError(
      absl::StrCat(parameters.method, " did not finish within ", absl::FormatDuration(timeout)));
}

// Why a call cannot be made with these arguments on this channel, or OK.
absl::Status CheckCall(const ChannelImpl& channel, CallParameters* parameters,
                       const google::protobuf::MessageLite& request) {
  absl::Status status = channel.CheckProcess();
  if (!status.ok()) return status;
  if (!channel.status().ok()) return channel.status();
  if (parameters->metadata != nullptr) {
    status = parameters->metadata->Validate();
    if (!status.ok()) return status;
  }
  if (!request.IsInitialized()) {
    return absl::InvalidArgumentError(absl::StrCat("the request of ", parameters->method, ", a ", request.GetTypeName(),
                                                   ", lacks required fields: ", request.InitializationErrorString()));
  }
  if (parameters->deadline != absl::InfiniteFuture()) {
    parameters->start = absl::Now();
    if (parameters->start >= parameters->deadline) return TooLate(*parameters);
  }
  return absl::OkStatus();
}

absl::Status CheckSize(const CallParameters& parameters, size_t size) {
  if (size <= parameters.max_send_message_bytes && size <= kMaxMaxMessageBytes) return absl::OkStatus();
  if (size > kMaxMaxMessageBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the request of ", parameters.method, " has ", size,
                                                     " bytes; protobuf allows ", kMaxMaxMessageBytes, " at most"));
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "the request of ", parameters.method, " has ", size, " bytes, the limit is ", parameters.max_send_message_bytes,
      "; ChannelOptions::max_send_message_bytes or ClientContext::set_max_send_message_bytes can raise it"));
}

// Takes in what comes of a unary call: the headers, exactly one message unless it fails, the status.
class UnaryReply {
 public:
  UnaryReply(const char* method, ClientContext* context, google::protobuf::MessageLite* reply)
      : method_(method), context_(context), reply_(reply) {}

  void OnHeaders(Metadata metadata) {
    if (context_ != nullptr) ClientCallAccess::set_server_initial_metadata(context_, std::move(metadata));
  }

  void OnMessage(const IncomingMessage& message) {
    if (++messages_ > 1) return;
    if (!message.ParseTo(reply_)) {
      error_ = absl::InternalError(absl::StrCat("the reply of ", method_, " (", message.size(), " bytes) is not a ",
                                                reply_->GetTypeName(),
                                                "; client and server may have been built from different .proto files"));
    } else if (!reply_->IsInitialized()) {
      error_ = absl::InternalError(absl::StrCat("the reply of ", method_, ", a ", reply_->GetTypeName(),
                                                ", lacks required fields: ", reply_->InitializationErrorString()));
    }
  }

  // The status of the whole call.
  absl::Status OnStatus(absl::Status status, Metadata trailing_metadata) {
    if (context_ != nullptr) ClientCallAccess::set_server_trailing_metadata(context_, std::move(trailing_metadata));
    if (!status.ok()) return status;
    if (messages_ != 1) {
      return absl::InternalError(absl::StrCat("the server answered ", method_, " with the status OK and ", messages_,
                                              " messages; a unary call has exactly one"));
    }
    return std::move(error_);
  }

 private:
  const char* const method_;
  ClientContext* const context_;
  google::protobuf::MessageLite* const reply_;
  int messages_ = 0;
  absl::Status error_;
};

// A call whose caller waits for it; lives on that caller's stack. The caller detaches it from the context before it
// goes, because TryCancel may be using it until then.
class SynchronousCall final : public CallEvents, public internal::CallInProgress {
 public:
  SynchronousCall(ChannelImpl& channel, const CallParameters& parameters, ClientContext* context,
                  google::protobuf::MessageLite* reply)
      : channel_(channel), parameters_(parameters), context_(context), reply_(parameters.method, context, reply) {}

  absl::Status Run(const google::protobuf::MessageLite& request) {
    const OutgoingProto message(request);
    absl::Status status = CheckSize(parameters_, message.size());
    if (!status.ok()) return status;

    if (!channel_.GetIfReady(&connection_)) {
      status = channel_.WaitForConnection(
          parameters_.deadline,
          parameters_.wait_for_ready ? ChannelImpl::Patience::kUntilReady : ChannelImpl::Patience::kThisAttempt,
          context_, &connection_);
      if (!status.ok()) return status;
    }
    if (context_ != nullptr) ClientCallAccess::set_peer(context_, connection_->peer);

    Call* call = nullptr;
    connection_->connection->StartCall(parameters_.ToSpec(), message, this, &call);
    call_.reset(call);
    if (context_ != nullptr) {
      // TryCancel first sets the flag and then looks for the call: one of the two sees the other.
      started_call_.store(call);
      if (ClientCallAccess::IsCancelled(*context_)) call->Cancel(internal::CancelledByCaller());
    }
    const auto is_over = [this] { return over_.load(std::memory_order_acquire); };
    if (!call->WaitUntil(is_over, parameters_.deadline)) {
      call->Cancel(TooLate(parameters_));
      // Whoever delivers the status may not be done yet.
      call->WaitUntil(is_over, absl::InfiniteFuture());
    }
    return std::move(status_);
  }

  // CallEvents
  void OnHeaders(Metadata metadata) override { reply_.OnHeaders(std::move(metadata)); }
  void OnMessage(const IncomingMessage& message) override { reply_.OnMessage(message); }
  void OnStatus(absl::Status status, Metadata trailing_metadata) override {
    status_ = reply_.OnStatus(std::move(status), std::move(trailing_metadata));
    over_.store(true, std::memory_order_release);  // this object may be gone from here on
  }
  bool RunsUserCode() const override { return false; }

  // CallInProgress
  void OnTryCancel() override {
    Call* const call = started_call_.load();
    if (call != nullptr) {
      call->Cancel(internal::CancelledByCaller());
    } else {
      channel_.WakeWaiters();
    }
  }

 private:
  ChannelImpl& channel_;
  const CallParameters& parameters_;
  ClientContext* const context_;
  // Held to the end: a connection that another thread finds over would otherwise be destroyed under this call.
  ConnectionPtr connection_;
  CallPtr call_;
  std::atomic<Call*> started_call_{nullptr};
  UnaryReply reply_;
  absl::Status status_;
  std::atomic<bool> over_{false};
};

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

// A call that nobody waits for. Shared by those who may still want to end it: its timer, its context, the channel's
// queue, and itself while it is started.
//
//   kStarting ──no connection──▶ kWaiting ──connected──▶ kStarting ──▶ kStarted ──status──▶ kEnded
//
// Deadline and TryCancel come at any time, from any thread, through End: in kStarting they are remembered, because the
// starting thread does not hold the lock while it works; in kWaiting they end the call; in kStarted they cancel it.
class AsynchronousCall final : public CallEvents,
                               public internal::CallInProgress,
                               public ConnectionWaiter,
                               public std::enable_shared_from_this<AsynchronousCall> {
 public:
  AsynchronousCall(std::shared_ptr<ChannelImpl> channel, const CallParameters& parameters, ClientContext* context,
                   google::protobuf::MessageLite* reply, StatusCallback done)
      : channel_(std::move(channel)),
        parameters_(parameters),
        context_(context),
        reply_(parameters.method, context, reply),
        done_(std::move(done)) {}

  // The caller holds a reference meanwhile.
  void Begin(const google::protobuf::MessageLite& request) {
    absl::Status failure = CheckCall(*channel_, &parameters_, request);
    if (!failure.ok()) return Finish(std::move(failure), Metadata());
    const OutgoingProto message(request);
    failure = CheckSize(parameters_, message.size());
    if (!failure.ok()) return Finish(std::move(failure), Metadata());

    if (parameters_.deadline != absl::InfiniteFuture()) {
      // Under the lock, so that the timer cannot find the call without its handle.
      MutexLock lock(&mutex_);
      timer_ = internal::DeadlineTimer::Get().Schedule(
          parameters_.deadline, [self = shared_from_this()] { self->End(TooLate(self->parameters_)); });
    }
    ConnectionPtr connection;
    switch (channel_->CheckReadiness(parameters_.wait_for_ready, &connection, &failure)) {
      case ChannelImpl::Readiness::kReady:
        return Start(connection, message);
      case ChannelImpl::Readiness::kFailed:
        return Finish(std::move(failure), Metadata());
      case ChannelImpl::Readiness::kMustWait:
        return Wait(message);
    }
  }

  // Instead of Begin: the context is not this call's.
  void Refuse(absl::Status status) {
    StatusCallback done = std::move(done_);
    done(std::move(status));
  }

  ~AsynchronousCall() override {
    if (call_ != nullptr) call_->Release();
  }

  // ConnectionWaiter
  void OnConnected(const ConnectionPtr& connection) override {
    if (!LeaveQueue()) return channel_->EndAsynchronousCall(*connection->load);
    // The request may be large: it is dropped when it has been sent.
    const std::unique_ptr<SerializedRequest> request = std::move(waiting_request_);
    Start(connection, *request);
  }
  void OnNotConnected(absl::Status status) override {
    if (LeaveQueue()) Finish(std::move(status), Metadata());
  }

  // CallEvents
  void OnHeaders(Metadata metadata) override { reply_.OnHeaders(std::move(metadata)); }
  void OnMessage(const IncomingMessage& message) override { reply_.OnMessage(message); }
  void OnStatus(absl::Status status, Metadata trailing_metadata) override {
    const std::shared_ptr<AsynchronousCall> self = std::move(self_);
    channel_->EndAsynchronousCall(*load_);
    Finish(std::move(status), std::move(trailing_metadata));
  }
  bool RunsUserCode() const override { return true; }

  // CallInProgress
  void OnTryCancel() override { End(internal::CancelledByCaller()); }

 private:
  enum class Phase { kStarting, kWaiting, kStarted, kEnded };

  void Wait(const OutgoingMessage& message) {
    waiting_request_ = std::make_unique<SerializedRequest>(message);
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
      Start(connection, message);
    } else if (readiness == ChannelImpl::Readiness::kFailed) {
      Finish(std::move(failure), Metadata());
    } else if (!end.ok()) {
      End(std::move(end));
    }
  }

  // kWaiting becomes kStarting, unless the call has ended there.
  bool LeaveQueue() {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kWaiting) return false;
    phase_ = Phase::kStarting;
    return true;
  }

  // In kStarting, on a connection in whose load the call is counted.
  void Start(const ConnectionPtr& connection, const OutgoingMessage& message) {
    load_ = connection->load;
    {
      MutexLock lock(&mutex_);
      if (end_.ok()) self_ = shared_from_this();
    }
    if (self_ == nullptr) {
      channel_->EndAsynchronousCall(*load_);
      return Finish(RememberedEnd(), Metadata());
    }
    if (context_ != nullptr) ClientCallAccess::set_peer(context_, connection->peer);
    connection->connection->StartCall(parameters_.ToSpec(), message, this, &call_);
    // From here on the context may be gone.
    absl::Status end;
    {
      MutexLock lock(&mutex_);
      if (phase_ != Phase::kStarting) return;  // over already
      phase_ = Phase::kStarted;
      end = end_;
    }
    if (!end.ok()) call_->Cancel(std::move(end));
  }

  absl::Status RememberedEnd() {
    MutexLock lock(&mutex_);
    return end_;
  }

  // Ends the call with `status` unless it is over. On any thread.
  void End(absl::Status status) {
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

  // Tells the caller, on the one thread that has ended the call. The caller may destroy everything then.
  void Finish(absl::Status status, Metadata trailing_metadata) {
    internal::DeadlineTimer::Handle timer;
    {
      MutexLock lock(&mutex_);
      phase_ = Phase::kEnded;
      timer = timer_;
    }
    internal::DeadlineTimer::Get().Cancel(timer);
    status = reply_.OnStatus(std::move(status), std::move(trailing_metadata));
    if (context_ != nullptr) ClientCallAccess::End(context_);
    StatusCallback done = std::move(done_);
    done(std::move(status));
  }

  const std::shared_ptr<ChannelImpl> channel_;
  CallParameters parameters_;  // constant once Begin has checked them
  ClientContext* const context_;
  UnaryReply reply_;
  StatusCallback done_;
  std::unique_ptr<SerializedRequest> waiting_request_;

  std::shared_ptr<AsynchronousCall> self_;  // from the start on a connection to the status
  std::shared_ptr<ConnectionLoad> load_;
  Call* call_ = nullptr;  // written by the starting thread; others look only in kStarted

  Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kStarting;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // what came for the call in kStarting
  internal::DeadlineTimer::Handle timer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Status UnaryCall(Channel& channel, const char* method, ClientContext* context,
                       const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply) {
  ChannelImpl& impl = ChannelAccess::impl(channel);
  CallParameters parameters(method, context, impl.options());
  SynchronousCall call(impl, parameters, context, reply);
  if (context != nullptr) {
    absl::Status status = ClientCallAccess::BeginSynchronous(context, &call);
    if (!status.ok()) return status;
  }
  absl::Status status = CheckCall(impl, &parameters, request);
  if (status.ok()) status = call.Run(request);
  if (context != nullptr) ClientCallAccess::End(context);
  return status;
}

void AsyncUnaryCall(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context,
                    const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply,
                    StatusCallback done) {
  const std::shared_ptr<ChannelImpl> impl = ChannelAccess::shared_impl(*channel);
  const auto call = std::make_shared<AsynchronousCall>(impl, CallParameters(method, context, impl->options()), context,
                                                       reply, std::move(done));
  if (context != nullptr) {
    absl::Status status = ClientCallAccess::BeginAsynchronous(context, call);
    if (!status.ok()) return call->Refuse(std::move(status));
  }
  call->Begin(request);
}

}  // namespace shmrpc
