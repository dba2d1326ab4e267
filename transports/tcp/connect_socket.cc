#include "transports/tcp/connect_socket.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/errno_name.h"
#include "transports/tcp/socket_address.h"
#include "transports/tcp/socket_options.h"

namespace shmrpc::tcp {
namespace {

using framed::ErrnoText;
using framed::UniqueFd;

// A Unix socket whose queue is full cannot be waited for, only asked again.
constexpr absl::Duration kFirstRetryDelay = absl::Milliseconds(1);
constexpr absl::Duration kLongestRetryDelay = absl::Milliseconds(50);

absl::Status Interrupted(const SocketAddress& address) {
  return absl::CancelledError(absl::StrCat("interrupted while connecting to ", address.ToString()));
}

absl::Status TimedOut(const SocketAddress& address, absl::string_view what_happened) {
  return absl::DeadlineExceededError(
      absl::StrCat("could not connect to ", address.ToString(), " in time: ", what_happened));
}

absl::Status Refused(const SocketAddress& address, int error) {
  const std::string where = address.ToString();
  switch (error) {
    case ECONNREFUSED:
    case ENOENT:
      return absl::UnavailableError(absl::StrCat("nothing listens on ", where, " (", strerrordesc_np(error),
                                                 "): is the server running, and is this its address?"));
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return absl::UnavailableError(absl::StrCat("no socket left to connect to ", where, ": ", ErrnoText(error),
                                                 "; close connections or raise the limit (ulimit -n)"));
    case EADDRNOTAVAIL:
      return absl::UnavailableError(absl::StrCat("could not connect to ", where, ": ", ErrnoText(error),
                                                 "; this host has no local address or no free port for it"));
    case EACCES:
    case EPERM:
      return absl::UnavailableError(absl::StrCat("this process may not connect to ", where, ": ", ErrnoText(error),
                                                 "; look at the socket file's owner and mode, or at the firewall"));
    case EPROTOTYPE:
      return absl::UnavailableError(
          absl::StrCat("could not connect to ", where, ": ", ErrnoText(error), "; it is not a stream socket"));
    default:
      return absl::UnavailableError(absl::StrCat("could not connect to ", where, ": ", ErrnoText(error),
                                                 "; is the host up, and can it be reached from here?"));
  }
}

// Waits until `socket` (-1: just waits) is writable. OK also when the time is up.
absl::Status WaitWritable(int socket, const SocketAddress& address, SteadyTime deadline, int interrupt_fd) {
  pollfd fds[2] = {{socket, POLLOUT, 0}, {interrupt_fd, POLLIN, 0}};
  while (true) {
    const int ready = poll(fds, 2, PollTimeout(deadline));
    if (ready < 0 && errno != EINTR) return absl::InternalError(absl::StrCat("poll failed: ", ErrnoText(errno)));
    if (ready > 0 && fds[1].revents != 0) return Interrupted(address);
    if (ready > 0 || deadline.HasPassed()) return absl::OkStatus();
  }
}

// A TCP socket that connects to a free port of its own host may be given that very port as its local one, and is then
// connected to itself: nobody listens, but it looks as if.
bool ConnectedToItself(int socket) { return LocalAddress(socket) == PeerAddress(socket); }

absl::StatusOr<UniqueFd> ConnectTo(const SocketAddress& address, SteadyTime deadline, int interrupt_fd) {
  absl::Duration retry_delay = kFirstRetryDelay;
  while (true) {
    UniqueFd socket(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return Refused(address, errno);
    if (address.is_ip()) SetTcpOptions(socket.get());

    int error = connect(socket.get(), address.data(), address.length()) == 0 ? 0 : errno;
    // An interrupted connect goes on in the background, just as one that would block.
    if (error == EINPROGRESS || error == EINTR) {
      absl::Status status = WaitWritable(socket.get(), address, deadline, interrupt_fd);
      if (!status.ok()) return status;
      pollfd writable = {socket.get(), POLLOUT, 0};
      if (poll(&writable, 1, 0) == 0) {
        return TimedOut(address, "no answer; is the host up, and does a firewall drop the packets?");
      }
      socklen_t length = sizeof(error);
      if (getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    } else if (error == EAGAIN && address.family() == AF_UNIX) {
      if (deadline.HasPassed()) {
        return TimedOut(address, "the queue of the server is full; is it stuck or overloaded?");
      }
      absl::Status status =
          WaitWritable(-1, address, std::min(SteadyTime::Now() + retry_delay, deadline), interrupt_fd);
      if (!status.ok()) return status;
      retry_delay = std::min(retry_delay * 2, kLongestRetryDelay);
      continue;
    }

    if (error == 0 && address.is_ip() && ConnectedToItself(socket.get())) error = ECONNREFUSED;
    if (error != 0) return Refused(address, error);
    return socket;
  }
}

}  // namespace

absl::StatusOr<UniqueFd> ConnectSocket(const Target& target, SteadyTime deadline, int interrupt_fd) {
  absl::StatusOr<std::vector<SocketAddress>> addresses = Resolve(target, deadline, interrupt_fd);
  if (!addresses.ok()) return addresses.status();

  std::string failures;
  bool all_timed_out = true;
  for (size_t i = 0; i < addresses->size(); ++i) {
    const SteadyTime now = SteadyTime::Now();
    const auto attempts_left = static_cast<int64_t>(addresses->size() - i);
    const SteadyTime attempt_deadline =
        deadline == SteadyTime::InfiniteFuture() ? deadline : now + (deadline - now) / attempts_left;
    absl::StatusOr<UniqueFd> socket = ConnectTo((*addresses)[i], attempt_deadline, interrupt_fd);
    if (socket.ok() || absl::IsCancelled(socket.status())) return socket;
    if (!absl::IsDeadlineExceeded(socket.status())) all_timed_out = false;
    absl::StrAppend(&failures, failures.empty() ? "" : "; ", socket.status().message());
  }
  return all_timed_out || deadline.HasPassed() ? absl::DeadlineExceededError(failures)
                                               : absl::UnavailableError(failures);
}

}  // namespace shmrpc::tcp
