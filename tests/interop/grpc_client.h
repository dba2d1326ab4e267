#ifndef SHMRPC_TESTS_INTEROP_GRPC_CLIENT_H_
#define SHMRPC_TESTS_INTEROP_GRPC_CLIENT_H_

#include <string>

#include "cases.h"

namespace shmrpc::interop {

// The cases, through gRPC's own C++ client.
Cases GrpcCases(const std::string& target);

}  // namespace shmrpc::interop

#endif  // SHMRPC_TESTS_INTEROP_GRPC_CLIENT_H_
