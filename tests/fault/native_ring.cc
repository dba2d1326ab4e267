#include "native_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "gtest/gtest.h"
#include "native_wire.h"

namespace shmrpc::fault {
namespace {

uint64_t RoundUp(uint64_t size) { return (size + kLine - 1) / kLine * kLine; }

uint8_t* MapSegment(int fd, int protection) {
  void* const memory = mmap(nullptr, kSegmentBytes, protection, MAP_SHARED, fd, 0);
  EXPECT_NE(memory, MAP_FAILED);
  return memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
}

}  // namespace

int RequiredSeals() { return F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL; }

framed::UniqueFd MakeMemfd(uint64_t size, int seals) {
  framed::UniqueFd fd(memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_TRUE(fd.valid());
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(size)), 0);
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

NativeSegment NativeSegment::Own() {
  NativeSegment segment;
  segment.fd_ = MakeMemfd(kSegmentBytes, 0);
  segment.data_ = MapSegment(segment.fd_.get(), PROT_READ | PROT_WRITE);
  EXPECT_EQ(fcntl(segment.fd_.get(), F_ADD_SEALS, RequiredSeals()), 0);
  return segment;
}

NativeSegment NativeSegment::OfPeer(framed::UniqueFd fd) {
  struct stat status = {};
  EXPECT_EQ(fstat(fd.get(), &status), 0);
  EXPECT_EQ(fcntl(fd.get(), F_GET_SEALS) & RequiredSeals(), RequiredSeals());
  EXPECT_EQ(static_cast<size_t>(status.st_size), kSegmentBytes);
  NativeSegment segment;
  segment.data_ = MapSegment(fd.get(), PROT_READ);
  return segment;
}

NativeSegment& NativeSegment::operator=(NativeSegment&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  return *this;
}

NativeSegment::~NativeSegment() {
  if (data_ != nullptr) munmap(data_, kSegmentBytes);
}

bool NativeProducer::Publish(absl::string_view record) {
  uint32_t first_word;
  std::memcpy(&first_word, record.data(), sizeof first_word);
  const uint64_t produced = produced_;
  const uint64_t bytes = RoundUp(record.size());
  const uint64_t rest = kRingBytes - produced % kRingBytes;
  const uint64_t padding = rest < bytes ? rest : 0;
  if (kRingBytes - (produced - peer_->consumed().load()) < padding + bytes + kLine) return false;
  const uint64_t at = produced + padding;
  std::memcpy(own_->ring() + at % kRingBytes + sizeof first_word, record.data() + sizeof first_word,
              record.size() - sizeof first_word);
  own_->word(at + bytes).store(0);
  own_->word(at).store(first_word);
  if (padding != 0) own_->word(produced).store(kPaddingWord);
  produced_ = at + bytes;
  return true;
}

void NativeProducer::PutAliveAt(uint64_t position, uint32_t length) {
  const std::string frame = EncodeFrame({.type = kAliveFrame});
  std::memcpy(own_->ring() + position % kRingBytes + sizeof length, frame.data() + sizeof length,
              frame.size() - sizeof length);
  own_->word(position).store(length);
}

bool NativeProducer::TakeParked() {
  const uint32_t parked = peer_->parked().load();
  if (parked % 2 == 0 || parked == rung_parked_) return false;
  rung_parked_ = parked;
  return true;
}

std::optional<std::string> NativeConsumer::Take() {
  uint32_t length = peer_->word(position_).load();
  if (length == 0) return std::nullopt;
  if (length == kPaddingWord) {
    position_ += kRingBytes - position_ % kRingBytes;
    length = peer_->word(position_).load();
  }
  if (length < 16 || length > 65536 || length > kRingBytes - position_ % kRingBytes) {
    ADD_FAILURE() << "the other side has written a record of " << length << " bytes at position " << position_;
    return std::nullopt;
  }
  std::string record(reinterpret_cast<const char*>(peer_->ring() + position_ % kRingBytes), length);
  position_ += RoundUp(length);
  own_->consumed().store(position_);
  return record;
}

bool NativeConsumer::TakeRoomRequest() {
  const uint32_t wants_room = peer_->wants_room().load();
  return std::exchange(rung_room_, wants_room) != wants_room;
}

bool NativeConsumer::Park() {
  own_->parked().fetch_add(1);
  own_->consumed().store(position_);
  if (peer_->word(position_).load() == 0) return true;
  Unpark();
  return false;
}

void NativeConsumer::Unpark() { own_->parked().fetch_add(1); }

}  // namespace shmrpc::fault
