#include "shmrpc/client_stream.h"

#include <atomic>
#include <utility>

#include "absl/time/clock.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/client_reply.h"
#include "runtime/src/client_synchronous_call.h"
#include "shmrpc/message.h"

namespace shmrpc {
namespace {

// The flags that events set are what the waiting threads look at: they are atomic, because a waiting thread may look
// while another thread delivers.
class SynchronousStream final : public ClientStream, public SynchronousCall {
 public:
  SynchronousStream(std::shared_ptr<Channel> channel, const char* method, MethodKind kind, ClientContext* context,
                    google::protobuf::MessageLite* reply)
      : SynchronousCall(ChannelAccess::impl(*channel), method, kind, context),
        keeps_alive_(std::move(channel)),
        half_closed_(!ClientStreams(kind)),
        reply_(method, reply) {}

  ~SynchronousStream() override {
    if (call_ != nullptr && !IsOver()) {
      call_->Cancel(absl::CancelledError("the stream was destroyed before Finish"));
      WaitForEnd();
    }
    Release();
  }

  void Begin(const google::protobuf::MessageLite* request) {
    absl::Status failure = Attach();
    attached_ = failure.ok();
    if (failure.ok()) failure = StartAttached(request);
    if (!failure.ok()) EndUnstarted(std::move(failure));
  }

  // ClientStream
  bool Read(google::protobuf::MessageLite* message) override {
    if (finished_ || !ServerStreams(parameters_.kind) || CallIsOver()) return false;
    read_target_ = message;
    read_answered_.store(false, std::memory_order_relaxed);
    call_->Receive();
    Wait([this] { return read_answered_.load(std::memory_order_acquire) || IsOver(); });
    if (!read_answered_.load(std::memory_order_acquire)) return false;
    if (read_error_.ok()) return true;
    // Not cancelled from inside the event: that would be a call into the transport on its own stack.
    call_->Cancel(std::move(read_error_));
    WaitForEnd();
    return false;
  }

  bool Write(const google::protobuf::MessageLite& message, bool last) override {
    if (half_closed_ || CallIsOver()) return false;
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
    Wait([this] { return headers_arrived_.load(std::memory_order_acquire) || IsOver(); });
  }

  absl::Status Finish() override {
    if (finished_) return status_;
    finished_ = true;
    if (!IsOver()) {
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
  void OnSendable() override { sendable_.store(true, std::memory_order_release); }
  void OnStatus(absl::Status status, Metadata trailing_metadata) override {
    if (!ServerStreams(parameters_.kind)) status = reply_.Conclude(std::move(status));
    End(std::move(status), std::move(trailing_metadata));
  }

 private:
  absl::Status StartAttached(const google::protobuf::MessageLite* request) {
    absl::Status status = CheckParameters();
    if (!status.ok()) return status;
    if (request == nullptr) {
      status = Connect();
      if (status.ok()) Start(nullptr);
      return status;
    }
    status = parameters_.CheckRequest(*request);
    if (!status.ok()) return status;
    const OutgoingProto message(*request);
    status = parameters_.CheckRequestSize(message.size());
    if (status.ok()) status = Connect();
    if (status.ok()) Start(&message);
    return status;
  }

  // Whether an operation can no longer begin. Nobody else notices the deadline of a call for which nobody waits.
  bool CallIsOver() {
    if (IsOver()) return true;
    if (!parameters_.has_deadline() || absl::Now() < parameters_.deadline) return false;
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
    if (attached_) Detach();
    attached_ = false;
  }

  const std::shared_ptr<Channel> keeps_alive_;
  bool attached_ = false;  // to the context
  bool finished_ = false;

  bool half_closed_;  // the writing thread's
  std::atomic<bool> sendable_{false};

  google::protobuf::MessageLite* read_target_ = nullptr;  // from Receive to the event
  absl::Status read_error_;                               // once read_answered_
  std::atomic<bool> read_answered_{false};
  std::atomic<bool> headers_arrived_{false};

  SingleReply reply_;  // unless the server streams
};

}  // namespace

std::unique_ptr<ClientStream> StartClientStream(const std::shared_ptr<Channel>& channel, const char* method,
                                                MethodKind kind, ClientContext* context,
                                                const google::protobuf::MessageLite* request,
                                                google::protobuf::MessageLite* reply) {
  auto stream = std::make_unique<SynchronousStream>(channel, method, kind, context, reply);
  stream->Begin(request);
  return stream;
}

}  // namespace shmrpc
