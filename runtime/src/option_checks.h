#ifndef SHMRPC_RUNTIME_SRC_OPTION_CHECKS_H_
#define SHMRPC_RUNTIME_SRC_OPTION_CHECKS_H_

// What options of channels and servers have to keep. INVALID_ARGUMENT names the option, its value and what is allowed.

#include <string_view>

#include "absl/status/status.h"
#include "shmrpc/options.h"
#include "shmrpc/transport.h"

namespace shmrpc::internal {

// `option`: whose it is, "ServerBuilder::SetFlowControl".
absl::Status CheckFlowControl(std::string_view option, const FlowControlOptions& options);

absl::Status CheckConnectionLimits(const ConnectionLimits& limits);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_OPTION_CHECKS_H_
