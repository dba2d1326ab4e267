#include "runtime/src/log_descriptor.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "runtime/src/fork.h"

namespace shmrpc::internal {
namespace {

// What was noted. A child inherits it, because what it finds under the number 2 when it has something to say may be its
// own already; but it notes anew when it begins to use the library. Three words rather than one behind a lock, which a
// fork() might find held: a line that comes while they change is left out at worst.
constexpr uint64_t kNothing = ~uint64_t{0};
constinit std::atomic<uint64_t> device{kNothing};
constinit std::atomic<uint64_t> inode{kNothing};
constinit std::atomic<uint64_t> noted_in{kNothing};  // the fork generation

void Note() {
  struct stat information;
  const bool open = fstat(STDERR_FILENO, &information) == 0;
  device.store(open ? information.st_dev : kNothing);
  inode.store(open ? information.st_ino : kNothing);
}

bool IsHarmless(const struct stat& information) {
  const dev_t null = makedev(1, 3);
  if (S_ISCHR(information.st_mode)) return information.st_rdev == null || isatty(STDERR_FILENO) == 1;
  if (!S_ISREG(information.st_mode)) return false;
  const int flags = fcntl(STDERR_FILENO, F_GETFL);
  return flags >= 0 && (flags & O_APPEND) != 0;
}

bool MayWrite() {
  if (noted_in.load() == kNothing) NoteDescriptor2(/*again=*/false);
  struct stat information;
  if (fstat(STDERR_FILENO, &information) != 0) return false;
  return (information.st_dev == device.load() && information.st_ino == inode.load()) || IsHarmless(information);
}

void Write(absl::string_view line) {
  // One write, so that the lines of several threads and processes do not mix; the rest only if it was cut.
  while (!line.empty() && MayWrite()) {
    const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
    if (written > 0) {
      line.remove_prefix(static_cast<size_t>(written));
    } else if (written < 0 && errno == EAGAIN) {  // others have made it non-blocking
      pollfd room = {STDERR_FILENO, POLLOUT, 0};
      if (poll(&room, 1, -1) < 0 && errno != EINTR) return;
    } else if (written == 0 || errno != EINTR) {
      return;  // nobody could be told
    }
  }
}

}  // namespace

void NoteDescriptor2(bool again) {
  const uint64_t generation = ForkGeneration();
  if (noted_in.exchange(generation) != generation || again) Note();
}

bool Descriptor2HasRoom() {
  pollfd stderr_room = {STDERR_FILENO, POLLOUT, 0};
  return poll(&stderr_room, 1, 0) == 1 && (stderr_room.revents & (POLLOUT | POLLERR)) == POLLOUT;
}

void WriteToDescriptor2(absl::string_view line) {
  // Whose reader has gone sends a signal, to this thread. That is taken back before the thread can receive it.
  sigset_t pipe;
  sigset_t before;
  sigset_t pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  sigpending(&pending);
  Write(line);
  const timespec now = {};
  if (sigismember(&pending, SIGPIPE) == 0) (void)sigtimedwait(&pipe, nullptr, &now);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace shmrpc::internal
