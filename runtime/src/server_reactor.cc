// Handlers in the callback style.

#include "shmrpc/server_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/misuse.h"
#include "runtime/src/server_asynchronous_call.h"
#include "runtime/src/server_styles.h"

namespace shmrpc {
namespace internal {

// A call and its reactor: passes operations one way and reactions the other.
class ServerReactorCall final : public ServerAsynchronousCall {
 public:
  ServerReactorCall(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call)
      : ServerAsynchronousCall(calls, method, std::move(call)) {}

  ServerUnaryReactor* DefaultReactor() override { return &default_reactor_; }

  void Read(google::protobuf::MessageLite* message) { StartRead(message, Answer::kReaction); }
  void Write(const google::protobuf::MessageLite* message) { StartWrite(message, Answer::kReaction); }
  void SendInitialMetadata() { StartSendInitialMetadata(Answer::kReaction); }
  using ServerAsynchronousCall::Finish;

 private:
  class DefaultServerReactor final : public ServerUnaryReactor {
    void OnDone() override {}
  };

  void OnStart() override {
    reactor_ = method().method->react(method().service, context(), request(), reply());
    if (reactor_ != nullptr) return reactor_->Bind(this);
    Finish(absl::InternalError(absl::StrCat("the handler of ", method().method->path, " returned no reactor")),
           nullptr);
  }
  void OnInitialMetadataDone(bool ok) override { reactor_->OnSendInitialMetadataDone(ok); }
  void OnReadDone(bool ok) override { reactor_->OnReadDone(ok); }
  void OnWriteDone(bool ok) override { reactor_->OnWriteDone(ok); }
  void OnCancel() override {
    if (reactor_ != nullptr) reactor_->OnCancel();
  }
  void OnFinished() override {
    if (reactor_ != nullptr) reactor_->OnDone();
  }

  ServerReactor* reactor_ = nullptr;  // null until the handler has returned it; of the thread that runs reactions
  DefaultServerReactor default_reactor_;
};

void RunReactor(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
                const IncomingMessage* request) {
  (new ServerReactorCall(calls, method, std::move(call)))->Begin(request);
}

}  // namespace internal

void ServerReactor::Bind(internal::ServerReactorCall* call) {
  Backlog backlog;
  {
    MutexLock lock(&mutex_);
    backlog = std::move(backlog_);
    call_.store(call, std::memory_order_release);
  }
  // Another thread may finish the call from here on, but OnDone does not come before this reaction is over.
  if (backlog.send_initial_metadata) call->SendInitialMetadata();
  if (backlog.read != nullptr) call->Read(backlog.read);
  if (backlog.write != nullptr) call->Write(backlog.write);
  if (backlog.finish) call->Finish(std::move(backlog.status), backlog.last_message);
}

internal::ServerReactorCall* ServerReactor::CallOr(absl::FunctionRef<void(Backlog*)> remember) {
  internal::ServerReactorCall* call = call_.load(std::memory_order_acquire);
  if (call != nullptr) return call;
  MutexLock lock(&mutex_);
  call = call_.load(std::memory_order_relaxed);
  if (call == nullptr) remember(&backlog_);
  return call;
}

// `earlier` is null, unless the reactor does what it must not.
void ServerReactor::NoteFirst(const void* earlier, const char* what, Backlog* backlog) {
  if (earlier == nullptr) return;
  const absl::Status misuse = internal::Misuse(
      absl::StrCat(what,
                   " was started in a reactor's constructor or method while another one is under way: one at a "
                   "time, after the answer to the last"));
  backlog->finish = true;
  backlog->status = absl::InternalError(misuse.message());
}

void ServerReactor::StartSendInitialMetadata() {
  internal::ServerReactorCall* const call = CallOr([](Backlog* backlog) { backlog->send_initial_metadata = true; });
  if (call != nullptr) call->SendInitialMetadata();
}

void ServerReactor::StartReadMessage(google::protobuf::MessageLite* message) {
  internal::ServerReactorCall* const call = CallOr([message](Backlog* backlog) {
    NoteFirst(backlog->read, "a read", backlog);
    backlog->read = message;
  });
  if (call != nullptr) call->Read(message);
}

void ServerReactor::StartWriteMessage(const google::protobuf::MessageLite* message) {
  internal::ServerReactorCall* const call = CallOr([message](Backlog* backlog) {
    NoteFirst(backlog->write, "a write", backlog);
    backlog->write = message;
  });
  if (call != nullptr) call->Write(message);
}

void ServerReactor::Finish(absl::Status status) { StartWriteMessageAndFinish(nullptr, std::move(status)); }

void ServerReactor::StartWriteMessageAndFinish(const google::protobuf::MessageLite* message, absl::Status status) {
  internal::ServerReactorCall* const call = CallOr([&](Backlog* backlog) {
    if (backlog->finish) return;
    backlog->finish = true;
    backlog->last_message = message;
    backlog->status = std::move(status);
  });
  if (call != nullptr) call->Finish(std::move(status), message);
}

}  // namespace shmrpc
