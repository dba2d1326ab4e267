#ifndef SHMRPC_RUNTIME_SRC_SERVER_INTERCEPTION_H_
#define SHMRPC_RUNTIME_SRC_SERVER_INTERCEPTION_H_

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/server_call.h"
#include "runtime/src/server_calls.h"
#include "shmrpc/server_context.h"
#include "shmrpc/server_interceptor.h"

namespace shmrpc::internal {

// What the interceptors of a server want of one call. For servers without any all of it does nothing, cheaply.
class ServerInterception final : public InterceptedServerCall {
 public:
  ServerInterception(const ServerCalls& calls, const ServiceMethod& method, ServerContext* context)
      : InterceptedServerCall(context, method.kind), calls_(calls), service_method_(method) {}

  // Runs the interceptors. What one of them rejects the call with, or OK.
  absl::Status Begin();

  // What happens to the call.
  void Received(const google::protobuf::MessageLite& message);
  void Sending(const google::protobuf::MessageLite& message);

  // Just before FinishServerCall, with the same `call`, `status` and `reply`: the status to finish with.
  absl::Status Ended(const ServerCall& call, absl::Status status, const google::protobuf::MessageLite* reply);

 private:
  const ServerCalls& calls_;
  const ServiceMethod& service_method_;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_SERVER_INTERCEPTION_H_
