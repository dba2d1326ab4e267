#ifndef SHMRPC_TESTS_SOAK_SERVICES_H_
#define SHMRPC_TESTS_SOAK_SERVICES_H_

#include <memory>

#include "shmrpc/shmrpc.h"
#include "tests/soak/handler_call.h"
#include "tests/soak/plan.h"

namespace shmrpc::soak {

// The service in each style; they behave the same. `environment` outlives it.
std::unique_ptr<Service> MakeBlockingService(const ServerEnvironment& environment);
std::unique_ptr<Service> MakeCallbackService(const ServerEnvironment& environment);
std::unique_ptr<Service> MakeCoroutineService(const ServerEnvironment& environment);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_SERVICES_H_
