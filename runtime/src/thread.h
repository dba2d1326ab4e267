#ifndef SHMRPC_RUNTIME_SRC_THREAD_H_
#define SHMRPC_RUNTIME_SRC_THREAD_H_

#include <thread>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace shmrpc::internal {

// Starts a thread of the library: it runs `body`, shows as `name` (at most 15 characters) in debuggers and `top -H`,
// and has all signals blocked, so that the program's signal handlers never run on it. RESOURCE_EXHAUSTED when the
// system has no thread left to give.
absl::StatusOr<std::thread> StartThread(const char* name, absl::AnyInvocable<void()> body);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_THREAD_H_
