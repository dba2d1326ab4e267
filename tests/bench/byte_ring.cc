#include "tests/bench/byte_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/bench/process.h"

#ifndef F_SEAL_FUTURE_WRITE  // glibc 2.36 leaves it to the kernel's header, which clashes with <fcntl.h>
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace shmrpc::bench {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

absl::Status SendDescriptor(int socket, int fd) {
  char byte = 0;
  iovec data{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1) return absl::ErrnoToStatus(errno, "cannot send a descriptor");
  return absl::OkStatus();
}

absl::StatusOr<int> ReceiveDescriptor(int socket) {
  char byte = 0;
  iovec data{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (n < 0) return absl::ErrnoToStatus(errno, "cannot receive a descriptor");
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (n == 0 || header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return absl::UnavailableError("the other side has sent no descriptor");
  }
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return fd;
}

}  // namespace

absl::StatusOr<RingSegment> RingSegment::Map(int fd, size_t capacity, int protection) {
  // Reserves the addresses first, then puts the file there: header and data, and behind them the data again.
  const size_t length = kHeaderBytes + 2 * capacity;
  void* const base = mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", length, " bytes"));
  RingSegment segment(static_cast<char*>(base), capacity);
  constexpr int kFlags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
  char* const again = segment.base_ + kHeaderBytes + capacity;
  if (mmap(base, kHeaderBytes + capacity, protection, kFlags, fd, 0) == MAP_FAILED ||
      mmap(again, capacity, protection, kFlags, fd, kHeaderBytes) == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, "cannot map a ring");
  }
  return segment;
}

absl::StatusOr<RingSegment> RingSegment::Create(size_t capacity, int* fd) {
  Descriptor memory(memfd_create("shmrpc_bench", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory.get() < 0) return absl::ErrnoToStatus(errno, "cannot create a memfd");
  if (ftruncate(memory.get(), static_cast<off_t>(kHeaderBytes + capacity)) < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot size a memfd for ", capacity, " bytes"));
  }
  absl::StatusOr<RingSegment> segment = Map(memory.get(), capacity, PROT_READ | PROT_WRITE);
  if (!segment.ok()) return segment;
  if (fcntl(memory.get(), F_ADD_SEALS, kSeals) < 0) return absl::ErrnoToStatus(errno, "cannot seal a memfd");
  *fd = dup(memory.get());
  if (*fd < 0) return absl::ErrnoToStatus(errno, "cannot duplicate a descriptor");
  return segment;
}

absl::StatusOr<RingSegment> RingSegment::Open(int fd, size_t capacity) {
  struct stat status;
  if (fstat(fd, &status) < 0) return absl::ErrnoToStatus(errno, "cannot ask for the size of the peer's memfd");
  if (status.st_size != static_cast<off_t>(kHeaderBytes + capacity)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the peer's memfd has ", status.st_size, " bytes, expected ", kHeaderBytes + capacity));
  }
  if (fcntl(fd, F_GET_SEALS) != kSeals) return absl::InvalidArgumentError("the peer's memfd is not sealed as agreed");
  return Map(fd, capacity, PROT_READ);
}

RingSegment::RingSegment(RingSegment&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), capacity_(other.capacity_) {}

RingSegment& RingSegment::operator=(RingSegment&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

RingSegment::~RingSegment() {
  if (base_ != nullptr) munmap(base_, kHeaderBytes + 2 * capacity_);
}

char* RingEnd::Reserve(size_t size) {
  while (produced_ + size - peer_consumed_ > own_.capacity()) {
    peer_consumed_ = peer_.consumed().load(std::memory_order_acquire);
    if (produced_ + size - peer_consumed_ > own_.capacity()) SpinPause();
  }
  return own_.data(produced_);
}

void RingEnd::Publish(size_t size) {
  produced_ += size;
  own_.produced().store(produced_, std::memory_order_release);
}

const char* RingEnd::Await(size_t size) {
  while (peer_produced_ - consumed_ < size) {
    peer_produced_ = peer_.produced().load(std::memory_order_acquire);
    if (peer_produced_ - consumed_ < size) SpinPause();
  }
  return peer_.data(consumed_);
}

void RingEnd::Consume(size_t size) {
  consumed_ += size;
  own_.consumed().store(consumed_, std::memory_order_release);
}

void RingEnd::Write(const char* data, size_t size) {
  while (size > 0) {
    const size_t step = std::min(size, own_.capacity());
    std::memcpy(Reserve(step), data, step);
    Publish(step);
    data += step;
    size -= step;
  }
}

void RingEnd::Read(char* data, size_t size) {
  while (size > 0) {
    const size_t step = std::min(size, peer_.capacity());
    std::memcpy(data, Await(step), step);
    Consume(step);
    data += step;
    size -= step;
  }
}

absl::StatusOr<RingSegments> ExchangeRingSegments(int socket, size_t capacity) {
  int own_fd = -1;
  absl::StatusOr<RingSegment> own = RingSegment::Create(capacity, &own_fd);
  if (!own.ok()) return own.status();
  const Descriptor own_memory(own_fd);
  const absl::Status sent = SendDescriptor(socket, own_fd);
  if (!sent.ok()) return sent;
  const absl::StatusOr<int> peer_fd = ReceiveDescriptor(socket);
  if (!peer_fd.ok()) return peer_fd.status();
  const Descriptor peer_memory(*peer_fd);
  absl::StatusOr<RingSegment> peer = RingSegment::Open(*peer_fd, capacity);
  if (!peer.ok()) return peer.status();
  return RingSegments{.own = *std::move(own), .peer = *std::move(peer)};
}

}  // namespace shmrpc::bench
