#ifndef SHMRPC_RUNTIME_SRC_SERVER_CONTEXT_ACCESS_H_
#define SHMRPC_RUNTIME_SRC_SERVER_CONTEXT_ACCESS_H_

#include <cstddef>
#include <memory>
#include <optional>

#include "shmrpc/server_context.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {

// What the code that runs calls does with their contexts.
class ServerContextAccess {
 public:
  static internal::ServerCallControl* control(const ServerContext& context) { return context.control(); }
  static SteadyTime deadline(const ServerContext& context) { return context.call_->deadline(); }
  static std::shared_ptr<internal::CancellationScope> cancellation_scope(const ServerContext& context) {
    return context.GetControl().cancellation_scope();
  }

  // How many pairs of the initial metadata have been sent, or nullopt.
  static std::optional<size_t> initial_metadata_sent(const ServerContext& context) {
    return context.initial_metadata_sent_;
  }
  static void MarkInitialMetadataSent(ServerContext* context) {
    context->initial_metadata_sent_ = context->initial_metadata_.size();
  }
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_SERVER_CONTEXT_ACCESS_H_
