#ifndef SHMRPC_TRANSPORTS_TCP_CONNECT_SOCKET_H_
#define SHMRPC_TRANSPORTS_TCP_CONNECT_SOCKET_H_

#include "absl/status/statusor.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/target.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::tcp {

// Connects a stream socket to `target`, which may be a host and port or a Unix socket. Tries the target's addresses in
// turn: the next one as soon as one has failed, and beside one that has not answered within a quarter of a second, so
// that an address that swallows packets costs no more than that. The first to connect is the one. The socket is
// non-blocking and close-on-exec, with TCP_NODELAY where it is TCP. Blocks; any thread.
//
// Errors, which name the addresses, the reason and what to do:
//   UNAVAILABLE         nobody listens, the host cannot be reached, this process has no descriptor left, ...: worth
//                       another try later
//   DEADLINE_EXCEEDED   `deadline` passed
//   CANCELLED           `interrupt_fd` (-1: none) became readable
//   INVALID_ARGUMENT    `target` can never be connected to
absl::StatusOr<framed::UniqueFd> ConnectSocket(const Target& target, SteadyTime deadline, int interrupt_fd = -1);

}  // namespace shmrpc::tcp

#endif  // SHMRPC_TRANSPORTS_TCP_CONNECT_SOCKET_H_
