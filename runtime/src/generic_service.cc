#include "shmrpc/generated.h"
#include "shmrpc/generic.h"

namespace shmrpc {
namespace {

// Stands for the method in texts that do not know the call.
constexpr char kPath[] = "a method of the generic service";

using Message = google::protobuf::MessageLite;

}  // namespace

std::span<const ServiceMethod> GenericService::ShmrpcMethods() const {
  static constexpr ServiceMethod kMethods[] = {{
      .path = kPath,
      .kind = MethodKind::kBidiStreaming,
      .request_prototype = internal::Prototype<RawMessage>,
      .reply_prototype = internal::Prototype<RawMessage>,
      .invoke =
          [](Service* service, ServerContext* context, const Message*, Message*, ServerStream* stream) {
            ServerReaderWriter<RawMessage, RawMessage> typed_stream(stream);
            return static_cast<GenericService*>(service)->Call(context, &typed_stream);
          },
  }};
  return kMethods;
}

std::span<const ServiceMethod> CallbackGenericService::ShmrpcMethods() const {
  static constexpr ServiceMethod kMethods[] = {{
      .path = kPath,
      .kind = MethodKind::kBidiStreaming,
      .request_prototype = internal::Prototype<RawMessage>,
      .reply_prototype = internal::Prototype<RawMessage>,
      .react = [](Service* service, ServerContext* context, const Message*, Message*) -> ServerReactor* {
        return static_cast<CallbackGenericService*>(service)->Call(context);
      },
  }};
  return kMethods;
}

std::span<const ServiceMethod> CoGenericService::ShmrpcMethods() const {
  static constexpr ServiceMethod kMethods[] = {{
      .path = kPath,
      .kind = MethodKind::kBidiStreaming,
      .request_prototype = internal::Prototype<RawMessage>,
      .reply_prototype = internal::Prototype<RawMessage>,
      .co_invoke = [](Service* service, ServerContext* context, const Message*, Message*,
                      CoServerStream* stream) -> Task<absl::Status> {
        CoServerReaderWriter<RawMessage, RawMessage> typed_stream(stream);
        auto handler = static_cast<CoGenericService*>(service)->Call(context, &typed_stream);
        co_return co_await std::move(handler);
      },
  }};
  return kMethods;
}

}  // namespace shmrpc
