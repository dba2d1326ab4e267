#ifndef SHMRPC_CODEGEN_COMMENTS_H_
#define SHMRPC_CODEGEN_COMMENTS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace shmrpc::codegen {

// The lines of a .proto's comment, each fit to follow "//" in C++: no line ends in a backslash, which would make the
// next line part of the comment. A line begins with the space that the .proto has after "//"; empty lines at the
// beginning and end are dropped.
std::vector<std::string> CommentLines(absl::string_view comment);

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_COMMENTS_H_
