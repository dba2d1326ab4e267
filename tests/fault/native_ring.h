#ifndef SHMRPC_TESTS_FAULT_NATIVE_RING_H_
#define SHMRPC_TESTS_FAULT_NATIVE_RING_H_

// Section 4 of proto/PROTOCOL.md, written down a second time: segments, and the two ends of a ring. Unlike the
// library's these can be told to do what is forbidden.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::fault {

inline constexpr size_t kSegmentBytes = 266240;
inline constexpr size_t kRingBytes = 262144;
inline constexpr size_t kControlPageBytes = 4096;
inline constexpr uint64_t kLine = 64;
inline constexpr uint32_t kPaddingWord = 0xffffffff;

// A memfd of that size with these seals (of F_ADD_SEALS), not mapped. An invalid descriptor fails the test.
framed::UniqueFd MakeMemfd(uint64_t size, int seals);
// Those that the protocol demands.
int RequiredSeals();

// A segment, mapped: one's own, which can be written, or the peer's. Move-only; any thread may use the memory.
class NativeSegment {
 public:
  // In order: of the right size, zero, sealed. A failure fails the test and leaves it without memory.
  static NativeSegment Own();
  // What a peer has passed, after the checks that the protocol asks for; a violation fails the test.
  static NativeSegment OfPeer(framed::UniqueFd fd);

  NativeSegment() = default;
  NativeSegment(NativeSegment&& other) noexcept { *this = std::move(other); }
  NativeSegment& operator=(NativeSegment&& other) noexcept;
  ~NativeSegment();

  bool valid() const { return data_ != nullptr; }
  int fd() const { return fd_.get(); }
  uint8_t* ring() const { return data_ + kControlPageBytes; }

  std::atomic_ref<uint64_t> consumed() const { return At<uint64_t>(0); }
  std::atomic_ref<uint32_t> parked() const { return At<uint32_t>(64); }
  std::atomic_ref<uint32_t> wants_room() const { return At<uint32_t>(128); }
  // The first word of the record at that position.
  std::atomic_ref<uint32_t> word(uint64_t position) const {
    return At<uint32_t>(kControlPageBytes + position % kRingBytes);
  }

 private:
  template <typename T>
  std::atomic_ref<T> At(size_t offset) const {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(data_ + offset));
  }

  framed::UniqueFd fd_;
  uint8_t* data_ = nullptr;
};

// The producing end of the ring in `own`. One thread, but for produced().
class NativeProducer {
 public:
  NativeProducer(const NativeSegment* own, const NativeSegment* peer) : own_(own), peer_(peer) {}

  // Publishes these bytes as a record, whatever their first four, which publish it, say. False: there is no room.
  bool Publish(absl::string_view record);
  // Puts an alive frame there that says it has this length, without counting it as produced: so that a consumer which
  // does not check the length would not find anything else to complain of.
  void PutAliveAt(uint64_t position, uint32_t length);
  // As a producer that has found no room.
  void AskForRoom() { own_->wants_room().fetch_add(1); }

  // Whether the peer has to be rung for what was published; says so once for each time it parks.
  bool TakeParked();
  bool PeerBehind() const { return peer_->consumed().load() != produced_; }
  uint64_t produced() const { return produced_.load(); }

 private:
  const NativeSegment* const own_;
  const NativeSegment* const peer_;
  std::atomic<uint64_t> produced_{0};
  uint32_t rung_parked_ = 0;
};

// The consuming end of the ring in `peer`. One thread.
class NativeConsumer {
 public:
  NativeConsumer(const NativeSegment* own, const NativeSegment* peer) : own_(own), peer_(peer) {}

  // The next record; none when there is none. What an honest producer cannot write fails the test.
  std::optional<std::string> Take();
  // Whether the producer waits for room and was not rung for it.
  bool TakeRoomRequest();
  // False: there is something.
  bool Park();
  void Unpark();
  uint64_t position() const { return position_; }

 private:
  const NativeSegment* const own_;
  const NativeSegment* const peer_;
  uint64_t position_ = 0;
  uint32_t rung_room_ = 0;
};

}  // namespace shmrpc::fault

#endif  // SHMRPC_TESTS_FAULT_NATIVE_RING_H_
