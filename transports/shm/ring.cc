#include "transports/shm/ring.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace shmrpc::shm {
namespace {

constexpr uint32_t kPadding = 0xffffffff;

std::atomic_ref<uint32_t> Word(uint8_t* place) {
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(place));
}

// Asks the CPU to move a line that the other core is waiting for out to the cache that both share. A hint: a no-op on
// CPUs without CLDEMOTE, whose encoding is a no-op's.
inline void PushOut(const uint8_t* line) {
#if defined(__x86_64__)
  asm volatile(".byte 0x0f, 0x1c, 0x00" : : "a"(line) : "memory");  // cldemote (%rax)
#else
  (void)line;
#endif
}

}  // namespace

RingProducer::RingProducer(uint8_t* data, size_t capacity, size_t max_record, ControlBlock* own,
                           const ControlBlock* peer, uint64_t start)
    : data_(data),
      capacity_(capacity),
      max_record_(max_record),
      own_(own),
      peer_(peer),
      produced_(start),
      consumed_(start) {}

bool RingProducer::LoadConsumed() {
  if (!broken_.ok()) return false;  // for good: the receiver's thread may be reading why
  const uint64_t consumed = peer_->consumed.load(std::memory_order_seq_cst);
  // One comparison says both: not beyond what was produced, and not before what was consumed already.
  if (produced() - consumed > produced() - consumed_ || consumed % kCacheLine != 0) {
    broken_ = absl::InternalError(absl::StrCat("the peer broke the protocol: its consumer position ", consumed,
                                               " is not in the window from ", consumed_, " to ", produced()));
    return false;
  }
  consumed_ = consumed;
  return true;
}

uint8_t* RingProducer::Reserve(size_t size) {
  if (!broken_.ok()) return nullptr;
  const uint64_t bytes = AlignUp(size);
  const uint64_t place = produced() % capacity_;
  const uint64_t rest = capacity_ - place;
  padded_ = rest < bytes;
  const uint64_t needed = padded_ ? rest + bytes : bytes;
  if (!FitsAfter(consumed_, needed) && (!LoadConsumed() || !FitsAfter(consumed_, needed))) return nullptr;
  reserved_at_ = padded_ ? 0 : place;
  return data_ + reserved_at_;
}

void RingProducer::Commit(size_t size) {
  const uint64_t bytes = AlignUp(size);
  const uint64_t place = produced() % capacity_;
  uint8_t* const record = data_ + reserved_at_;
  Word(data_ + (reserved_at_ + bytes) % capacity_).store(0, std::memory_order_relaxed);
  const uint32_t length = static_cast<uint32_t>(size);
  if (padded_) {
    Word(record).store(length, std::memory_order_release);
    Word(data_ + place).store(kPadding, std::memory_order_seq_cst);
    produced_.store(produced() + (capacity_ - place) + bytes, std::memory_order_relaxed);
  } else {
    Word(record).store(length, std::memory_order_seq_cst);
    produced_.store(produced() + bytes, std::memory_order_relaxed);
  }
  // Only small records: of a large one the first lines have been fetched before the last ones are written.
  if (bytes > 4 * kCacheLine) return;
  for (uint64_t line = 0; line < bytes; line += kCacheLine) PushOut(record + line);
}

bool RingProducer::HasRoom() const {
  // The worst case is a largest record that needs padding of almost its own size. An impossible `consumed` counts as
  // room: Reserve is where it is noticed.
  const uint64_t outstanding = produced() - peer_->consumed.load(std::memory_order_relaxed);
  return outstanding > capacity_ || capacity_ - outstanding >= 2 * AlignUp(max_record_) + kCacheLine;
}

bool RingProducer::AskForRoom() {
  own_->wants_room.fetch_add(1, std::memory_order_seq_cst);
  if (!LoadConsumed()) return false;
  return !HasRoom();
}

bool RingProducer::TakeParked() {
  const uint32_t parked = peer_->parked.load(std::memory_order_seq_cst);
  if (parked % 2 == 0 || parked == rung_parked_) return false;
  rung_parked_ = parked;
  return true;
}

bool RingProducer::PeerBehind() const { return peer_->consumed.load(std::memory_order_relaxed) != produced(); }

RingConsumer::RingConsumer(const uint8_t* data, size_t capacity, size_t min_record, size_t max_record,
                           ControlBlock* own, const ControlBlock* peer, uint64_t start)
    : data_(data),
      capacity_(capacity),
      min_record_(min_record),
      max_record_(max_record),
      own_(own),
      peer_(peer),
      position_(start),
      fenced_position_(start) {}

uint32_t RingConsumer::LoadWord(uint64_t position, std::memory_order order) const {
  // atomic_ref wants a non-const object although it is only loaded from; the mapping is read-only all the same.
  return Word(const_cast<uint8_t*>(data_ + position % capacity_)).load(order);
}

size_t RingConsumer::Peek() {
  if (!broken_.ok()) return 0;
  uint32_t length = LoadWord(position_, std::memory_order_acquire);
  if (length == 0) return 0;
  if (length == kPadding) {
    const uint64_t rest = capacity_ - position_ % capacity_;
    if (rest > max_record_) {
      broken_ = absl::InternalError(
          absl::StrCat("the peer broke the protocol: padding of ", rest, " bytes, more than a record's ", max_record_));
      return 0;
    }
    length = LoadWord(position_ + rest, std::memory_order_acquire);
    if (length != 0 && length != kPadding) position_ += rest;
  }
  const uint64_t room = capacity_ - position_ % capacity_;
  if (length < min_record_ || length > max_record_ || length > room) {
    broken_ = absl::InternalError(absl::StrCat("the peer broke the protocol: a record of ", length, " bytes where ",
                                               min_record_, " to ", max_record_, " are allowed and ", room,
                                               " are left in the ring"));
    return 0;
  }
  return length;
}

bool RingConsumer::Take(size_t length, uint8_t* out) {
  std::memcpy(out, data_ + position_ % capacity_, length);
  const uint32_t word = static_cast<uint32_t>(length);
  std::memcpy(out, &word, sizeof word);
  position_ += (length + kCacheLine - 1) & ~uint64_t{kCacheLine - 1};
  if (position_ - fenced_position_ < capacity_ / 4) {
    own_->consumed.store(position_, std::memory_order_release);
    return TakeRoomRequest(std::memory_order_relaxed);
  }
  own_->consumed.store(position_, std::memory_order_seq_cst);
  fenced_position_ = position_;
  return TakeRoomRequest(std::memory_order_seq_cst);
}

bool RingConsumer::TakeRoomRequest(std::memory_order order) {
  const uint32_t wanted = peer_->wants_room.load(order);
  if (wanted == rung_room_) return false;
  rung_room_ = wanted;
  return true;
}

bool RingConsumer::PrepareToPark(bool* ring) {
  if (parked_ % 2 == 0) own_->parked.store(++parked_, std::memory_order_seq_cst);
  own_->consumed.store(position_, std::memory_order_seq_cst);
  fenced_position_ = position_;
  *ring = TakeRoomRequest(std::memory_order_seq_cst);
  if (LoadWord(position_, std::memory_order_seq_cst) == 0) return true;
  Unpark();
  return false;
}

void RingConsumer::Unpark() {
  if (parked_ % 2 == 1) own_->parked.store(++parked_, std::memory_order_relaxed);
}

}  // namespace shmrpc::shm
