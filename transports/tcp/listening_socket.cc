#include "transports/tcp/listening_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/src/log.h"
#include "transports/framed/errno_name.h"
#include "transports/tcp/socket_address.h"
#include "transports/tcp/socket_options.h"

namespace shmrpc::tcp {
namespace {

using framed::ErrnoText;
using framed::UniqueFd;

absl::Status CouldNotListen(const SocketAddress& address, int error) {
  const std::string where = address.ToString();
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError(absl::StrCat("another process listens on ", where, ": stop it or choose another ",
                                                   address.is_ip() ? "port; port 0 lets the system choose" : "name"));
    case EADDRNOTAVAIL:
      return absl::InvalidArgumentError(absl::StrCat("could not listen on ", where, ": ", ErrnoText(error),
                                                     "; no network interface of this host has this address"));
    case EAFNOSUPPORT:
      return absl::InvalidArgumentError(absl::StrCat("could not listen on ", where, ": ", ErrnoText(error),
                                                     "; this host has no IP",
                                                     address.family() == AF_INET6 ? "v6" : "v4"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("could not listen on ", where, ": ", ErrnoText(error), "; ports below 1024 need privileges"));
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return absl::ResourceExhaustedError(absl::StrCat("no socket left to listen on ", where, ": ", ErrnoText(error),
                                                       "; close connections or raise the limit (ulimit -n)"));
    default:
      return absl::UnavailableError(absl::StrCat("could not listen on ", where, ": ", ErrnoText(error)));
  }
}

// The address that the kernel chose for `socket`.
SocketAddress BoundAddress(int socket, const SocketAddress& wanted) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof(storage);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return wanted;
  return SocketAddress(reinterpret_cast<const sockaddr*>(&storage), length);
}

// Of a name's addresses, one that is not this host's: others may be. The kernel has no IPv6, or none of its interfaces
// has the address.
bool IsNotHere(int error) { return error == EADDRNOTAVAIL || error == EAFNOSUPPORT; }

// How often another port is tried when the kernel has chosen one that is in use at another address of the name.
constexpr int kPortAttempts = 16;

}  // namespace

// What has the right to put a ListeningSocket together.
class Listening {
 public:
  // At one address. `*error`: the errno behind an error, 0 if there is none.
  static absl::StatusOr<ListeningSocket> At(const SocketAddress& address, const Target& target, mode_t unix_mode,
                                            int* error) {
    *error = 0;
    const auto failed = [&] {
      *error = errno;
      return CouldNotListen(address, errno);
    };
    ListeningSocket result;
    result.fd_.Reset(socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int fd = result.fd();
    if (fd < 0) return failed();
    // For accept when others have made the socket a blocking one: see AcceptSocket.
    const timeval shortest = {0, 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &shortest, sizeof(shortest));
    result.not_for_children_ = std::make_unique<internal::NotForChildren>(fd);
    result.bound_ = address.ToTarget();
    if (target.kind == Target::Kind::kUnix) {
      absl::StatusOr<UnixSocketFile> file = UnixSocketFile::Bind(fd, target.name, unix_mode);
      if (!file.ok()) return file.status();
      result.file_ = *std::move(file);
      return result;
    }

    if (address.is_ip()) {
      // Listen again at once after a restart, although old connections of this port are in TIME_WAIT. (On Linux this
      // does not let two sockets listen on one port: the second listen() fails.)
      const int on = 1;
      if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) return failed();
      if (address.family() == AF_INET6) {
        const int v6_only = 0;
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only));
      }
    }
    if (bind(fd, address.data(), address.length()) != 0) return failed();
    if (listen(fd, SOMAXCONN) != 0) return failed();
    if (address.is_ip()) result.bound_ = BoundAddress(fd, address).ToTarget();
    if (address.is_ip() && result.bound_.port == 0) return failed();  // nobody could name the port
    return result;
  }

  static constexpr int kPortTaken = -1;

  // At all of them that are this host's, with one port. `*error`: as above, or kPortTaken when the port that the kernel
  // chose for the first one is in use at another.
  static absl::StatusOr<std::vector<ListeningSocket>> AtAll(const std::vector<SocketAddress>& addresses,
                                                            const Target& target, mode_t unix_mode, int* error) {
    std::vector<ListeningSocket> sockets;
    absl::Status not_here;
    for (const SocketAddress& address : addresses) {
      const bool choice_made = !sockets.empty() && target.port == 0 && address.is_ip();
      absl::StatusOr<ListeningSocket> socket =
          choice_made ? At(address.WithPort(sockets.front().bound().port), target, unix_mode, error)
                      : At(address, target, unix_mode, error);
      if (socket.ok()) {
        sockets.push_back(*std::move(socket));
      } else if (IsNotHere(*error)) {
        not_here.Update(socket.status());
      } else {
        if (choice_made && *error == EADDRINUSE) *error = kPortTaken;
        return socket.status();
      }
    }
    if (sockets.empty()) return not_here;  // and *error is the last one's
    return sockets;
  }
};

absl::StatusOr<std::vector<ListeningSocket>> ListenSockets(const Target& target, mode_t unix_mode) {
  const absl::StatusOr<std::vector<SocketAddress>> addresses = Resolve(target);
  if (!addresses.ok()) return addresses.status();
  int error = Listening::kPortTaken;
  absl::StatusOr<std::vector<ListeningSocket>> sockets = absl::UnavailableError("");
  for (int i = 0; i < kPortAttempts && !sockets.ok() && error == Listening::kPortTaken; ++i) {
    sockets = Listening::AtAll(*addresses, target, unix_mode, &error);
  }
  // [::] means all addresses, and without IPv6 these are all.
  if (sockets.ok() || target.host != "::" || !IsNotHere(error)) return sockets;
  Target all = target;
  all.host = "0.0.0.0";
  sockets = ListenSockets(all, unix_mode);
  if (sockets.ok()) {
    internal::LogWarning(absl::StrCat("this host has no IPv6: the server listens on ",
                                      sockets->front().bound().ToString(), " instead of ", target.ToString()));
  }
  return sockets;
}

absl::StatusOr<std::optional<UniqueFd>> AcceptSocket(int listening_fd) {
  // More connections than these that break before they are accepted are not accepted at all: the call is refused to this
  // process (seccomp).
  constexpr int kBroken = 1000;
  for (int broken = 0;; ++broken) {
    sockaddr_storage peer = {};
    socklen_t length = sizeof(peer);
    UniqueFd socket(accept4(listening_fd, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      if (peer.ss_family == AF_INET || peer.ss_family == AF_INET6) SetTcpOptions(socket.get());
      return std::optional<UniqueFd>(std::move(socket));
    }
    switch (errno) {
      case EAGAIN:
        return std::nullopt;
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        return absl::ResourceExhaustedError(absl::StrCat("a connection to ", LocalAddress(listening_fd),
                                                         " could not be accepted: ", ErrnoText(errno),
                                                         "; close connections or raise the limit (ulimit -n)"));
      case EBADF:
      case EINVAL:
      case ENOTSOCK:
      case EOPNOTSUPP:
      case EFAULT:
        return absl::InternalError(
            absl::StrCat("the socket no longer accepts connections: accept4 failed: ", ErrnoText(errno)));
      default:
        // EINTR, or this one connection broke before it was accepted (ECONNABORTED, EPERM from a firewall, the network
        // errors that Linux passes on): the next one may be good.
        if (broken < kBroken) break;
        return absl::ResourceExhaustedError(absl::StrCat("accept4 fails again and again: ", ErrnoText(errno)));
    }
  }
}

}  // namespace shmrpc::tcp
