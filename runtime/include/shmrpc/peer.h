#ifndef SHMRPC_PEER_H_
#define SHMRPC_PEER_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace shmrpc {

// Who is at the other end of a Unix socket, from the kernel (SO_PEERCRED, SO_PEERGROUPS), which a peer cannot forge.
//
// It is the process that has connected, as it was then: a client's at its connect(), a server's when it began to
// listen. If it has changed its user since, or has handed the connection to another process, this does not show it.
// Ids are as seen from this process's namespaces: a user or group that does not exist here appears as the overflow id
// (65534), see AccessPolicy. A value type.
struct PeerCredentials {
  uid_t uid = 0;                            // effective
  std::optional<gid_t> gid = std::nullopt;  // effective; unknown over gRPC
  std::optional<pid_t> pid = std::nullopt;  // unknown over gRPC, and of a process that is not in this PID namespace
  std::vector<gid_t> groups = {};           // supplementary; may contain gid; empty before Linux 4.13 and over gRPC
};

// Who is at the other end of a connection. A value type.
struct Peer {
  std::string transport;  // "shm", "tcp", "unix", "inproc", "grpc"
  std::string address;    // e.g. "ipv4:127.0.0.1:41922"; for people and logs
  // Where the connection has, or was agreed on over, a Unix socket, and within the process; none over TCP.
  std::optional<PeerCredentials> credentials;
};

}  // namespace shmrpc

#endif  // SHMRPC_PEER_H_
