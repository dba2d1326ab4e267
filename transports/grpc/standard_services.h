#ifndef SHMRPC_TRANSPORTS_GRPC_STANDARD_SERVICES_H_
#define SHMRPC_TRANSPORTS_GRPC_STANDARD_SERVICES_H_

#include "google/protobuf/descriptor.h"

namespace shmrpc::grpc_transport {

// The descriptors of the services that a server may have without a .proto of the program: health and reflection. For
// reflection only: they are in a pool of their own, because a program may have the same definitions in the global one.
// Made when first asked for, and never destroyed. Thread-safe.
const google::protobuf::DescriptorPool& StandardServices();

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_STANDARD_SERVICES_H_
