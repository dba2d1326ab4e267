#include "transports/shm/fd_passing.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cassert>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transports/framed/errno_name.h"

namespace shmrpc::shm {
namespace {

using framed::ErrnoText;
using framed::UniqueFd;

// The kernel's SCM_MAX_FD. With room for that many the control data is only truncated when this process runs out of
// descriptors.
constexpr size_t kMostFdsInOneMessage = 253;

}  // namespace

absl::StatusOr<size_t> SendWithFd(int socket, absl::Span<const uint8_t> bytes, int fd) {
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
        return absl::UnavailableError(absl::StrCat("the connection broke while sending: ", ErrnoText(errno)));
    }
  }
}

absl::StatusOr<std::optional<size_t>> ReceiveWithFds(int socket, absl::Span<uint8_t> buffer,
                                                     std::vector<UniqueFd>* fds) {
  iovec piece = {buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMostFdsInOneMessage * sizeof(int))];
  msghdr message;
  ssize_t size;
  do {
    message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    size = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) {
    if (errno == EAGAIN) return std::optional<size_t>();
    return absl::UnavailableError(absl::StrCat("the connection broke while receiving: ", ErrnoText(errno)));
  }

  std::vector<UniqueFd> received;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      received.emplace_back(fd);
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("descriptors that the peer sent were lost, ", received.size(),
                     " arrived and were closed (EMFILE): this process has no descriptor left; raise RLIMIT_NOFILE "
                     "(ulimit -n)"));
  }
  if (fds->size() + received.size() > kMaxFdsReceived) {
    return absl::InvalidArgumentError(
        absl::StrCat("the peer sent ", fds->size() + received.size(), " descriptors, the limit is ", kMaxFdsReceived));
  }
  std::move(received.begin(), received.end(), std::back_inserter(*fds));
  return std::optional<size_t>(static_cast<size_t>(size));
}

}  // namespace shmrpc::shm
