#include <cstdlib>
#include <utility>

#include "runtime/src/client_call_access.h"
#include "runtime/src/log.h"
#include "shmrpc/generic.h"

namespace shmrpc {
namespace {

// The name, kept by the context, and shared with the call.
const char* KeepMethod(ClientContext* context, std::string_view method) {
  if (context == nullptr) {
    internal::LogWarning("a call of GenericStub was given no ClientContext: make one for each call");
    std::abort();
  }
  return ClientCallAccess::KeepMethod(context, method);
}

}  // namespace

GenericStub::GenericStub(std::shared_ptr<Channel> channel) : channel_(std::move(channel)) {}

absl::Status GenericStub::UnaryCall(ClientContext* context, std::string_view method, const RawMessage& request,
                                    RawMessage* reply) {
  return shmrpc::UnaryCall(*channel_, KeepMethod(context, method), context, request, reply);
}

std::unique_ptr<ClientReaderWriter<RawMessage, RawMessage>> GenericStub::StreamingCall(ClientContext* context,
                                                                                       std::string_view method) {
  return std::make_unique<ClientReaderWriter<RawMessage, RawMessage>>(
      StartClientStream(channel_, KeepMethod(context, method), MethodKind::kBidiStreaming, context, nullptr, nullptr));
}

void GenericStub::AsyncUnaryCall(ClientContext* context, std::string_view method, const RawMessage* request,
                                 RawMessage* reply, StatusCallback done) {
  shmrpc::AsyncUnaryCall(channel_, KeepMethod(context, method), context, *request, reply, std::move(done));
}

void GenericStub::AsyncStreamingCall(ClientContext* context, std::string_view method,
                                     ClientBidiReactor<RawMessage, RawMessage>* reactor) {
  PrepareClientReactor(channel_, KeepMethod(context, method), MethodKind::kBidiStreaming, context, nullptr, nullptr,
                       reactor);
}

CoUnaryCall<RawMessage> GenericStub::CoroutineUnaryCall(ClientContext* context, std::string_view method,
                                                        const RawMessage& request) {
  return CoUnaryCall<RawMessage>(channel_, KeepMethod(context, method), context, request);
}

CoClientReaderWriter<RawMessage, RawMessage> GenericStub::CoroutineStreamingCall(ClientContext* context,
                                                                                 std::string_view method) {
  return CoClientReaderWriter<RawMessage, RawMessage>(channel_, KeepMethod(context, method), context);
}

}  // namespace shmrpc
