#ifndef SHMRPC_RUNTIME_SRC_SMALL_FILE_H_
#define SHMRPC_RUNTIME_SRC_SMALL_FILE_H_

#include <optional>
#include <string>

namespace shmrpc::internal {

// What a file of /proc or /sys says, of which the first 8 KiB are enough. nullopt when it cannot be read, which may be
// for want of a descriptor; errno says why. Any thread.
std::optional<std::string> ReadSmallFile(const std::string& path);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_SMALL_FILE_H_
