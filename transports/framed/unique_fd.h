#ifndef SHMRPC_TRANSPORTS_FRAMED_UNIQUE_FD_H_
#define SHMRPC_TRANSPORTS_FRAMED_UNIQUE_FD_H_

#include <errno.h>
#include <unistd.h>

#include <utility>

namespace shmrpc::framed {

// Owns one file descriptor, or none, and closes it. Move-only; as thread-safe as an int. Leaves errno alone, so that a
// function may return early on an error and read errno afterwards.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  // -1 when there is none.
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

  // Gives the descriptor to the caller, who closes it.
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }

  // Closes what it has and owns `fd` from now on.
  void Reset(int fd = -1) {
    const int old = std::exchange(fd_, fd);
    if (old < 0) return;
    const int saved_errno = errno;
    close(old);  // Linux frees the number even if it reports EINTR: never again.
    errno = saved_errno;
  }

 private:
  int fd_ = -1;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_UNIQUE_FD_H_
