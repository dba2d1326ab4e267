#include "runtime/src/misuse.h"

#include <stdio.h>
#include <stdlib.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/log.h"

namespace shmrpc::internal {

absl::Status Misuse(std::string_view text) {
#ifndef NDEBUG
  FatalMisuse(text);
#else
  static LogLimiter limiter;
  LogWarningLimited(limiter, absl::StrCat("a mistake in this program: ", ToAbsl(text)));
  return absl::FailedPreconditionError(ToAbsl(text));
#endif
}

void FatalMisuse(std::string_view text) {
  // As assert does: whatever has become of the log, the program's end is explained.
  fprintf(stderr, "shmrpc: a mistake in this program: %s\n", std::string(text).c_str());
  abort();
}

}  // namespace shmrpc::internal
