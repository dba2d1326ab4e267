#include "transports/tcp/connect_socket.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/errno_name.h"
#include "transports/tcp/socket_address.h"
#include "transports/tcp/socket_options.h"

namespace shmrpc::tcp {
namespace {

using framed::ErrnoText;
using framed::UniqueFd;

// How long an address is given before the next one is tried beside it (RFC 8305, section 5).
constexpr absl::Duration kAttemptDelay = absl::Milliseconds(250);

// A Unix socket whose queue is full cannot be waited for, only asked again.
constexpr absl::Duration kFirstRetryDelay = absl::Milliseconds(1);
constexpr absl::Duration kLongestRetryDelay = absl::Milliseconds(50);

absl::Status Interrupted(const SocketAddress& address) {
  return absl::CancelledError(absl::StrCat("interrupted while connecting to ", address.ToString()));
}

absl::Status TimedOut(const SocketAddress& address, std::string_view what_happened) {
  return absl::DeadlineExceededError(
      absl::StrCat("could not connect to ", address.ToString(), " in time: ", ToAbsl(what_happened)));
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

// A TCP socket that connects to a free port of its own host may be given that very port as its local one, and is then
// connected to itself: nobody listens, but it looks as if.
bool ConnectedToItself(int socket) { return LocalAddress(socket) == PeerAddress(socket); }

// The attempt to connect to one address.
class Attempt {
 public:
  explicit Attempt(const SocketAddress& address) : address_(address) {}

  enum class State {
    kUnderWay,  // until the socket is writable, or until retry_at()
    kConnected,
    kFailed,
  };

  State state() const { return state_; }
  const absl::Status& failure() const { return failure_; }
  UniqueFd TakeSocket() { return std::move(socket_); }

  // What to wait for: -1 while there is only a time.
  int fd() const { return retrying_ ? -1 : socket_.get(); }
  SteadyTime retry_at() const { return retrying_ ? retry_at_ : SteadyTime::InfiniteFuture(); }

  void Begin() {
    retrying_ = false;
    socket_.Reset(::socket(address_.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket_.valid()) return Fail(errno);
    if (address_.is_ip()) SetTcpOptions(socket_.get());
    const int error = connect(socket_.get(), address_.data(), address_.length()) == 0 ? 0 : errno;
    if (error == EAGAIN && address_.family() == AF_UNIX) {
      retrying_ = true;
      retry_at_ = SteadyTime::Now() + retry_delay_;
      retry_delay_ = std::min(retry_delay_ * 2, kLongestRetryDelay);
    } else if (error != EINPROGRESS && error != EINTR) {
      // An interrupted connect goes on in the background, just as one that would block.
      End(error);
    }
  }

  // The socket is writable.
  void Finish() {
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    End(error);
  }

  absl::Status WhyTimedOut() const {
    return TimedOut(address_, retrying_ ? "the queue of the server is full; is it stuck or overloaded?"
                                        : "no answer; is the host up, and does a firewall drop the packets?");
  }

 private:
  void End(int error) {
    if (error == 0 && address_.is_ip() && ConnectedToItself(socket_.get())) error = ECONNREFUSED;
    if (error != 0) return Fail(error);
    state_ = State::kConnected;
  }
  void Fail(int error) {
    failure_ = Refused(address_, error);
    socket_.Reset();
    state_ = State::kFailed;
  }

  const SocketAddress& address_;
  UniqueFd socket_;
  bool retrying_ = false;
  SteadyTime retry_at_;
  absl::Duration retry_delay_ = kFirstRetryDelay;
  State state_ = State::kUnderWay;
  absl::Status failure_;
};

// What has become of all attempts, in the order of the addresses.
absl::Status Failure(const std::vector<Attempt>& attempts, SteadyTime deadline) {
  std::string failures;
  bool all_timed_out = true;
  for (const Attempt& attempt : attempts) {
    const bool failed = attempt.state() == Attempt::State::kFailed;
    if (failed) all_timed_out = false;
    const absl::Status why = failed ? attempt.failure() : attempt.WhyTimedOut();
    absl::StrAppend(&failures, failures.empty() ? "" : "; ", why.message());
  }
  return all_timed_out || deadline.HasPassed() ? absl::DeadlineExceededError(failures)
                                               : absl::UnavailableError(failures);
}

}  // namespace

absl::StatusOr<UniqueFd> ConnectSocket(const Target& target, SteadyTime deadline, int interrupt_fd) {
  const absl::StatusOr<std::vector<SocketAddress>> addresses = Resolve(target, deadline, interrupt_fd);
  if (!addresses.ok()) return addresses.status();
  std::vector<Attempt> attempts;
  attempts.reserve(addresses->size());
  SteadyTime next_begins = SteadyTime::InfinitePast();
  for (;;) {
    // An address that fails makes room for the next one at once.
    const bool under_way = std::any_of(attempts.begin(), attempts.end(), [](const Attempt& attempt) {
      return attempt.state() == Attempt::State::kUnderWay;
    });
    const bool all_begun = attempts.size() == addresses->size();
    if (!under_way && all_begun) return Failure(attempts, deadline);
    if (!all_begun && (!under_way || next_begins.HasPassed())) {
      attempts.emplace_back((*addresses)[attempts.size()]).Begin();
      next_begins = SteadyTime::Now() + kAttemptDelay;
      if (attempts.back().state() == Attempt::State::kConnected) return attempts.back().TakeSocket();
      continue;
    }

    SteadyTime until = all_begun ? deadline : std::min(deadline, next_begins);
    std::vector<pollfd> fds = {{interrupt_fd, POLLIN, 0}};
    for (const Attempt& attempt : attempts) {
      const bool waits = attempt.state() == Attempt::State::kUnderWay;
      fds.push_back({waits ? attempt.fd() : -1, POLLOUT, 0});
      if (waits) until = std::min(until, attempt.retry_at());
    }
    const int ready = poll(fds.data(), fds.size(), PollTimeout(until));
    if (ready < 0 && errno != EINTR) return absl::InternalError(absl::StrCat("poll failed: ", ErrnoText(errno)));
    if (ready > 0 && fds[0].revents != 0) return Interrupted(addresses->front());
    for (size_t i = 0; i < attempts.size(); ++i) {
      Attempt& attempt = attempts[i];
      if (attempt.state() != Attempt::State::kUnderWay) continue;
      if (ready > 0 && fds[i + 1].revents != 0) {
        attempt.Finish();
      } else if (attempt.fd() < 0 && attempt.retry_at().HasPassed()) {
        if (deadline.HasPassed()) continue;
        attempt.Begin();
      }
      if (attempt.state() == Attempt::State::kConnected) return attempt.TakeSocket();
    }
    if (deadline.HasPassed()) return Failure(attempts, deadline);
  }
}

}  // namespace shmrpc::tcp
