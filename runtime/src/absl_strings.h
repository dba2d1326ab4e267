#ifndef SHMRPC_RUNTIME_SRC_ABSL_STRINGS_H_
#define SHMRPC_RUNTIME_SRC_ABSL_STRINGS_H_

#include <string_view>

#include "absl/strings/string_view.h"

namespace shmrpc {

// The library says std::string_view. Abseil's functions take and give absl::string_view, which is the same type in some
// builds of Abseil and another one, without conversions, in others (Debian's). Both of these compile with either.
inline absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }
inline std::string_view ToStd(absl::string_view text) { return std::string_view(text.data(), text.size()); }

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_ABSL_STRINGS_H_
