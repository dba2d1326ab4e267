#ifndef SHMRPC_TRANSPORTS_SHM_FD_PASSING_H_
#define SHMRPC_TRANSPORTS_SHM_FD_PASSING_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::shm {

// Passing file descriptors over a connected Unix stream socket. A descriptor travels with the first of the bytes it was
// sent with. Neither function blocks; any thread.

// What ReceiveWithFds gathers at most: the protocol never sends more with a hello. A peer can fill this process's table
// with no more than this, and the kernel drops the others before they are in it.
inline constexpr size_t kMaxFdsReceived = 1;

// Sends `bytes`, not empty, and with them a copy of the descriptor `fd` (-1: none). Returns how many bytes were taken;
// if it was at least one, `fd` has been sent, and the rest goes without it. 0: the socket is full. UNAVAILABLE: the
// peer has closed, or takes no descriptors; ABORTED: it has reset the connection. RESOURCE_EXHAUSTED: too many
// descriptors are on their way (ETOOMANYREFS).
absl::StatusOr<size_t> SendWithFd(int socket, std::span<const uint8_t> bytes, int fd);

// Receives up to buffer.size() bytes, and appends to `fds` the descriptors that came with them. Returns how many bytes
// came: 0 when the peer has closed, nullopt when there is nothing now.
// Every descriptor the kernel hands over has an owner at once and is close-on-exec. On an error those of this call have
// been closed: INVALID_ARGUMENT, the peer sent more than kMaxFdsReceived; RESOURCE_EXHAUSTED, this process has no room
// for it (RLIMIT_NOFILE), and it is lost; UNAVAILABLE, the connection broke; ABORTED, the peer has reset it.
absl::StatusOr<std::optional<size_t>> ReceiveWithFds(int socket, std::span<uint8_t> buffer,
                                                     std::vector<framed::UniqueFd>* fds);

// From now on nobody can pass descriptors over this Unix socket (Linux 6.16: the peer's send fails with EPERM), or, of
// a listening socket, over those that it accepts. Where the kernel cannot do this, nothing happens.
//
// A descriptor that is not wanted costs more than its place: whoever drops the last reference to it does what closing
// it means, which a file system in user space or a socket with SO_LINGER can make last for as long as they like.
void RefuseFds(int socket);

// Closes a descriptor that a peer has passed: on another thread unless it is a memfd. The caller waits only when peers
// have made 256 of them block.
void CloseReceived(framed::UniqueFd fd);

// Closes a Unix socket to whose peer nothing is to be said any more, in the same way if there is something in its
// queue: it may be descriptors.
void CloseUnread(framed::UniqueFd socket);

}  // namespace shmrpc::shm

#endif  // SHMRPC_TRANSPORTS_SHM_FD_PASSING_H_
