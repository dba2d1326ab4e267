#ifndef SHMRPC_TRANSPORTS_SHM_RING_H_
#define SHMRPC_TRANSPORTS_SHM_RING_H_

// A single-producer, single-consumer ring of records between two processes that do not trust each other.
//
// Where things are. Each process writes to memory of its own only, which the other maps read-only:
//
//   producer's segment: the ring's bytes; ControlBlock.wants_room
//   consumer's segment: ControlBlock.consumed, ControlBlock.parked
//
// (Each process is the producer of one ring and the consumer of another, so each segment holds one ring and one
// ControlBlock, all of which its owner writes.)
//
// Positions count bytes since the ring was made and only grow, modulo 2^64; a position's place is its value modulo the
// capacity, a power of two. A record starts at a multiple of 64, so that records never share a cache line. Its first
// word (uint32) is its length in bytes, header included, or kPadding: the rest up to the ring's end is unused and the
// next record is at its beginning.
//
// Invariants
//  1. Only the producer writes the ring, only from the position `produced` on, and at most up to
//     consumed + capacity: it loads `consumed` before it believes in room.
//  2. The word at `produced` is zero from the moment the record before it is published until the record at it is.
//     Hence the room rule of Reserve: besides the record itself 64 bytes must be free for the next record's first word.
//  3. A record is published by the store of its first word, which comes after all its bytes are written and after the
//     word that follows it is zero. With padding, the record at the ring's beginning is published first, the padding
//     word last, because the consumer gets there by way of the padding.
//  4. The consumer never loads beyond a zero word. It loads the first word of a record once, checks the value, and uses
//     the checked value from then on; it never believes that the memory still says the same.
//  5. `consumed` grows by whole records, after the record has been copied out.
//
// Memory order
//  - The publishing store is a release and the consumer's load of the word an acquire: the record's bytes, and the
//    zero after it, are visible when the word is (3). The store of `consumed` is a release and the producer's load an
//    acquire: the consumer's reads of a record are over before the producer overwrites it (1, 5).
//  - Sleeping is Dekker's pattern. Consumer: store `parked`, then load the word. Producer: store the word, then load
//    `parked`. All four are seq_cst, so at least one of the two sees the other's store: either the consumer finds the
//    record, or the producer rings. The same holds for `wants_room` (stored by the producer, before it loads
//    `consumed`) against `consumed` (stored by the consumer, before it loads `wants_room`). As that seq_cst store would
//    cost as much as all the rest of Consume, it is done only once per quarter of the ring and before parking; between
//    those, `wants_room` may be seen late, but never not at all, since a producer that finds no room has more than
//    a quarter of the ring outstanding.
//
// What a hostile peer can do. A consumer gets wrong bytes in a record, or an error from Peek. A producer gets an error
// from Reserve when `consumed` leaves the window [consumed seen last, produced], or else believes in room that lies
// inside its own memory. Flags make us ring once per change at most. Nobody's loads or stores leave the ring.
//
// Threads: one producer thread and one consumer thread at a time, handed over with a lock or the like; HasRoom may be
// called by any thread.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace shmrpc::shm {

inline constexpr size_t kCacheLine = 64;

// The first page of every segment.
struct ControlBlock {
  // Written after each record received; loaded by the peer when it seems to have run out of room.
  alignas(kCacheLine) std::atomic<uint64_t> consumed;
  // Odd while nobody looks at the ring; one more with each change. Loaded by the peer after each record, so it has a
  // line of its own which is written only around sleeping.
  alignas(kCacheLine) std::atomic<uint32_t> parked;
  // One more each time this side, as a producer, starts to wait for room.
  alignas(kCacheLine) std::atomic<uint32_t> wants_room;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);
static_assert(sizeof(ControlBlock) <= 4096);

inline constexpr size_t kControlBytes = 4096;

class RingProducer {
 public:
  // `data`: `capacity` bytes (a power of two, at least 4 × max_record) of this process's segment, zeroed.
  // `own` and `peer` outlive this object. `start` is the first position, 0 but in tests.
  RingProducer(uint8_t* data, size_t capacity, size_t max_record, ControlBlock* own, const ControlBlock* peer,
               uint64_t start = 0);

  // Memory for a record of up to `size` bytes, first word included; null when there is no room, or broken().
  uint8_t* Reserve(size_t size);

  // Publishes the reserved record with its final size, at most what was reserved.
  void Commit(size_t size);

  bool HasRoom() const;

  // Starts to wait for room: true when the peer will see the wish, false when there is room.
  bool AskForRoom();

  // Whether the peer is parked in a way that it has not been rung for; notes that it is going to be.
  bool TakeParked();

  // Whether the peer has not yet consumed everything that was published.
  bool PeerBehind() const;

  uint64_t produced() const { return produced_.load(std::memory_order_relaxed); }

  // Not OK once the peer was seen to break the protocol, and from then on the same.
  const absl::Status& broken() const { return broken_; }

 private:
  static constexpr uint64_t AlignUp(uint64_t size) { return (size + kCacheLine - 1) & ~uint64_t{kCacheLine - 1}; }
  bool FitsAfter(uint64_t consumed, uint64_t bytes) const {
    return capacity_ - (produced() - consumed) >= bytes + kCacheLine;
  }
  bool LoadConsumed();

  uint8_t* const data_;
  const size_t capacity_;
  const size_t max_record_;
  ControlBlock* const own_;
  const ControlBlock* const peer_;
  std::atomic<uint64_t> produced_;  // written by the producer, loaded by HasRoom
  uint64_t consumed_;               // as last seen, and checked
  uint64_t reserved_at_ = 0;        // place of the reserved record in data_
  bool padded_ = false;             // whether the reserved record comes after padding
  uint32_t rung_parked_ = 0;        // the value of the peer's `parked` that it was last rung for
  absl::Status broken_;
};

class RingConsumer {
 public:
  // `data` is the peer's memory. Everything else as for the producer; `min_record` is the smallest length allowed.
  RingConsumer(const uint8_t* data, size_t capacity, size_t min_record, size_t max_record, ControlBlock* own,
               const ControlBlock* peer, uint64_t start = 0);

  // The length of the next record, checked to be in [min_record, max_record] and to lie inside the ring; 0 when there
  // is none or broken().
  size_t Peek();

  // Copies the record of `length` bytes that Peek has just found to `out`, with `length` as its first word whatever the
  // memory says by now, and consumes it. True when the peer waits for room and should be rung.
  bool Take(size_t length, uint8_t* out);

  // Announces that nobody looks any more, then looks once more: false when there is something, and the announcement is
  // taken back. `*ring` is set when the peer waits for room and should be rung.
  bool PrepareToPark(bool* ring);

  void Unpark();

  const absl::Status& broken() const { return broken_; }

 private:
  uint32_t LoadWord(uint64_t position, std::memory_order order) const;
  bool TakeRoomRequest(std::memory_order order);

  const uint8_t* const data_;
  const size_t capacity_;
  const size_t min_record_;
  const size_t max_record_;
  ControlBlock* const own_;
  const ControlBlock* const peer_;
  uint64_t position_;
  uint64_t fenced_position_;  // where `consumed` was last stored with seq_cst
  uint32_t rung_room_ = 0;    // the value of the peer's `wants_room` that it was last rung for
  uint32_t parked_ = 0;       // what own_->parked says
  absl::Status broken_;
};

}  // namespace shmrpc::shm

#endif  // SHMRPC_TRANSPORTS_SHM_RING_H_
