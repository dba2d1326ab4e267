#ifndef SHMRPC_RUNTIME_SRC_ACCESS_CHECK_H_
#define SHMRPC_RUNTIME_SRC_ACCESS_CHECK_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "shmrpc/access.h"
#include "shmrpc/peer.h"

namespace shmrpc::internal {

// The ids of this process, and which ids of others say who they are. A value type.
struct Viewpoint {
  uid_t uid = 0;  // effective
  // What users and groups look like that do not exist in this process's user namespace; nullopt: all of them exist, and
  // so each id is somebody's own.
  std::optional<uid_t> overflow_uid;
  std::optional<gid_t> overflow_gid;

  // As the kernel says now. Where it does not say, an overflow id counts as ambiguous.
  static Viewpoint OfThisProcess();
};

// Whether `policy` lets a peer in. `peer` is nullopt when the kernel does not tell who it is.
bool LetsIn(const AccessPolicy& policy, const std::optional<PeerCredentials>& peer, const Viewpoint& own);

// Who it is, for messages: "uid 1000", or with what makes an id ambiguous.
std::string DescribeUser(const std::optional<PeerCredentials>& peer, const Viewpoint& own);

// What a refusal says: "the client runs as another user (uid 1000) than those that the server shares memory with:
// ServerBuilder::SetSharedMemoryAccess names them, by default the own one (uid 0) and root". Empty: `policy` lets the
// peer in. `peer_is`: "the client". `purpose`: "the server shares memory with". `option`: where the policy is from.
std::string WhyNotLetIn(const AccessPolicy& policy, const std::optional<PeerCredentials>& peer,
                        std::string_view peer_is, std::string_view purpose, std::string_view option);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_ACCESS_CHECK_H_
