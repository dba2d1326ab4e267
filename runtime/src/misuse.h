#ifndef SHMRPC_RUNTIME_SRC_MISUSE_H_
#define SHMRPC_RUNTIME_SRC_MISUSE_H_

#include <string_view>

#include "absl/status/status.h"

namespace shmrpc::internal {

// For what is certainly a mistake in the program, and would otherwise end in a hang, or in memory being used that is
// gone. `text` says what, of which call, and what the rule is.
//
// A library that was built without NDEBUG (the preset debug) says so and aborts: where the mistake was made is on the
// stack. Any other logs it, as an error, and returns FAILED_PRECONDITION with the text, for whoever can be told.
absl::Status Misuse(std::string_view text);

// The same where going on is not possible: aborts in any build.
[[noreturn]] void FatalMisuse(std::string_view text);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_MISUSE_H_
