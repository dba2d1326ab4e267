#include "shmrpc/generated.h"

#include "absl/strings/str_cat.h"

namespace shmrpc::internal {

absl::Status Unimplemented(const char* path) {
  return absl::UnimplementedError(absl::StrCat("the server does not implement ", path));
}

Task<absl::Status> CoUnimplemented(const char* path) { co_return Unimplemented(path); }

}  // namespace shmrpc::internal
