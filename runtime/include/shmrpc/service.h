#ifndef SHMRPC_SERVICE_H_
#define SHMRPC_SERVICE_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/server_context.h"

namespace shmrpc {

class Service;

// One method of a service, as generated code describes it to the server: plain data, so that nothing is instantiated
// per method. `invoke` is given messages made by the two prototypes' New().
struct ServiceMethod {
  using Invoke = absl::Status (*)(Service* service, ServerContext* context,
                                  const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply);

  const char* path;  // "/package.Service/Method"
  const google::protobuf::MessageLite& (*request_prototype)();
  const google::protobuf::MessageLite& (*reply_prototype)();
  Invoke invoke;
};

// The base of every generated Service class. Users derive from the generated class and register an object of theirs
// with ServerBuilder. Its methods are called from many threads at once.
class Service {
 public:
  virtual ~Service() = default;

  // "package.Service". The names begin with "Shmrpc" so that they stay clear of the methods of any .proto.
  virtual absl::string_view ShmrpcServiceName() const = 0;

  // The methods that the server serves. Static data.
  virtual absl::Span<const ServiceMethod> ShmrpcMethods() const = 0;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVICE_H_
