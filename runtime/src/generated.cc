#include "shmrpc/generated.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/misuse.h"

namespace shmrpc::internal {

absl::Status Unimplemented(const char* path) {
  return absl::UnimplementedError(absl::StrCat("the server does not implement ", path));
}

Task<absl::Status> CoUnimplemented(const char* path) { co_return Unimplemented(path); }

std::shared_ptr<Channel> NotNull(std::shared_ptr<Channel> channel) {
  if (channel != nullptr) return channel;
  return ChannelAccess::Unusable(Misuse("a stub was made with a null channel; Channel::Create gives one"));
}

}  // namespace shmrpc::internal
