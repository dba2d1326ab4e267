#include "transports/shm/fd_passing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>
#include <cassert>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/fork.h"
#include "transports/framed/errno_name.h"

namespace shmrpc::shm {
namespace {

using framed::ErrnoText;
using framed::UniqueFd;

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

// How many descriptors wait for being closed by another thread, at most.
constexpr int kMaxClosing = 256;

constinit internal::PerProcess<internal::CallbackThreads> closing_threads;

absl::Status Broken(std::string_view what, int error) {
  const std::string message = absl::StrCat("the connection broke while ", what, ": ", ErrnoText(error));
  return error == ECONNRESET ? absl::AbortedError(message) : absl::UnavailableError(message);
}

}  // namespace

absl::StatusOr<size_t> SendWithFd(int socket, std::span<const uint8_t> bytes, int fd) {
  assert(!bytes.empty());
  iovec piece = {const_cast<uint8_t*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  while (true) {
    const ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<size_t>(sent);
    switch (errno) {
      case EINTR:
        break;
      case EAGAIN:
        return 0;
      case ETOOMANYREFS:
      case ENOBUFS:
      case ENOMEM:
        return absl::ResourceExhaustedError(absl::StrCat("a descriptor could not be passed: ", ErrnoText(errno)));
      case EBADF:
        return absl::InternalError(
            absl::StrCat("a descriptor could not be passed: ", fd, " or the socket ", socket, " is not open"));
      default:
        return Broken("sending", errno);
    }
  }
}

absl::StatusOr<std::optional<size_t>> ReceiveWithFds(int socket, std::span<uint8_t> buffer,
                                                     std::vector<UniqueFd>* fds) {
  iovec piece = {buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message;
  ssize_t size;
  do {
    message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_LEN(sizeof(int));  // and not CMSG_SPACE: in its padding there is room for another one
    size = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) {
    if (errno == EAGAIN) return std::optional<size_t>();
    return Broken("receiving", errno);
  }

  UniqueFd received;
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len >= CMSG_LEN(sizeof(int))) {
    int fd;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(int));
    received.Reset(fd);
  }
  const bool truncated = (message.msg_flags & MSG_CTRUNC) != 0;
  const bool too_many = received.valid() && (truncated || fds->size() >= kMaxFdsReceived);
  if (!too_many && !truncated) {
    if (received.valid()) fds->push_back(std::move(received));
    return std::optional<size_t>(static_cast<size_t>(size));
  }
  if (received.valid()) CloseReceived(std::move(received));
  if (too_many) {
    return absl::InvalidArgumentError(
        absl::StrCat("the peer sent more descriptors with its hello than the limit, ", kMaxFdsReceived));
  }
  return absl::ResourceExhaustedError(
      "a descriptor that the peer sent was lost (EMFILE): this process has no descriptor left; raise RLIMIT_NOFILE "
      "(ulimit -n)");
}

void RefuseFds(int socket) {
  const int off = 0;
  setsockopt(socket, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off);
}

void CloseReceived(UniqueFd fd) {
  static std::atomic<int> closing{0};
  if (!fd.valid() || fcntl(fd.get(), F_GET_SEALS) >= 0) return;  // memory is closed at once
  if (closing.fetch_add(1, std::memory_order_relaxed) < kMaxClosing) {
    closing_threads.Get().Run([fd = std::move(fd)]() mutable {
      fd.Reset();
      closing.fetch_sub(1, std::memory_order_relaxed);
    });
    return;
  }
  closing.fetch_sub(1, std::memory_order_relaxed);
}

void CloseUnread(UniqueFd socket) {
  // After the shutdown nothing comes into the queue any more.
  int unread = 0;
  const bool empty =
      ::shutdown(socket.get(), SHUT_RDWR) == 0 && ioctl(socket.get(), SIOCINQ, &unread) == 0 && unread == 0;
  if (!empty) CloseReceived(std::move(socket));
}

}  // namespace shmrpc::shm
