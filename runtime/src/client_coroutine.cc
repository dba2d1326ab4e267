#include "shmrpc/client_coroutine.h"

#include <atomic>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/client_asynchronous_call.h"
#include "runtime/src/client_asynchronous_stream.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/misuse.h"
#include "shmrpc/mutex.h"

namespace shmrpc {
namespace internal {
namespace {

// A unary call that a coroutine awaits.
class CoroutineUnaryCall final : public AsynchronousCall {
 public:
  CoroutineUnaryCall(std::shared_ptr<ChannelImpl> channel, const char* method, ClientContext* context,
                     google::protobuf::MessageLite* reply, absl::Status* status, std::coroutine_handle<> waiting)
      : AsynchronousCall(std::move(channel), method, MethodKind::kUnary, context, reply),
        status_(status),
        waiting_(waiting) {}

  // After Begin. False when the call is over; otherwise its end resumes the coroutine. So a call that fails at once
  // does not resume it on top of itself, as often as it tries again.
  bool Suspend() { return progress_.exchange(kSuspended, std::memory_order_acq_rel) != kEnded; }

 private:
  void OnEnd(absl::Status status) override {
    *status_ = std::move(status);
    if (progress_.exchange(kEnded, std::memory_order_acq_rel) != kSuspended) return;
    RunUserCode([waiting = waiting_] { waiting.resume(); });
  }

  enum Progress { kStarting, kSuspended, kEnded };

  absl::Status* const status_;
  const std::coroutine_handle<> waiting_;
  std::atomic<Progress> progress_{kStarting};
};

}  // namespace

bool StartCoUnaryCall(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context,
                      const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply,
                      absl::Status* status, std::coroutine_handle<> waiting) {
  const auto call = std::make_shared<CoroutineUnaryCall>(ChannelAccess::shared_impl(*channel), method, context, reply,
                                                         status, waiting);
  call->Begin(&request, /*request_outlives_call=*/true);
  return call->Suspend();
}

// A streaming call whose operations coroutines await. Who starts one says where its result goes and who waits, before
// it can be answered; who answers takes that away again.
class ClientCoroutineCall final : public AsynchronousStream, public CoClientOperations {
 public:
  ClientCoroutineCall(std::shared_ptr<ChannelImpl> channel, const char* method, MethodKind kind, ClientContext* context,
                      std::unique_ptr<google::protobuf::MessageLite> reply)
      : AsynchronousStream(std::move(channel), method, kind, context, reply.get()),
        client_streams_(ClientStreams(kind)),
        server_streams_(ServerStreams(kind)),
        owned_reply_(std::move(reply)) {}

  // CoClientOperations
  bool StartRead(google::protobuf::MessageLite* message, bool* ok, std::coroutine_handle<> waiting) override {
    if (!BeginOperation(read_under_way_, "Read", ok)) return false;
    reading_ = {ok, waiting};
    return IsLater(Read(message), ok, read_under_way_);
  }
  bool StartWrite(const google::protobuf::MessageLite& message, bool last, bool* ok,
                  std::coroutine_handle<> waiting) override {
    if (!BeginOperation(write_under_way_, "Write", ok)) return false;
    writing_ = {ok, waiting};
    return IsLater(Write(message, last), ok, write_under_way_);
  }
  bool StartHalfClose(bool* ok, std::coroutine_handle<> waiting) override {
    if (!BeginOperation(write_under_way_, "WritesDone", ok)) return false;
    writing_ = {ok, waiting};
    return IsLater(HalfClose(), ok, write_under_way_);
  }
  void OnStreamGone() override { Abandon(absl::CancelledError("the stream was destroyed before Finish")); }
  bool StartFinish(absl::Status* status, std::coroutine_handle<> waiting) override {
    {
      MutexLock lock(&end_mutex_);
      if (finishing_) {
        *status = Misuse(absl::StrCat("Finish was called twice in a call of ", parameters().method));
        return false;
      }
    }
    if (read_under_way_ || write_under_way_) {
      *status = Misuse(absl::StrCat("Finish in a call of ", parameters().method,
                                    " while a read or a write is awaited: it comes last"));
      End(*status);
      return false;
    }
    writing_ = {};  // nobody waits for the half-close
    if (client_streams_) HalfClose();
    if (server_streams_) DropMessages();
    MutexLock lock(&end_mutex_);
    if (ended_) {
      *status = status_;
      return false;
    }
    finishing_status_ = status;
    finishing_ = waiting;
    return true;
  }

 private:
  struct Operation {
    bool* ok = nullptr;
    std::coroutine_handle<> waiting;
  };

  // AsynchronousStream
  void OnReadDone(bool ok) override { Resume(&reading_, read_under_way_, ok); }
  void OnWriteDone(bool ok) override { Resume(&writing_, write_under_way_, ok); }
  void OnHalfCloseDone(bool ok) override { Resume(&writing_, write_under_way_, ok); }
  void OnStreamEnd(absl::Status status) override {
    std::coroutine_handle<> finishing;
    {
      MutexLock lock(&end_mutex_);
      ended_ = true;
      finishing = finishing_;
      status_ = std::move(status);
      if (finishing) *finishing_status_ = status_;
    }
    if (finishing) RunUserCode([finishing] { finishing.resume(); });
  }

