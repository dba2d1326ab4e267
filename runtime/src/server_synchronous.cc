// Handlers that block the thread that brings the call.

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/base/optimization.h"
#include "google/protobuf/arena.h"
#include "runtime/src/blocking_server_call.h"
#include "runtime/src/message_pool.h"
#include "runtime/src/server_context_access.h"
#include "runtime/src/server_interception.h"
#include "runtime/src/server_styles.h"

namespace shmrpc {
namespace internal {
namespace {

// The first block of a call's arena; on the handler's stack, so that small messages need no allocation.
constexpr size_t kArenaBlockBytes = 4096;

// Where the messages of a call that streams or is intercepted live, until the reply has been sent.
class StackArena {
 public:
  StackArena() : arena_(Options(block_)) {}
  google::protobuf::MessageLite* New(const google::protobuf::MessageLite& (*prototype)()) {
    return prototype().New(&arena_);
  }

 private:
  static google::protobuf::ArenaOptions Options(char* block) {
    google::protobuf::ArenaOptions options;
    options.initial_block = block;
    options.initial_block_size = kArenaBlockBytes;
    return options;
  }

  alignas(std::max_align_t) char block_[kArenaBlockBytes];
  google::protobuf::Arena arena_;
};

absl::Status Invoke(const RegisteredMethod& method, ServerContext* context,
                    const google::protobuf::MessageLite* request, google::protobuf::MessageLite* reply,
                    ServerStream* stream) {
  return RunGuarded(method.method->path,
                    [&] { return method.method->invoke(method.service, context, request, reply, stream); });
}

// The call that most calls are: its request is there, it has no events, and nobody intercepts it.
void RunUnary(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
              const IncomingMessage& request_bytes) {
  MessagePool::Lease messages(method.messages);
  ServerContext context(call.get());
  absl::Status status = ParseRequest(*method.method, request_bytes, messages.request());
  if (ABSL_PREDICT_TRUE(status.ok())) status = Invoke(method, &context, messages.request(), messages.reply(), nullptr);
  ServerCallControl* const control = ServerContextAccess::control(context);
  if (ABSL_PREDICT_FALSE(control != nullptr)) static_cast<BlockingServerCall*>(control)->End().IgnoreError();
  const bool replies = status.ok();
  FinishServerCall(calls, std::move(call), *method.method, context, std::move(status), messages.reply());
  messages.NoteSize(request_bytes.size());
  // A reply that was sent has been measured; what a handler that fails has put into it is unknown.
  messages.NoteSize(replies ? static_cast<size_t>(messages.reply()->GetCachedSize()) : SIZE_MAX);
}

void RunWithEvents(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
                   const IncomingMessage* request_bytes) {
  const MethodKind kind = method.method->kind;
  StackArena arena;
  google::protobuf::MessageLite* request = nullptr;
  google::protobuf::MessageLite* reply = nullptr;
  if (!ClientStreams(kind)) request = arena.New(method.method->request_prototype);
  if (!ServerStreams(kind)) reply = arena.New(method.method->reply_prototype);
  const IncomingMessage* const only_message = ClientStreams(kind) ? request_bytes : nullptr;
  auto* const blocking = new BlockingServerCall(call.get(), calls, method.method, only_message);
  ServerContext context(call.get(), blocking);
  ServerInterception interception(*calls, *method.method, &context);
  blocking->set_context(&context, &interception);
  blocking->Start();

  absl::Status status = interception.Begin();
  if (status.ok() && request != nullptr) {
    status = request_bytes != nullptr ? ParseRequest(*method.method, *request_bytes, request)
                                      : blocking->ReceiveOnlyRequest(request);
    if (status.ok()) interception.Received(*request);
  }
  if (status.ok()) {
    status = Invoke(method, &context, request, reply, kind == MethodKind::kUnary ? nullptr : blocking);
  }
  absl::Status failure = blocking->End();
  if (!failure.ok()) status = std::move(failure);
  status = interception.Ended(std::move(status), reply);
  FinishServerCall(calls, std::move(call), *method.method, context, std::move(status), reply);
}

}  // namespace

void RunSynchronous(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
                    const IncomingMessage* request) {
  if (ABSL_PREDICT_TRUE(method.method->kind == MethodKind::kUnary && request != nullptr &&
                        calls->interceptors().empty())) {
    RunUnary(calls, method, std::move(call), *request);
  } else {
    RunWithEvents(calls, method, std::move(call), request);
  }
}

}  // namespace internal

internal::ServerCallControl& ServerContext::GetControl() const {
  internal::ServerCallControl* present = control();
  if (present != nullptr) return *present;
  auto* const made = new internal::BlockingServerCall(call_);  // RunUnary ends it
  if (control_.compare_exchange_strong(present, made, std::memory_order_acq_rel)) return *made;
  made->End().IgnoreError();
  return *present;
}

void ServerContext::SetCancellationCallback(absl::AnyInvocable<void()> callback) {
  GetControl().SetCancellationCallback(std::move(callback));
}

}  // namespace shmrpc
