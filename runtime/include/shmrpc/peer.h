#ifndef SHMRPC_PEER_H_
#define SHMRPC_PEER_H_

#include <sys/types.h>

#include <string>

#include "absl/types/optional.h"

namespace shmrpc {

// Who is at the other end of a connection. A value type.
struct Peer {
  std::string transport;  // "shm", "tcp", "unix", "inproc", "grpc"
  std::string address;    // e.g. "ipv4:127.0.0.1:41922"; for people and logs
  // From the kernel (SO_PEERCRED), where the transport has a Unix socket: as they were when the peer connected.
  absl::optional<uid_t> uid;
  absl::optional<pid_t> pid;
};

}  // namespace shmrpc

#endif  // SHMRPC_PEER_H_
