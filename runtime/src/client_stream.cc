#include "shmrpc/client_stream.h"

#include <atomic>
#include <thread>
#include <utility>

#include "runtime/src/client_call_access.h"
#include "runtime/src/client_interception.h"
#include "runtime/src/client_reply.h"
#include "runtime/src/client_synchronous_call.h"
#include "shmrpc/message.h"

namespace shmrpc {
namespace {

// The flags that events set are what the waiting threads look at: they are atomic, because a waiting thread may look
// while another thread delivers.
class SynchronousStream final : public ClientStream, public SynchronousCall {
 public:
  // `own_context` is `context`, or null when that is the user's.
  SynchronousStream(std::shared_ptr<Channel> channel, const char* method, MethodKind kind, ClientContext* context,
                    std::unique_ptr<ClientContext> own_context, google::protobuf::MessageLite* reply)
      : SynchronousCall(ChannelAccess::impl(*channel), method, kind, context),
        keeps_alive_(std::move(channel)),
        own_context_(std::move(own_context)),
        half_closed_(!ClientStreams(kind)),
        reply_(method, reply) {}

  ~SynchronousStream() override {
    LetGoIfInherited();
    if (call_ != nullptr && !IsOver()) {
      call_->Cancel(absl::CancelledError("the stream was destroyed before Finish"));
      WaitForEnd();
    }
    Release();
  }

  // A stream may outlive its context by mistake, and its user not be inside it; then nobody would take note.
  bool OnContextGone(absl::Status status) override {
    if (SynchronousCall::OnContextGone(std::move(status))) return true;
    while (!IsOver()) std::this_thread::yield();  // another thread is delivering the end
    attached_ = false;
    ForgetContext();
    return true;
  }

  void Begin(const google::protobuf::MessageLite* request) {
    absl::Status failure = Attach();
    attached_ = failure.ok();
    if (failure.ok() && !interceptors().empty() && !PassInterceptors(&failure)) {
      if (!interception_->answered()) return EndUnstarted(std::move(failure));
      return StartAnswered(interception_->TakeAnswer(std::move(failure)));
    }
    if (failure.ok()) failure = StartAttached(request);
    if (!failure.ok()) EndUnstarted(std::move(failure));
  }

  // ClientStream
  bool Read(google::protobuf::MessageLite* message) override {
    if (finished_ || !ServerStreams(parameters_.kind) || CallIsOver()) return false;
    read_target_ = message;
    if (read_type_.load(std::memory_order_relaxed) == nullptr) {
      read_type_.store(internal::DescriptorOf(*message), std::memory_order_relaxed);
    }
    read_answered_.store(false, std::memory_order_relaxed);
    do {
      call_->Receive();
      Wait([this] { return read_answered_.load(std::memory_order_acquire) || IsOver(); });
    } while (!read_answered_.load(std::memory_order_acquire) && IsRestarted());
    if (!read_answered_.load(std::memory_order_acquire)) return false;
    request_.Drop();
    if (read_error_.ok()) {
      if (interception_ != nullptr) InterceptRead(message);
      return true;
    }
    // Not cancelled from inside the event: that would be a call into the transport on its own stack.
    call_->Cancel(std::move(read_error_));
    WaitForEnd();
    return false;
  }

  bool Write(const google::protobuf::MessageLite& given, bool last) override {
    if (half_closed_ || CallIsOver()) return false;
    const google::protobuf::MessageLite& message = interception_ != nullptr ? interception_->Sending(given) : given;
    absl::Status error = parameters_.CheckRequest(message);
    if (!error.ok()) return CancelWrite(std::move(error));
    const OutgoingProto outgoing(message);
    error = parameters_.CheckRequestSize(outgoing.size());
    if (!error.ok()) return CancelWrite(std::move(error));
    for (;;) {
      sendable_.store(false, std::memory_order_relaxed);
      switch (call_->Send(outgoing, last)) {
        case SendResult::kSent:
          half_closed_ = last;
          return true;
        case SendResult::kOver:
          return false;
        case SendResult::kWait:
          break;
      }
      Wait([this] { return sendable_.load(std::memory_order_acquire) || IsOver(); });
      if (IsOver()) return false;
    }
  }

  bool WritesDone() override {
    if (CallIsOver()) return false;
    HalfClose();
    return true;
  }

  void WaitForInitialMetadata() override {
    if (CallIsOver()) return;
    do {
      Wait([this] { return headers_arrived_.load(std::memory_order_acquire) || IsOver(); });
    } while (!headers_arrived_.load(std::memory_order_acquire) && IsRestarted());
    if (interception_ != nullptr) InterceptInitialMetadata();
  }

  absl::Status Finish() override {
    if (finished_) return status_;
    finished_ = true;
    LetGoIfInherited();
    while (!IsOver() || IsRestarted()) {
      HalfClose();
      if (ServerStreams(parameters_.kind)) call_->DropMessages();
      WaitForEnd();
    }
    Release();
    return status_;
  }

  // CallEvents
  void OnHeaders(Metadata metadata) override {
    SynchronousCall::OnHeaders(std::move(metadata));
    headers_arrived_.store(true, std::memory_order_release);
  }
  void OnMessage(const IncomingMessage& message) override {
    if (!ServerStreams(parameters_.kind)) return reply_.OnMessage(message);
    read_error_ = ParseReply(parameters_.method, message, read_target_);
    read_answered_.store(true, std::memory_order_release);
  }
  const google::protobuf::Descriptor* message_type() const override {
    return ServerStreams(parameters_.kind) ? read_type_.load(std::memory_order_relaxed) : reply_.type();
  }
  void OnSendable() override { sendable_.store(true, std::memory_order_release); }
  void OnStatus(CallEnd end) override {
    if (!ServerStreams(parameters_.kind)) end.status = reply_.Conclude(std::move(end.status));
    End(std::move(end));
  }

