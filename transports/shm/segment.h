#ifndef SHMRPC_TRANSPORTS_SHM_SEGMENT_H_
#define SHMRPC_TRANSPORTS_SHM_SEGMENT_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::shm {

// Shared memory between two processes that need not trust each other. Each side makes a Segment, the only memory it
// writes, and passes its descriptor to the peer, which maps it as a PeerSegment and can only read it. The kernel
// enforces this by seals, which are there before the peer gets the descriptor and which nobody can take off:
//
//   F_SEAL_SHRINK        the owner cannot truncate it, so that reading never ends in SIGBUS
//   F_SEAL_GROW          nobody can make it use more memory than was agreed
//   F_SEAL_FUTURE_WRITE  nobody gets another writable mapping, nor writes by descriptor: only the owner's stays
//   F_SEAL_SEAL          that is all there is to come
//
// Memory that nobody has touched yet is not there yet, and where the kernel promises no more than it has
// (vm.overcommit_memory=2) it may not be there when it is touched: SIGBUS, for the owner that writes and for the peer
// that reads. There each side takes its own memory when it is made, and looks at all of the peer's once when it is
// mapped: both are told, and refuse.
//
// A memfd has no name and no file system, so that nothing stays behind when both processes are gone, however they went.
//
// The mappings do not exist in a child made by fork() (MADV_DONTFORK): otherwise a child that lives long would hold on
// to the memory of connections that the parent has closed. A child must therefore not touch an inherited connection:
// the runtime looks at its fork generation, and refuses the call, before it looks at memory.

// Pages mapped into this process; unmapped by the destructor, in the process that mapped them. Move-only.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping() { Unmap(); }

  // Maps all of `fd`, shared, with `protection` as in mmap. OK or what went wrong, beginning with "memfd".
  static absl::StatusOr<Mapping> Map(int fd, size_t size, int protection);

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void Unmap();

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  uint32_t fork_generation_ = 0;
};

// Whether the kernel promises no more memory than it has: what is made or mapped is then to be there at once.
bool MemoryIsPromised();

// This side's own memory: zeroed, page-aligned, writable here and nowhere else. Move-only. The memory may be used by
// any number of threads; the object by one at a time.
class Segment {
 public:
  // `size`, not 0, is what the peer is told; the mapping ends with the page in which it ends, whatever the size of
  // pages is. Uses no memory until it is touched, unless it is to be there at once. RESOURCE_EXHAUSTED: the process or
  // the system has reached a limit; UNAVAILABLE: the kernel does not do this. The message begins with "memfd" and
  // contains the errno's name and the limit to raise.
  static absl::StatusOr<Segment> Create(size_t size, bool at_once = MemoryIsPromised());

  uint8_t* data() const { return mapping_.data(); }
  size_t size() const { return mapping_.size(); }

  // To pass to the peer; -1 after ReleaseFd. Owned by the segment.
  int fd() const { return fd_.get(); }

  // Closes the descriptor, once the peer has it. The memory stays.
  void ReleaseFd() { fd_.Reset(); }

 private:
  Segment(framed::UniqueFd fd, Mapping mapping) : fd_(std::move(fd)), mapping_(std::move(mapping)) {}

  framed::UniqueFd fd_;
  Mapping mapping_;
};

// A peer's memory, read-only here. The peer may change every byte at any time: load once, then check what was loaded.
// Move-only.
class PeerSegment {
 public:
  // Takes a descriptor that came from the peer, with the size that the peer announced or the protocol prescribes, and
  // the size that this side will map at most. The descriptor is closed in any case, and without the caller waiting for
  // that. INVALID_ARGUMENT: it is not a sealed memfd of just that size; the message says which check failed. Nothing of
  // it has been mapped then. RESOURCE_EXHAUSTED: this process could not map it.
  static absl::StatusOr<PeerSegment> Map(framed::UniqueFd fd, uint64_t size, uint64_t size_limit,
                                         bool at_once = MemoryIsPromised());

  const uint8_t* data() const { return mapping_.data(); }
  size_t size() const { return mapping_.size(); }

 private:
  explicit PeerSegment(Mapping mapping) : mapping_(std::move(mapping)) {}

  Mapping mapping_;
};

}  // namespace shmrpc::shm

#endif  // SHMRPC_TRANSPORTS_SHM_SEGMENT_H_
