// Handlers that block the thread that brings the call.

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/optimization.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/blocking_server_call.h"
#include "runtime/src/message_pool.h"
#include "runtime/src/running_handlers.h"
#include "runtime/src/server_context_access.h"
#include "runtime/src/server_interception.h"
#include "runtime/src/server_styles.h"

namespace shmrpc {
namespace internal {
namespace {

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
  // Not on an arena, which gives back nothing before the call is over: a handler may change its reply with each of a
  // million messages.
  std::unique_ptr<google::protobuf::MessageLite> request;
  std::unique_ptr<google::protobuf::MessageLite> reply;
  if (!ClientStreams(kind)) request.reset(method.method->request_prototype().New());
  if (!ServerStreams(kind)) reply.reset(method.method->reply_prototype().New());
  const IncomingMessage* const only_message = ClientStreams(kind) ? request_bytes : nullptr;
  auto* const blocking = new BlockingServerCall(call.get(), calls, method.method, only_message);
  ServerContext context(call.get(), blocking);
  ServerInterception interception(*calls, *method.method, &context);
  blocking->set_context(&context, &interception);
  blocking->Start();

  absl::Status status = interception.Begin();
  if (status.ok() && request != nullptr) {
    status = request_bytes != nullptr ? ParseRequest(*method.method, *request_bytes, request.get())
                                      : blocking->ReceiveOnlyRequest(request.get());
    if (status.ok()) interception.Received(*request);
  }
  if (status.ok()) {
    status = Invoke(method, &context, request.get(), reply.get(), kind == MethodKind::kUnary ? nullptr : blocking);
  }
  absl::Status failure = blocking->End();
  if (!failure.ok()) status = std::move(failure);
  status = interception.Ended(*call, std::move(status), reply.get());
  FinishServerCall(calls, std::move(call), *method.method, context, std::move(status), reply.get());
}

}  // namespace

void RunSynchronous(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
                    const IncomingMessage* request) {
  const HandlerScope in_the_handler(&method);
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