 private:
  absl::Status StartAttached(const google::protobuf::MessageLite* request) {
    absl::Status status = CheckParameters();
    if (!status.ok()) return status;
    if (request == nullptr) return Attempt(nullptr);
    if (interception_ != nullptr) {
      request = &interception_->Sending(*request);
      parameters_.waited = true;
    }
    status = parameters_.CheckRequest(*request);
    if (!status.ok()) return status;
    const OutgoingProto message(*request);
    status = parameters_.CheckRequestSize(message.size());
    if (!status.ok()) return status;
    // Should it turn out later that the request has to be sent again.
    if (!ClientStreams(parameters_.kind) && message.size() <= kMaxKeptRequestBytes) request_.Keep(message);
    return Attempt(&message);
  }

  // Attempts the call until one attempt is under way, or has ended the call. When the result is not OK there is no
  // call.
  absl::Status Attempt(const OutgoingMessage* request) {
    absl::Status status;
    do {
      status = Connect();
      if (!status.ok()) continue;
      Start(request);
      if (!IsOver()) return status;
      status = status_;
    } while (Retry(&status));
    if (call_ == nullptr) return status;
    status_ = std::move(status);
    return absl::OkStatus();
  }

  // Whether the call, which is over, goes on all the same: it has not been processed, and is attempted again. Only when
  // no other thread can be at work with it, and its request is here.
  bool IsRestarted() {
    if (!request_.kept() || !Retry(&status_)) {
      request_.Drop();
      return false;
    }
    absl::Status failure = Attempt(&request_);
    if (failure.ok()) return !IsOver();
    EndUnstarted(std::move(failure));
    return false;
  }

  // What interceptors are told of is told on the caller's threads: events must not run user code.
  bool PassInterceptors(absl::Status* status) {
    interception_ = std::make_unique<ClientInterception>(parameters_, reply_.message());
    const bool passed = interception_->Begin(interceptors(), status);
    parameters_.metadata = interception_->metadata_or_null();
    return passed;
  }
  void InterceptInitialMetadata() {
    if (!headers_arrived_.load(std::memory_order_acquire) || std::exchange(headers_intercepted_, true)) return;
    interception_->ReceivedInitialMetadata(context()->GetServerInitialMetadata());
  }
  void InterceptRead(google::protobuf::MessageLite* message) {
    InterceptInitialMetadata();
    interception_->Received(message);
  }
  void InterceptEnd() {
    InterceptInitialMetadata();
    status_ = interception_->Ended(std::move(status_), context()->GetServerTrailingMetadata());
  }

  // Whether an operation can no longer begin. Nobody else notices the deadline of a call for which nobody waits.
  bool CallIsOver() {
    LetGoIfInherited();
    if (IsOver() && !IsRestarted()) return true;
    if (!parameters_.deadline.HasPassed()) return false;
    call_->Cancel(parameters_.TooLate());
    WaitForEnd();
    return true;
  }

  bool CancelWrite(absl::Status error) {
    call_->Cancel(std::move(error));
    WaitForEnd();
    return false;
  }

  void HalfClose() {
    if (half_closed_) return;
    half_closed_ = true;
    call_->HalfClose();
  }

  void WaitForEnd() {
    Wait([this] { return IsOver(); });
  }

  // The context may go from here on.
  void Release() {
    if (!std::exchange(attached_, false)) return;
    if (interception_ != nullptr) InterceptEnd();
    Detach();
  }

  const std::shared_ptr<Channel> keeps_alive_;
  const std::unique_ptr<ClientContext> own_context_;
  bool attached_ = false;  // to the context
  bool finished_ = false;

  bool half_closed_;  // the writing thread's
  std::atomic<bool> sendable_{false};

  google::protobuf::MessageLite* read_target_ = nullptr;                 // from Receive to the event
  std::atomic<const google::protobuf::Descriptor*> read_type_{nullptr};  // of what is read, once that is known
  absl::Status read_error_;                                              // once read_answered_
  std::atomic<bool> read_answered_{false};
  std::atomic<bool> headers_arrived_{false};

  SingleReply reply_;    // unless the server streams
  KeptRequest request_;  // unless the client streams

  std::unique_ptr<ClientInterception> interception_;  // null when there are no interceptors
  bool headers_intercepted_ = false;                  // the reading thread's
};

}  // namespace

std::unique_ptr<ClientStream> StartClientStream(const std::shared_ptr<Channel>& channel, const char* method,
                                                MethodKind kind, ClientContext* context,
                                                const google::protobuf::MessageLite* request,
                                                google::protobuf::MessageLite* reply) {
  std::unique_ptr<ClientContext> own_context;
  if (context == nullptr && !ChannelAccess::impl(*channel).options().interceptors.empty()) {
    own_context = std::make_unique<ClientContext>();  // interceptors see the metadata that comes back
    context = own_context.get();
  }
  auto stream = std::make_unique<SynchronousStream>(channel, method, kind, context, std::move(own_context), reply);
  stream->Begin(request);
  return stream;
}

}  // namespace shmrpc
