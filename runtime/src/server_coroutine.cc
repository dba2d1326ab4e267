// Handlers that are coroutines.

#include "shmrpc/server_coroutine.h"

#include <cxxabi.h>

#include <utility>

#include "runtime/src/server_asynchronous_call.h"
#include "runtime/src/server_styles.h"
#include "shmrpc/task.h"

namespace shmrpc::internal {
namespace {

// A call, its coroutine, and the coroutine's stream. The coroutine is resumed in reactions.
class ServerCoroutineCall final : public ServerAsynchronousCall, public CoServerStream {
 public:
  ServerCoroutineCall(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call)
      : ServerAsynchronousCall(calls, method, std::move(call)) {}

  // CoServerStream
  bool StartRead(google::protobuf::MessageLite* message, bool* ok, std::coroutine_handle<> waiting) override {
    read_ = {ok, waiting};
    // Once it is started the coroutine may go on elsewhere at any moment, and all this be gone.
    if (ServerAsynchronousCall::StartRead(message, Answer::kReturned)) return true;
    *ok = false;
    return false;
  }
  bool StartWrite(const google::protobuf::MessageLite& message, bool* ok, std::coroutine_handle<> waiting) override {
    write_ = {ok, waiting};
    const SendResult result = ServerAsynchronousCall::StartWrite(&message, Answer::kReturned);
    if (result == SendResult::kWait) return true;
    *ok = result == SendResult::kSent;
    return false;
  }
  void SendInitialMetadata() override { StartSendInitialMetadata(Answer::kReturned); }

 private:
  // An operation that the coroutine waits for.
  struct Waiting {
    bool* ok = nullptr;
    std::coroutine_handle<> coroutine;

    void Resume(bool result) const {
      *ok = result;
      coroutine.resume();
    }
  };

  Task<void> Run() {
    const ServiceMethod& description = *method().method;
    CoServerStream* const stream = description.kind == MethodKind::kUnary ? nullptr : this;
    absl::Status status;
    try {
      status = co_await description.co_invoke(method().service, context(), request(), reply(), stream);
    } catch (const abi::__forced_unwind&) {
      throw;
    } catch (...) {
      status = StatusOfException(description.path);
    }
    Finish(std::move(status), nullptr);  // this object may be gone from here on
  }

  static DetachedCoroutine RunDetached(Task<void> task) { co_await task; }
  void OnStart() override { RunDetached(Run()); }
  void OnReadDone(bool ok) override { Waiting(read_).Resume(ok); }
  void OnWriteDone(bool ok) override { Waiting(write_).Resume(ok); }

  Waiting read_;
  Waiting write_;
};

}  // namespace

void RunCoroutine(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
                  const IncomingMessage* request) {
  (new ServerCoroutineCall(calls, method, std::move(call)))->Begin(request);
}

}  // namespace shmrpc::internal
