#ifndef SHMRPC_RUNTIME_SRC_PEER_TEXT_H_
#define SHMRPC_RUNTIME_SRC_PEER_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace shmrpc::internal {

// How an error, or a line of the log, repeats what a peer has said: escaped as C does it, and cut to kMostPeerText
// bytes, with "..." and the length where something is missing. Otherwise a small request could ask for a large reply.
inline constexpr size_t kMostPeerText = 256;
std::string PeerText(absl::string_view text);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_PEER_TEXT_H_