  // The coroutine may destroy everything.
  static void Resume(Operation* answered, std::atomic<bool>& under_way, bool ok) {
    const Operation operation = std::exchange(*answered, {});
    under_way.store(false, std::memory_order_release);
    if (!operation.waiting) return;
    *operation.ok = ok;
    RunUserCode([waiting = operation.waiting] { waiting.resume(); });
  }

  // False: another one has not been answered. The call ends, and so does that.
  bool BeginOperation(std::atomic<bool>& under_way, const char* what, bool* ok) {
    if (!under_way.exchange(true, std::memory_order_acquire)) return true;
    *ok = false;
    absl::Status misuse = Misuse(absl::StrCat(what, " in a call of ", parameters().method,
                                              " beside one of the same direction that is awaited: one at a time"));
    const NoUserCodeHere in_a_call_of_the_users;
    End(std::move(misuse));
    return false;
  }

  static bool IsLater(Outcome outcome, bool* ok, std::atomic<bool>& under_way) {
    if (outcome == Outcome::kLater) return true;
    under_way.store(false, std::memory_order_release);
    *ok = outcome == Outcome::kDone;
    return false;
  }

  const bool client_streams_;
  const bool server_streams_;
  const std::unique_ptr<google::protobuf::MessageLite> owned_reply_;

  // Handed over with the operation itself.
  Operation reading_;
  Operation writing_;  // or half-closing
  std::atomic<bool> read_under_way_{false};
  std::atomic<bool> write_under_way_{false};

  Mutex end_mutex_;
  bool ended_ ABSL_GUARDED_BY(end_mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(end_mutex_);  // for who finishes after the end
  absl::Status* finishing_status_ ABSL_GUARDED_BY(end_mutex_) = nullptr;
  std::coroutine_handle<> finishing_ ABSL_GUARDED_BY(end_mutex_);
};

namespace {

// What a ClientStream does, complete at once.
class ScriptedOperations final : public CoClientOperations {
 public:
  ScriptedOperations(std::unique_ptr<ClientStream> stream, std::unique_ptr<google::protobuf::MessageLite> reply)
      : stream_(std::move(stream)), owned_reply_(std::move(reply)) {}

  bool StartRead(google::protobuf::MessageLite* message, bool* ok, std::coroutine_handle<>) override {
    *ok = stream_->Read(message);
    return false;
  }
  bool StartWrite(const google::protobuf::MessageLite& message, bool last, bool* ok, std::coroutine_handle<>) override {
    *ok = stream_->Write(message, last);
    return false;
  }
  bool StartHalfClose(bool* ok, std::coroutine_handle<>) override {
    *ok = stream_->WritesDone();
    return false;
  }
  bool StartFinish(absl::Status* status, std::coroutine_handle<>) override {
    *status = stream_->Finish();
    return false;
  }
  void OnStreamGone() override {}

 private:
  const std::unique_ptr<ClientStream> stream_;
  const std::unique_ptr<google::protobuf::MessageLite> owned_reply_;
};

}  // namespace
}  // namespace internal

CoClientStream::CoClientStream(const std::shared_ptr<Channel>& channel, const char* method, MethodKind kind,
                               ClientContext* context, const google::protobuf::MessageLite* request,
                               std::unique_ptr<google::protobuf::MessageLite> reply) {
  const auto call = std::make_shared<internal::ClientCoroutineCall>(ChannelAccess::shared_impl(*channel), method, kind,
                                                                    context, std::move(reply));
  call_ = call;
  call->Begin(request);
}

CoClientStream::CoClientStream(std::unique_ptr<ClientStream> stream,
                               std::unique_ptr<google::protobuf::MessageLite> reply)
    : call_(std::make_shared<internal::ScriptedOperations>(std::move(stream), std::move(reply))) {}

CoClientStream::~CoClientStream() { Cancel(); }

CoClientStream& CoClientStream::operator=(CoClientStream&& other) noexcept {
  if (this == &other) return *this;
  Cancel();
  call_ = std::move(other.call_);
  return *this;
}

void CoClientStream::Cancel() {
  if (call_ != nullptr) call_->OnStreamGone();
}

namespace {

absl::Status IsMovedFrom(const char* function) {
  return internal::Misuse(absl::StrCat(function, " of a stream that was moved to another object"));
}

}  // namespace

// Each holds a reference of its own: once the coroutine has been resumed on another thread, it may destroy this object.
bool CoClientStream::StartRead(google::protobuf::MessageLite* message, bool* ok, std::coroutine_handle<> waiting) {
  if (call_ == nullptr) return *ok = IsMovedFrom("Read").ok();
  return std::shared_ptr(call_)->StartRead(message, ok, waiting);
}

bool CoClientStream::StartWrite(const google::protobuf::MessageLite& message, bool last, bool* ok,
                                std::coroutine_handle<> waiting) {
  if (call_ == nullptr) return *ok = IsMovedFrom("Write").ok();
  return std::shared_ptr(call_)->StartWrite(message, last, ok, waiting);
}

bool CoClientStream::StartHalfClose(bool* ok, std::coroutine_handle<> waiting) {
  if (call_ == nullptr) return *ok = IsMovedFrom("WritesDone").ok();
  return std::shared_ptr(call_)->StartHalfClose(ok, waiting);
}

bool CoClientStream::StartFinish(absl::Status* status, std::coroutine_handle<> waiting) {
  if (call_ == nullptr) {
    *status = IsMovedFrom("Finish");
    return false;
  }
  return std::shared_ptr(call_)->StartFinish(status, waiting);
}

}  // namespace shmrpc
