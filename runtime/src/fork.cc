#include "runtime/src/fork.h"

#include <pthread.h>

namespace shmrpc::internal {

constinit std::atomic<uint32_t> fork_generation{0};

namespace {

[[maybe_unused]] const int registered = pthread_atfork(
    nullptr, nullptr, +[] { fork_generation.fetch_add(1, std::memory_order_relaxed); });

}  // namespace
}  // namespace shmrpc::internal
