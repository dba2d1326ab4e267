#ifndef SHMRPC_TRANSPORTS_TCP_SOCKET_ADDRESS_H_
#define SHMRPC_TRANSPORTS_TCP_SOCKET_ADDRESS_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "shmrpc/peer.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/target.h"

namespace shmrpc::tcp {

// Where a stream socket listens or connects: IPv4, IPv6 or Unix. A value type; invalid until it is given an address.
class SocketAddress {
 public:
  SocketAddress() = default;

  // Copies `length` bytes that a system call filled in, or that a caller made.
  SocketAddress(const sockaddr* address, socklen_t length);

  // A literal IPv4 or IPv6 address (without brackets, maybe with a zone as in fe80::1%eth0); nullopt for anything else.
  static std::optional<SocketAddress> FromLiteral(std::string_view host, uint16_t port);

  // INVALID_ARGUMENT when the path or name is empty or longer than the kernel takes.
  static absl::StatusOr<SocketAddress> FromUnixPath(std::string_view path);
  static absl::StatusOr<SocketAddress> FromUnixAbstractName(std::string_view name);

  const sockaddr* data() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t length() const { return length_; }
  int family() const { return length_ == 0 ? AF_UNSPEC : storage_.ss_family; }
  bool is_ip() const { return family() == AF_INET || family() == AF_INET6; }

  // The same IP host with another port.
  SocketAddress WithPort(uint16_t port) const;

  // The same address as a Target whose `original` is ToString(). Only for valid addresses.
  Target ToTarget() const;

  // A form that Target::Parse accepts: "ipv4:127.0.0.1:5", "ipv6:[::1]:5", "unix:/path", "unix-abstract:name". The
  // client's end of a Unix socket has no name: "unix:".
  std::string ToString() const;

  // Same family, host and port, or same name.
  friend bool operator==(const SocketAddress& a, const SocketAddress& b) { return a.ToString() == b.ToString(); }
  friend bool operator!=(const SocketAddress& a, const SocketAddress& b) { return !(a == b); }

 private:
  sockaddr_storage storage_ = {};
  socklen_t length_ = 0;
};

// The addresses of `target`, best first, at least one. Literal addresses and Unix names need no look-up; "localhost" is
// 127.0.0.1 and ::1 without asking anyone (RFC 6761); other names are looked up as the system is set up to
// (getaddrinfo), on a thread of their own, because that cannot be given a deadline.
// Errors: INVALID_ARGUMENT (a target without sockets, a name too long), UNAVAILABLE (the name is not known),
// DEADLINE_EXCEEDED, CANCELLED when `interrupt_fd` (-1: none) became readable meanwhile. Any thread.
absl::StatusOr<std::vector<SocketAddress>> Resolve(const Target& target,
                                                   SteadyTime deadline = SteadyTime::InfiniteFuture(),
                                                   int interrupt_fd = -1);

// The two ends of a connected socket, in SocketAddress::ToString's form; "unknown" when the kernel does not say.
std::string PeerAddress(int fd);
std::string LocalAddress(int fd);

// Whether an IP address is one of those that are served in this process's network namespace. In doubt it is not.
bool IsOnThisHost(const SocketAddress& address);

// Whether the other end of a connected TCP socket is in this process's network namespace: its address is one of those
// that are served here. In doubt it is not.
bool PeerIsOnThisHost(int fd);

// The two ends of a connected TCP socket as the protocol writes them: 16 bytes of IPv6 address (IPv4 mapped to it) and
// 2 of port, the most significant first. Both empty for other sockets. No other connection of the network namespace has
// the same two while this one, or what is left of it, exists.
struct TcpEnds {
  std::string local;
  std::string peer;
};
TcpEnds EndsOf(int fd);

// The IP host at the other end of a connected socket, "192.0.2.1"; of IPv6 hosts, which have many addresses, their
// network, "2001:db8:0:1::/64". Empty for other sockets.
std::string PeerHost(int fd);

// Who made the connection at the other end of a Unix socket. nullopt for anything but a connected Unix socket.
std::optional<PeerCredentials> GetPeerCredentials(int fd);

// Internal to this folder: poll()'s time-out until `deadline`, rounded up so that nobody spins through the last
// millisecond; -1 for "for ever".
int PollTimeout(SteadyTime deadline);

}  // namespace shmrpc::tcp

#endif  // SHMRPC_TRANSPORTS_TCP_SOCKET_ADDRESS_H_
