#ifndef SHMRPC_TRANSPORTS_SHM_FD_PASSING_H_
#define SHMRPC_TRANSPORTS_SHM_FD_PASSING_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::shm {

// Passing file descriptors over a connected Unix stream socket. A descriptor travels with the first of the bytes it was
// sent with. Neither function blocks; any thread.

// What ReceiveWithFds gathers at most. The protocol never sends more than one with a hello; a peer that sends its hello
// byte by byte, with descriptors at each, is not to fill this process's table.
inline constexpr size_t kMaxFdsReceived = 4;

// Sends `bytes`, not empty, and with them a copy of the descriptor `fd` (-1: none). Returns how many bytes were taken;
// if it was at least one, `fd` has been sent, and the rest goes without it. 0: the socket is full. UNAVAILABLE: the
// peer has closed. RESOURCE_EXHAUSTED: too many descriptors are on their way (ETOOMANYREFS).
absl::StatusOr<size_t> SendWithFd(int socket, absl::Span<const uint8_t> bytes, int fd);

// Receives up to buffer.size() bytes, and appends to `fds` the descriptors that came with them. Returns how many bytes
// came: 0 when the peer has closed, nullopt when there is nothing now.
// Every descriptor the kernel hands over has an owner at once and is close-on-exec. On an error those of this call have
// been closed: INVALID_ARGUMENT, more than kMaxFdsReceived in `fds`; RESOURCE_EXHAUSTED, this process has no room for
// them (RLIMIT_NOFILE), and some are lost; UNAVAILABLE, the connection broke.
absl::StatusOr<std::optional<size_t>> ReceiveWithFds(int socket, absl::Span<uint8_t> buffer,
                                                     std::vector<framed::UniqueFd>* fds);

}  // namespace shmrpc::shm

#endif  // SHMRPC_TRANSPORTS_SHM_FD_PASSING_H_
