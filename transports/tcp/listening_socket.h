#ifndef SHMRPC_TRANSPORTS_TCP_LISTENING_SOCKET_H_
#define SHMRPC_TRANSPORTS_TCP_LISTENING_SOCKET_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/src/fork.h"
#include "shmrpc/target.h"
#include "transports/framed/unique_fd.h"
#include "transports/tcp/unix_socket_file.h"

namespace shmrpc::tcp {

// A socket that listens, TCP or Unix. Destroying it stops listening and removes the socket file that it made, if any.
// Move-only; fd() may be used by any thread, the rest by one thread at a time.
class ListeningSocket {
 public:
  ListeningSocket() = default;
  ListeningSocket(ListeningSocket&&) = default;
  ListeningSocket& operator=(ListeningSocket&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::move(other.fd_);
      not_for_children_ = std::move(other.not_for_children_);
      bound_ = std::move(other.bound_);
      file_ = std::move(other.file_);
    }
    return *this;
  }
  ~ListeningSocket() { Close(); }

  // Non-blocking and close-on-exec. As long as nobody changes that who shares the socket: even then it blocks for its
  // time-out only, SO_RCVTIMEO, which is the shortest there is.
  int fd() const { return fd_.get(); }

  // Where it listens, with the real port; `original` has its canonical form, such as "ipv4:127.0.0.1:34567".
  const Target& bound() const { return bound_; }

  // Removes the socket file and stops listening.
  void Close() {
    file_.Remove();  // While the socket is still open: see UnixSocketFile::Bind.
    not_for_children_ = nullptr;
    fd_.Reset();
  }

 private:
  friend class Listening;

  framed::UniqueFd fd_;
  std::unique_ptr<internal::NotForChildren> not_for_children_;
  Target bound_;
  UnixSocketFile file_;
};

// Listens on `target`: on each address of a host name that is one of this host, at least one ("localhost" is 127.0.0.1
// and, where there is IPv6, ::1), with one port for all. [::] takes IPv4 as well, and without IPv6 it is 0.0.0.0. Port
// 0 lets the kernel choose. A Unix path gets a socket file with the permissions `unix_mode`; a stale file is taken over
// (see UnixSocketFile), and for an abstract name `unix_mode` means nothing. May block for a name look-up. Any thread.
//
// Errors, which name the address and the reason: ALREADY_EXISTS (another process listens there), INVALID_ARGUMENT,
// NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED (no descriptor left), UNAVAILABLE (anything else).
absl::StatusOr<std::vector<ListeningSocket>> ListenSockets(const Target& target, mode_t unix_mode);

// Takes one connection, if there is one: a socket that is non-blocking and close-on-exec, with TCP_NODELAY where it is
// TCP. nullopt: none is waiting now. Never blocks, but for a millisecond or a few when somebody who shares the
// listening socket (a child, or a process that it was passed to) has made it a blocking one; any thread. Errors:
// RESOURCE_EXHAUSTED, no descriptor or memory left: connections keep waiting and the listening socket stays readable,
// so try again after a pause; INTERNAL, this socket will never accept anything again.
absl::StatusOr<std::optional<framed::UniqueFd>> AcceptSocket(int listening_fd);

}  // namespace shmrpc::tcp

#endif  // SHMRPC_TRANSPORTS_TCP_LISTENING_SOCKET_H_
