#ifndef SHMRPC_TESTS_INTEROP_SHMRPC_CLIENT_H_
#define SHMRPC_TESTS_INTEROP_SHMRPC_CLIENT_H_

#include <string>

#include "cases.h"

namespace shmrpc::interop {

// The cases, against the server at `address`, to which "@TRANSPORT" may be added.
Cases ShmrpcCases(const std::string& address);

}  // namespace shmrpc::interop

#endif  // SHMRPC_TESTS_INTEROP_SHMRPC_CLIENT_H_
