// floor-pool: large messages beside the ring, and nothing of a remote procedure call. The message is serialised into an
// extent of the sender's pool of shared memory; the ring carries only the extent's name, and its release back. As with
// the rings, bytes are copied to private memory before they are parsed: here piece by piece while the parser asks for
// them, which is the best that can be done with a message that is there as a whole.

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "tests/bench/byte_ring.h"
#include "tests/bench/floor_messages.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {
namespace {

constexpr size_t kLargestOverhead = 256;         // of a message, beside its payload
constexpr size_t kExtents = 2;                   // of each pool; the one that was released last is used first
constexpr size_t kRingBytes = size_t{16} << 10;  // for names and releases
constexpr size_t kPieceBytes = size_t{64} << 10;

// What travels over the ring.
struct Record {
  enum Kind : uint32_t { kMessage = 1, kRelease = 2 };
  uint32_t kind = 0;
  uint32_t extent = 0;
  uint64_t length = 0;  // of the message
};

// Copies of pieces of an extent, one at a time, as protobuf asks for them.
class PieceCopier final : public google::protobuf::io::CopyingInputStream {
 public:
  PieceCopier(const char* bytes, size_t size) : bytes_(bytes), left_(size) {}

  int Read(void* buffer, int size) override {
    const size_t piece = std::min(left_, static_cast<size_t>(size));
    std::memcpy(buffer, bytes_, piece);
    bytes_ += piece;
    left_ -= piece;
    return static_cast<int>(piece);
  }

 private:
  const char* bytes_;
  size_t left_;
};

class MessagePool {
 public:
  static absl::StatusOr<std::unique_ptr<MessagePool>> Connect(int socket, size_t payload_bytes) {
    absl::StatusOr<RingSegments> ring = ExchangeRingSegments(socket, kRingBytes);
    if (!ring.ok()) return ring.status();
    const size_t extent_bytes = std::bit_ceil(std::max(payload_bytes + kLargestOverhead, size_t{4096}));
    absl::StatusOr<RingSegments> pool = ExchangeRingSegments(socket, kExtents * extent_bytes);
    if (!pool.ok()) return pool.status();
    return std::unique_ptr<MessagePool>(new MessagePool(*std::move(ring), *std::move(pool), extent_bytes));
  }
  MessagePool(const MessagePool&) = delete;
  MessagePool& operator=(const MessagePool&) = delete;

  absl::Status Send(const google::protobuf::MessageLite& message) {
    while (unused_.empty()) {
      const absl::Status status = TakeRecord();
      if (!status.ok()) return status;
    }
    const size_t length = message.ByteSizeLong();
    if (length > extent_bytes_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a message of ", length, " bytes does not fit an extent of ", extent_bytes_));
    }
    const uint32_t extent = unused_.back();
    unused_.pop_back();
    message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(pool_.own.data(extent * extent_bytes_)));
    Put({.kind = Record::kMessage, .extent = extent, .length = length});
    return absl::OkStatus();
  }

  absl::Status Receive(google::protobuf::MessageLite* message) {
    while (arrived_.empty()) {
      const absl::Status status = TakeRecord();
      if (!status.ok()) return status;
    }
    const Record record = arrived_.front();
    arrived_.erase(arrived_.begin());
    PieceCopier copier(pool_.peer.data(record.extent * extent_bytes_), record.length);
    google::protobuf::io::CopyingInputStreamAdaptor stream(&copier, kPieceBytes);
    if (!message->ParseFromZeroCopyStream(&stream)) {
      return absl::InternalError("the peer's message cannot be parsed");
    }
    Put({.kind = Record::kRelease, .extent = record.extent});
    return absl::OkStatus();
  }

 private:
  MessagePool(RingSegments ring, RingSegments pool, size_t extent_bytes)
      : ring_(std::move(ring)), pool_(std::move(pool)), end_(ring_.own, ring_.peer), extent_bytes_(extent_bytes) {
    for (uint32_t extent = 0; extent < kExtents; ++extent) unused_.push_back(extent);
  }

  void Put(const Record& record) { end_.Write(reinterpret_cast<const char*>(&record), sizeof(record)); }

  // Waits for the next record of the peer, whatever it is.
  absl::Status TakeRecord() {
    Record record;
    end_.Read(reinterpret_cast<char*>(&record), sizeof(record));
    if (record.extent >= kExtents || record.length > extent_bytes_ ||
        (record.kind != Record::kMessage && record.kind != Record::kRelease)) {
      return absl::InternalError(absl::StrCat("the peer names ", record.length, " bytes of extent ", record.extent));
    }
    if (record.kind == Record::kMessage) {
      arrived_.push_back(record);
    } else {
      unused_.push_back(record.extent);
    }
    return absl::OkStatus();
  }

  const RingSegments ring_;
  const RingSegments pool_;
  RingEnd end_;
  const size_t extent_bytes_;
  std::vector<uint32_t> unused_;  // of this side's extents
  std::vector<Record> arrived_;   // messages that wait to be received
};

}  // namespace

std::vector<PeerInfo> PoolFloorPeers() {
  PeerInfo pool = DescribePeer<MessageFloorServer<MessagePool>, MessageFloorClient<MessagePool>>("floor-pool");
  pool.abilities = kFloorAbilities;
  return {pool};
}

}  // namespace shmrpc::bench
