#ifndef SHMRPC_REFLECTION_H_
#define SHMRPC_REFLECTION_H_

// gRPC's server reflection, by which tools such as grpcurl learn of a server's services, methods and messages. Part of
// the library shmrpc::grpc, because such tools speak gRPC; the service itself works over every transport.
//
//   shmrpc::ServerBuilder builder(shmrpc::TransportsWithGrpc());
//   builder.Register(&greeter);
//   const std::unique_ptr<shmrpc::Reflection> reflection = shmrpc::AddReflection(&builder);  // outlives the server
//
// It answers from the descriptors that are linked into the program: those of messages generated for the lite runtime,
// among them the health service's, are not, so that such a service is listed but not described.

#include <memory>

#include "shmrpc/server.h"

namespace shmrpc {

// Keeps the services grpc.reflection.v1alpha.ServerReflection and grpc.reflection.v1.ServerReflection.
class Reflection {
 public:
  virtual ~Reflection() = default;
};

// Registers both with `builder`. They list what is registered there by now, and themselves.
std::unique_ptr<Reflection> AddReflection(ServerBuilder* builder);

}  // namespace shmrpc

#endif  // SHMRPC_REFLECTION_H_
