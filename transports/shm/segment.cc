#include "transports/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/fork.h"
#include "transports/framed/errno_name.h"
#include "transports/shm/fd_passing.h"

namespace shmrpc::shm {
namespace {

using framed::ErrnoName;
using framed::ErrnoText;
using framed::UniqueFd;

// Linux 6.3: the memory can never be executed. Systems with vm.memfd_noexec=2 insist on it, older kernels refuse it.
constexpr unsigned int kMemfdNoexecSeal = 0x0008U;

struct Seal {
  int bit;
  const char* name;
};
constexpr Seal kRequiredSeals[] = {{F_SEAL_SHRINK, "F_SEAL_SHRINK"},
                                   {F_SEAL_GROW, "F_SEAL_GROW"},
                                   {F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE"},
                                   {F_SEAL_SEAL, "F_SEAL_SEAL"}};
constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

// `call` is the system call that failed, for the message.
absl::Status MemfdError(std::string_view call, int error, size_t size) {
  const std::string message =
      absl::StrCat("memfd of ", size, " bytes refused by ", ToAbsl(call), " (", ErrnoName(error), ")");
  switch (error) {
    case EMFILE:
      return absl::ResourceExhaustedError(
          absl::StrCat(message, ": this process has no descriptor left; raise RLIMIT_NOFILE (ulimit -n)"));
    case ENFILE:
      return absl::ResourceExhaustedError(absl::StrCat(message, ": the system has no descriptor left (fs.file-max)"));
    case ENOMEM:
      return absl::ResourceExhaustedError(
          absl::StrCat(message, ": out of memory, or of address space; look at RLIMIT_AS (ulimit -v) and at the limit ",
                       "of the container"));
    case EFBIG:
      return absl::ResourceExhaustedError(
          absl::StrCat(message, ": larger than a file of this process may be; raise RLIMIT_FSIZE (ulimit -f)"));
    case ENOSPC:
    case EAGAIN:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnavailableError(
          absl::StrCat(message, ": ", ErrnoText(error),
                       "; shared memory needs Linux 5.1 or newer, and a sandbox that allows memfds"));
  }
}

// ftruncate() beyond RLIMIT_FSIZE does not just fail, it kills the process with SIGXFSZ.
bool AboveFileSizeLimit(size_t size) {
  rlimit limit = {};
  return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur;
}

absl::Status BadPeerMemory(std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("the peer's descriptor for shared memory was refused: ", ToAbsl(why)));
}

// What a descriptor is of, for people. Says what is known of it and asks no file system.
std::string_view FileType(int fd) {
  struct statx known = {};
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &known) != 0) return "of an unknown type";
  switch (known.stx_mode & S_IFMT) {
    case S_IFREG:
      return "a file";
    case S_IFDIR:
      return "a directory";
    case S_IFCHR:
    case S_IFBLK:
      return "a device";
    case S_IFIFO:
      return "a pipe";
    case S_IFSOCK:
      return "a socket";
    default:
      return "of an unknown type";
  }
}

absl::Status CheckPeerMemory(int fd, uint64_t size, uint64_t size_limit) {
  if (size == 0 || size > size_limit) {
    return BadPeerMemory(absl::StrCat("it is announced with ", size, " bytes, the limit is ", size_limit));
  }
  // Before anything else is asked of it: this question never blocks, and only memory has an answer. A file system in
  // user space could let fstat wait for ever.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) {
    const int error = errno;
    return BadPeerMemory(absl::StrCat("it is ", FileType(fd), ", not a memfd: F_GET_SEALS failed: ", ErrnoText(error)));
  }
  if ((seals & kAllSeals) != kAllSeals) {
    std::vector<std::string> missing;
    for (const Seal& seal : kRequiredSeals) {
      if ((seals & seal.bit) == 0) missing.push_back(seal.name);
    }
    return BadPeerMemory(absl::StrCat("it lacks the seals ", absl::StrJoin(missing, ", ")));
  }
  // Memory of huge pages has seals as well, and reading it fails with SIGBUS when these have run out.
  struct statfs file_system;
  if (fstatfs(fd, &file_system) != 0) return BadPeerMemory(absl::StrCat("fstatfs failed: ", ErrnoText(errno)));
  if (file_system.f_type != TMPFS_MAGIC) {
    return BadPeerMemory(absl::StrCat("it is not a memfd but a file of the file system type 0x",
                                      absl::Hex(static_cast<uint64_t>(file_system.f_type))));
  }
  struct stat status;
  // Only now, as the size cannot change any more.
  if (fstat(fd, &status) != 0) return BadPeerMemory(absl::StrCat("fstat failed: ", ErrnoText(errno)));
  if (static_cast<uint64_t>(status.st_size) != size) {
    return BadPeerMemory(absl::StrCat("it has ", status.st_size, " bytes, ", size, " were announced"));
  }
  return absl::OkStatus();
}

}  // namespace

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      fork_generation_(other.fork_generation_) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    Unmap();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    fork_generation_ = other.fork_generation_;
  }
  return *this;
}

absl::StatusOr<Mapping> Mapping::Map(int fd, size_t size, int protection) {
  void* memory = mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return MemfdError("mmap", errno, size);
  Mapping mapping;
  mapping.data_ = static_cast<uint8_t*>(memory);
  mapping.size_ = size;
  mapping.fork_generation_ = internal::ForkGeneration();
  if (madvise(memory, size, MADV_DONTFORK) != 0) return MemfdError("madvise", errno, size);
  return mapping;
}

void Mapping::Unmap() {
  // In a forked child there may be something else at this address by now.
  if (data_ != nullptr && fork_generation_ == internal::ForkGeneration()) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

absl::StatusOr<Segment> Segment::Create(size_t size) {
  UniqueFd fd(memfd_create("shmrpc", MFD_CLOEXEC | MFD_ALLOW_SEALING | kMemfdNoexecSeal));
  if (!fd.valid() && errno == EINVAL) fd.Reset(memfd_create("shmrpc", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return MemfdError("memfd_create", errno, size);
  if (AboveFileSizeLimit(size)) return MemfdError("ftruncate", EFBIG, size);
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return MemfdError("ftruncate", errno, size);
  // Before F_SEAL_FUTURE_WRITE: the one writable mapping that there will be.
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), size, PROT_READ | PROT_WRITE);
  if (!mapping.ok()) return mapping.status();
  if (fcntl(fd.get(), F_ADD_SEALS, kAllSeals) != 0) return MemfdError("F_ADD_SEALS", errno, size);
  return Segment(std::move(fd), *std::move(mapping));
}

absl::StatusOr<PeerSegment> PeerSegment::Map(UniqueFd fd, uint64_t size, uint64_t size_limit) {
  if (absl::Status status = CheckPeerMemory(fd.get(), size, size_limit); !status.ok()) {
    CloseReceived(std::move(fd));
    return status;
  }
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), size, PROT_READ);
  if (!mapping.ok()) return mapping.status();
  return PeerSegment(*std::move(mapping));
}

}  // namespace shmrpc::shm
