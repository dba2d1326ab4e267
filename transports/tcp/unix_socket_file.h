#ifndef SHMRPC_TRANSPORTS_TCP_UNIX_SOCKET_FILE_H_
#define SHMRPC_TRANSPORTS_TCP_UNIX_SOCKET_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::tcp {

// The file of a listening Unix socket: made by Bind, removed by the destructor if it still is the one that was made.
//
// A process that dies leaves its socket file behind, and the file alone does not tell whether anybody still accepts
// there. Bind asks: a file where connecting is refused is stale and is replaced. Between this question and the
// replacement another starter could do the same, so all of it, up to listen(), happens under an exclusive flock() on
// the directory: a lock that leaves no file of its own behind, even after kill -9. The removal takes the same lock.
//
// Where that cannot be had within a tenth of a second, because others lock directories for purposes of their own, or
// the file system knows no locks, or the directory may not be read, both go on without: Bind then gives a socket that
// refuses a moment to listen, and asks again. What is removed is looked at once more while nobody can see it.
//
// Move-only; used by one thread at a time. After fork() the child's copy removes nothing.
class UnixSocketFile {
 public:
  UnixSocketFile() = default;
  UnixSocketFile(UnixSocketFile&& other) noexcept;
  UnixSocketFile& operator=(UnixSocketFile&& other) noexcept;
  ~UnixSocketFile() { Remove(); }

  // Binds `socket`, a new Unix stream socket, to `path`, with the permissions `mode` (whatever the umask is, and at no
  // time with more), and listens. The socket must stay open until Remove: it keeps the file's inode number from being
  // used again.
  // Errors: ALREADY_EXISTS (another process listens there, or something that is no socket is in the way; it is left
  // alone), INVALID_ARGUMENT, NOT_FOUND (no such directory), PERMISSION_DENIED, UNAVAILABLE (the kernel refused
  // something else).
  static absl::StatusOr<UnixSocketFile> Bind(int socket, const std::string& path, mode_t mode);

  // Removes the file now, if it still is the one that Bind made.
  void Remove();

 private:
  framed::UniqueFd directory_;  // -1: there is nothing to remove
  std::string file_name_;       // in directory_, so that a later chdir() does no harm
  dev_t device_ = 0;
  ino_t inode_ = 0;
  uint32_t fork_generation_ = 0;
};

}  // namespace shmrpc::tcp

#endif  // SHMRPC_TRANSPORTS_TCP_UNIX_SOCKET_FILE_H_
