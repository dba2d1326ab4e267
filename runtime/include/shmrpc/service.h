#ifndef SHMRPC_SERVICE_H_
#define SHMRPC_SERVICE_H_

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/method_kind.h"
#include "shmrpc/server_context.h"

namespace shmrpc {

class CoServerStream;
class ServerReactor;
class ServerStream;
class Service;
template <typename T>
class Task;

// One method of a service, as generated code describes it to the server: plain data, so that nothing is instantiated
// per method. One of the three functions is set, and says in which style the method is written. They are given messages
// made by the two prototypes' New(), which live until the call is done; `request` is null when the client streams,
// `reply` when the server does, `stream` when neither does.
struct ServiceMethod {
  // Blocks until the method is done.
  using Invoke = absl::Status (*)(Service* service, ServerContext* context,
                                  const google::protobuf::MessageLite* request, google::protobuf::MessageLite* reply,
                                  ServerStream* stream);
  // Starts the method: the reactor, not null, finishes it.
  using React = ServerReactor* (*)(Service* service, ServerContext* context,
                                   const google::protobuf::MessageLite* request, google::protobuf::MessageLite* reply);
  // The method as a coroutine.
  using CoInvoke = Task<absl::Status> (*)(Service* service, ServerContext* context,
                                          const google::protobuf::MessageLite* request,
                                          google::protobuf::MessageLite* reply, CoServerStream* stream);

  const char* path;  // "/package.Service/Method"
  MethodKind kind;
  const google::protobuf::MessageLite& (*request_prototype)();
  const google::protobuf::MessageLite& (*reply_prototype)();
  Invoke invoke = nullptr;
  React react = nullptr;
  CoInvoke co_invoke = nullptr;
};

// The base of every generated Service class. Users derive from the generated class and register an object of theirs
// with ServerBuilder. Its methods are called from many threads at once.
class Service {
 public:
  virtual ~Service() = default;

  // "package.Service". The names begin with "Shmrpc" so that they stay clear of the methods of any .proto.
  virtual std::string_view ShmrpcServiceName() const = 0;

  // The methods that the server serves. Static data.
  virtual std::span<const ServiceMethod> ShmrpcMethods() const = 0;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVICE_H_
