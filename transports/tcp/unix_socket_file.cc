#include "transports/tcp/unix_socket_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/fork.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/errno_name.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::tcp {
namespace {

using framed::ErrnoText;
using framed::UniqueFd;

// The lock is held for microseconds. Whoever keeps it this long has a purpose of its own with the directory.
constexpr absl::Duration kLockTimeout = absl::Milliseconds(100);
constexpr absl::Duration kLockRetryDelay = absl::Milliseconds(2);

// Threads of this process wait for each other as long as it takes: of them it is known what the lock is for.
constinit internal::PerProcess<Mutex> one_thread;

// Without the lock: how long a socket that refuses is given. One that was just bound refuses until it listens.
constexpr absl::Duration kListenDelay = absl::Milliseconds(50);

absl::Status Failed(int error, const std::string& path, std::string_view what) {
  const std::string message = absl::StrCat("could not listen on unix:", path, ": ", what, ": ", ErrnoText(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(message, "; create the directory first"));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(
          absl::StrCat(message, "; this process needs to write and to search the directory"));
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case ENOSPC:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

// An exclusive lock on a directory. It belongs to the open descriptor, which a child forked meanwhile shares: hence the
// explicit unlock.
class DirectoryLock {
 public:
  explicit DirectoryLock(int directory) : directory_(directory) {}
  ~DirectoryLock() {
    if (locked_) flock(directory_, LOCK_UN);
  }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  // Tries to. There may be no lock to be had: others use locks of the directory for purposes of their own (systemd's
  // tmpfiles leaves a locked one alone), the file system has none, or the directory may not be read.
  void TryToAcquire() {
    const SteadyTime give_up = SteadyTime::Now() + kLockTimeout;
    while (flock(directory_, LOCK_EX | LOCK_NB) != 0) {
      if ((errno != EWOULDBLOCK && errno != EINTR) || give_up.HasPassed()) return;
      absl::SleepFor(kLockRetryDelay);
    }
    locked_ = true;
  }
  bool locked() const { return locked_; }

 private:
  const int directory_;
  bool locked_ = false;
};

// Removes the file, if it still is this one: it is moved aside first, and back if it turns out to be another one
// (EEXIST). That happens when somebody works without the lock. 0 or an errno.
int RemoveIfSame(int directory, const std::string& file_name, const struct stat& file) {
  static std::atomic<int> next{0};
  const std::string aside = absl::StrCat(file_name.substr(0, 200), ".stale-", getpid(), "-", next++);
  if (renameat(directory, file_name.c_str(), directory, aside.c_str()) != 0) return errno == ENOENT ? 0 : errno;
  struct stat moved;
  const bool same = fstatat(directory, aside.c_str(), &moved, AT_SYMLINK_NOFOLLOW) == 0 &&
                    moved.st_dev == file.st_dev && moved.st_ino == file.st_ino;
  if (!same && renameat2(directory, aside.c_str(), directory, file_name.c_str(), RENAME_NOREPLACE) == 0) return EEXIST;
  return unlinkat(directory, aside.c_str(), 0) == 0 || errno == ENOENT ? 0 : errno;
}

absl::Status Taken(const std::string& path) {
  return absl::AlreadyExistsError(
      absl::StrCat("another process listens on unix:", path, ": stop it or choose another path"));
}

// Removes a socket file where nobody accepts. `locked`: whether the directory is.
absl::Status RemoveStaleFile(int directory, const std::string& file_name, const std::string& path,
                             const SocketAddress& address, bool locked) {
  struct stat found;
  if (fstatat(directory, file_name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? absl::OkStatus() : Failed(errno, path, "fstatat failed");
  }
  if (!S_ISSOCK(found.st_mode)) {
    return absl::AlreadyExistsError(absl::StrCat("could not listen on unix:", path,
                                                 ": there is a file which is not a socket; move it away or choose "
                                                 "another path"));
  }
  for (int attempts = locked ? 1 : 2; attempts > 0; --attempts) {
    const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!probe.valid()) return Failed(errno, path, "socket refused");
    const int error = connect(probe.get(), address.data(), address.length()) == 0 ? 0 : errno;
    switch (error) {
      case ECONNREFUSED:
        if (attempts > 1) absl::SleepFor(kListenDelay);
        break;
      case ENOENT:
        return absl::OkStatus();
      case 0:
      case EAGAIN:      // its queue is full
      case EPROTOTYPE:  // it is a datagram or a packet socket
        return Taken(path);
      default:
        return Failed(error, path, "there is a socket file, and connecting to it, to see whether it is in use, failed");
    }
  }
  const int error = RemoveIfSame(directory, file_name, found);
  if (error == EEXIST) return Taken(path);
  if (error != 0) return Failed(error, path, "the stale socket file could not be removed");
  return absl::OkStatus();
}

}  // namespace

UnixSocketFile::UnixSocketFile(UnixSocketFile&& other) noexcept
    : directory_(std::move(other.directory_)),
      file_name_(std::move(other.file_name_)),
      device_(other.device_),
      inode_(other.inode_),
      fork_generation_(other.fork_generation_) {}

UnixSocketFile& UnixSocketFile::operator=(UnixSocketFile&& other) noexcept {
  if (this != &other) {
    Remove();
    directory_ = std::move(other.directory_);
    file_name_ = std::move(other.file_name_);
    device_ = other.device_;
    inode_ = other.inode_;
    fork_generation_ = other.fork_generation_;
  }
  return *this;
}

absl::StatusOr<UnixSocketFile> UnixSocketFile::Bind(int socket, const std::string& path, mode_t mode) {
  absl::StatusOr<SocketAddress> address = SocketAddress::FromUnixPath(path);
  if (!address.ok()) return address.status();
  const size_t slash = path.rfind('/');
  UnixSocketFile file;
  file.file_name_ = slash == std::string::npos ? path : path.substr(slash + 1);
  if (file.file_name_.empty() || file.file_name_ == "." || file.file_name_ == "..") {
    return absl::InvalidArgumentError(
        absl::StrCat("could not listen on unix:", path, ": it names a directory; add the name of a file"));
  }
  const std::string directory_name = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  UniqueFd directory(open(directory_name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // One that may not be read can be used all the same, but for locks.
  if (!directory.valid() && errno == EACCES)
    directory.Reset(open(directory_name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return Failed(errno, path, absl::StrCat("the directory ", directory_name));

  MutexLock in_this_process(&one_thread.Get());
  DirectoryLock lock(directory.get());
  lock.TryToAcquire();
  absl::Status status = RemoveStaleFile(directory.get(), file.file_name_, path, *address, lock.locked());
  if (!status.ok()) return status;

  // The file gets the permissions of the socket's own inode, less the umask: never more than wanted. What the umask
  // took is given back below.
  if (fchmod(socket, mode) != 0) return Failed(errno, path, "fchmod on the socket failed");
  if (bind(socket, address->data(), address->length()) != 0) {
    // The lock keeps out those who ask first; others bind without asking.
    if (errno == EADDRINUSE) {
      return absl::AlreadyExistsError(absl::StrCat("another process made unix:", path, " at the same moment"));
    }
    return Failed(errno, path, "bind failed");
  }
  struct stat made;
  if (fstatat(directory.get(), file.file_name_.c_str(), &made, AT_SYMLINK_NOFOLLOW) != 0) {
    return Failed(errno, path, "the new socket file is gone again");
  }
  file.device_ = made.st_dev;
  file.inode_ = made.st_ino;
  file.fork_generation_ = internal::ForkGeneration();
  // From here on `file` removes what was made. It outlives the lock, which works on the same descriptor.
  const int directory_fd = directory.get();
  file.directory_ = std::move(directory);
  if ((made.st_mode & 07777) != mode &&
      fchmodat(directory_fd, file.file_name_.c_str(), mode, AT_SYMLINK_NOFOLLOW) != 0) {
    return Failed(errno, path, "the permissions could not be set");
  }
  if (listen(socket, SOMAXCONN) != 0) return Failed(errno, path, "listen failed");
  return file;
}

void UnixSocketFile::Remove() {
  const UniqueFd directory = std::move(directory_);
  if (!directory.valid() || fork_generation_ != internal::ForkGeneration()) return;
  MutexLock in_this_process(&one_thread.Get());
  DirectoryLock lock(directory.get());
  // Nobody takes over the file of a socket that listens, as this one does: without the lock nothing else happens.
  lock.TryToAcquire();
  struct stat found;
  if (fstatat(directory.get(), file_name_.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (found.st_dev == device_ && found.st_ino == inode_) (void)RemoveIfSame(directory.get(), file_name_, found);
}

}  // namespace shmrpc::tcp
