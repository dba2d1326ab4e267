#ifndef SHMRPC_TESTS_BENCH_BYTE_RING_H_
#define SHMRPC_TESTS_BENCH_BYTE_RING_H_

// The ring that the floors are made of: a textbook ring of bytes between two processes, one producer, one consumer,
// both of which wait by spinning. It shares no code with the library, because it is what the library is compared to;
// so it is kept plain and is not to be tuned.
//
// Each side has one segment, a sealed memfd that it alone can write. It holds the data and the producer position of
// the ring that this side fills, and the consumer position of the ring that it empties:
//
//   offset 0     produced  bytes ever put into this side's ring       (a cache line of its own)
//   offset 128   consumed  bytes ever taken out of the other's ring   (a cache line of its own)
//   offset 4096  data
//
// The data are mapped twice, one right behind the other, so that every stretch of bytes is in one piece.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/src/spin_pause.h"

namespace shmrpc::bench {

using internal::SpinPause;

// The mapping of one segment, ours (writable) or the peer's (read-only).
class RingSegment {
 public:
  // Makes a segment of this process, with room for `capacity` bytes of data (a power of two, whole pages), and seals
  // it: it can neither change its size nor be mapped writable by anybody else. `*fd` is to be handed to the peer.
  static absl::StatusOr<RingSegment> Create(size_t capacity, int* fd);

  // Maps the peer's, which must have the same capacity and be sealed.
  static absl::StatusOr<RingSegment> Open(int fd, size_t capacity);

  RingSegment(RingSegment&& other) noexcept;
  RingSegment& operator=(RingSegment&& other) noexcept;
  ~RingSegment();

  std::atomic<uint64_t>& produced() const { return *reinterpret_cast<std::atomic<uint64_t>*>(base_); }
  std::atomic<uint64_t>& consumed() const { return *reinterpret_cast<std::atomic<uint64_t>*>(base_ + 128); }
  // The byte at a position that counts from the ring's first byte ever; capacity() bytes from there are in one piece.
  char* data(uint64_t position) const { return base_ + kHeaderBytes + (position & (capacity_ - 1)); }
  size_t capacity() const { return capacity_; }

  static constexpr size_t kHeaderBytes = 4096;

 private:
  RingSegment(char* base, size_t capacity) : base_(base), capacity_(capacity) {}
  static absl::StatusOr<RingSegment> Map(int fd, size_t capacity, int protection);

  char* base_;  // null when moved away
  size_t capacity_;
};

// Fills one ring and empties the other. The two ends of a connection hold the same two segments the other way round.
// Used by one thread.
class RingEnd {
 public:
  RingEnd(const RingSegment& own, const RingSegment& peer) : own_(own), peer_(peer) {}

  // Waits until `size` bytes (at most the capacity) are free and returns where they go; Publish shows them to the peer.
  char* Reserve(size_t size);
  void Publish(size_t size);

  // Waits until at least `size` bytes have come and returns them. They belong to the reader until Consume.
  const char* Await(size_t size);
  void Consume(size_t size);

  // A stream of bytes of any length, in as many steps as the ring needs.
  void Write(const char* data, size_t size);
  void Read(char* data, size_t size);

 private:
  const RingSegment& own_;
  const RingSegment& peer_;
  uint64_t produced_ = 0;       // what own_.produced() says
  uint64_t consumed_ = 0;       // what own_.consumed() says
  uint64_t peer_consumed_ = 0;  // what peer_.consumed() said last
  uint64_t peer_produced_ = 0;  // what peer_.produced() said last
};

// Creates this side's segment, swaps descriptors with the peer over a connected Unix socket, maps the peer's. Both
// sides call it with the same capacity.
struct RingSegments {
  RingSegment own;
  RingSegment peer;
};
absl::StatusOr<RingSegments> ExchangeRingSegments(int socket, size_t capacity);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_BYTE_RING_H_
