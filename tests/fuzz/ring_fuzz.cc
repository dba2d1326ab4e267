// A ring whose peer is the input: a consumer whose producer writes anything anywhere, and a producer whose consumer
// says anything about its position.

#include <cstring>
#include <memory>
#include <vector>

#include "tests/fuzz/input.h"
#include "transports/shm/ring.h"

namespace shmrpc::fuzz {
namespace {

constexpr size_t kCapacity = 2048;
constexpr size_t kMaxRecord = 512;
constexpr size_t kMinRecord = 16;

struct alignas(shm::kCacheLine) Ring {
  uint8_t bytes[kCapacity];
};

void Consume(Input input) {
  const auto ring = std::make_unique<Ring>();
  shm::ControlBlock own{}, peer{};
  const uint64_t start = input.Take<uint64_t>() & ~uint64_t{shm::kCacheLine - 1};
  const absl::string_view bytes = input.TakeBytes(kCapacity);
  std::memset(ring->bytes, 0, kCapacity);
  std::memcpy(ring->bytes, bytes.data(), bytes.size());
  shm::RingConsumer consumer(ring->bytes, kCapacity, kMinRecord, kMaxRecord, &own, &peer, start);
  for (int i = 0; i < 64 && consumer.broken().ok(); ++i) {
    const size_t length = consumer.Peek();
    if (length == 0) {
      bool ring_peer = false;
      if (consumer.PrepareToPark(&ring_peer)) consumer.Unpark();
    } else {
      Check(length >= kMinRecord && length <= kMaxRecord);
      // The peer changes the record between the check and the copy.
      ring->bytes[input.Take<uint16_t>() % kCapacity] = input.Take<uint8_t>();
      const auto out = std::make_unique<uint8_t[]>(length);  // of exactly this size, for AddressSanitizer
      (void)consumer.Take(length, out.get());
      uint32_t word;
      std::memcpy(&word, out.get(), sizeof word);
      Check(word == length);
    }
    ring->bytes[input.Take<uint16_t>() % kCapacity] = input.Take<uint8_t>();
    peer.wants_room.store(input.Take<uint8_t>());
  }
}

void Produce(Input input) {
  const auto ring = std::make_unique<Ring>();
  std::memset(ring->bytes, 0, kCapacity);
  shm::ControlBlock own{}, peer{};
  const uint64_t start = input.Take<uint64_t>() & ~uint64_t{shm::kCacheLine - 1};
  peer.consumed.store(start);
  shm::RingProducer producer(ring->bytes, kCapacity, kMaxRecord, &own, &peer, start);
  while (!input.empty()) {
    // Small steps forward, so that some of it is believed, or anything at all.
    const uint8_t step = input.Take<uint8_t>();
    const uint64_t consumed = step == 0xff ? input.Take<uint64_t>() : producer.produced() - uint64_t{step} * 32;
    peer.consumed.store(consumed);
    peer.parked.store(input.Take<uint8_t>());
    const size_t reserved = kMinRecord + input.Take<uint16_t>() % (kMaxRecord - kMinRecord + 1);
    const size_t size = std::min<size_t>(reserved, kMinRecord + input.Take<uint8_t>());
    uint8_t* const record = producer.Reserve(reserved);
    if (record == nullptr) {
      if (!producer.broken().ok()) return;
      (void)producer.AskForRoom();
      continue;
    }
    Check(record >= ring->bytes && record + reserved <= ring->bytes + kCapacity);
    std::memset(record + sizeof(uint32_t), 0xee, size - sizeof(uint32_t));
    producer.Commit(size);
    (void)producer.TakeParked();
    (void)producer.PeerBehind();
    (void)producer.HasRoom();
  }
}

}  // namespace
}  // namespace shmrpc::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  shmrpc::fuzz::Input input(data, size);
  if (input.Take<uint8_t>() % 2 == 0) {
    shmrpc::fuzz::Consume(input);
  } else {
    shmrpc::fuzz::Produce(input);
  }
  return 0;
}
