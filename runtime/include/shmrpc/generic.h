#ifndef SHMRPC_GENERIC_H_
#define SHMRPC_GENERIC_H_

// Calls and services whose methods and message types are known at run time only: proxies, tools, bridges.
//
//   shmrpc::GenericStub stub(shmrpc::Channel::Create("localhost:50051"));
//   shmrpc::RawMessage request(encoded_request), reply;
//   absl::Status status = stub.UnaryCall(&context, "/hello.Greeter/SayHello", request, &reply);
//
// Messages are the bytes that protobuf encodes; nothing looks into them.

#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_reactor.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/raw_message.h"
#include "shmrpc/server_context.h"
#include "shmrpc/server_coroutine.h"
#include "shmrpc/server_reactor.h"
#include "shmrpc/server_stream.h"
#include "shmrpc/service.h"
#include "shmrpc/stub.h"
#include "shmrpc/task.h"

namespace shmrpc {

// Calls methods of any service by name.
//
// `method` is "/package.Service/Method", 4,096 bytes at most, and is copied: a call with another form of name ends with
// INVALID_ARGUMENT and nothing is sent. `context` is not null, and lives as for calls of generated stubs, as do
// messages. A streaming call is for methods of every kind: a side that sends one message sends it as the only one of
// its stream. Cheap to make and to copy, any number for a channel. Thread-safe.
class GenericStub final {
 public:
  explicit GenericStub(std::shared_ptr<Channel> channel);

  // Waiting.
  absl::Status UnaryCall(ClientContext* context, std::string_view method, const RawMessage& request, RawMessage* reply);
  std::unique_ptr<ClientReaderWriter<RawMessage, RawMessage>> StreamingCall(ClientContext* context,
                                                                            std::string_view method);

  // With callbacks.
  void AsyncUnaryCall(ClientContext* context, std::string_view method, const RawMessage* request, RawMessage* reply,
                      StatusCallback done);
  void AsyncStreamingCall(ClientContext* context, std::string_view method,
                          ClientBidiReactor<RawMessage, RawMessage>* reactor);

  // For coroutines.
  CoUnaryCall<RawMessage> CoroutineUnaryCall(ClientContext* context, std::string_view method,
                                             const RawMessage& request);
  CoClientReaderWriter<RawMessage, RawMessage> CoroutineStreamingCall(ClientContext* context, std::string_view method);

 private:
  std::shared_ptr<Channel> channel_;
};

// What ServerBuilder::RegisterGeneric takes: the one of the three classes below that has the style of the handler.
class GenericServiceBase : public Service {
 public:
  std::string_view ShmrpcServiceName() const final { return {}; }

 private:
  friend class GenericService;
  friend class CallbackGenericService;
  friend class CoGenericService;
  GenericServiceBase() = default;
};

// Serves every method that no registered service has. context->method() tells which one is called, and
// context->client_metadata() what comes with it. The messages of the client come one by one, whether the method streams
// or not; what is written goes to the client. A handler that does not know the method returns
// absl::UnimplementedError. Called from many threads at once; for exceptions, cancellation and deadlines the rules are
// those of generated services.
//
//   class Proxy final : public shmrpc::GenericService {
//     absl::Status Call(shmrpc::ServerContext* context,
//                       shmrpc::ServerReaderWriter<shmrpc::RawMessage, shmrpc::RawMessage>* stream) override;
//   };
class GenericService : public GenericServiceBase {
 public:
  virtual absl::Status Call(ServerContext* context, ServerReaderWriter<RawMessage, RawMessage>* stream) = 0;
  std::span<const ServiceMethod> ShmrpcMethods() const final;
};

// The same with reactors.
class CallbackGenericService : public GenericServiceBase {
 public:
  virtual ServerBidiReactor<RawMessage, RawMessage>* Call(ServerContext* context) = 0;
  std::span<const ServiceMethod> ShmrpcMethods() const final;
};

// The same with coroutines.
class CoGenericService : public GenericServiceBase {
 public:
  virtual Task<absl::Status> Call(ServerContext* context, CoServerReaderWriter<RawMessage, RawMessage>* stream) = 0;
  std::span<const ServiceMethod> ShmrpcMethods() const final;
};

}  // namespace shmrpc

#endif  // SHMRPC_GENERIC_H_
