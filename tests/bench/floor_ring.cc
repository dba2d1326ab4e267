// floor-ring: two protected rings and protobuf, and nothing of a remote procedure call. The message is serialised
// right into the sender's ring behind its length, and copied to private memory before it is parsed.

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/message_lite.h"
#include "tests/bench/byte_ring.h"
#include "tests/bench/floor_messages.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {
namespace {

constexpr size_t kLengthBytes = 8;        // in front of every message; messages begin on multiples of it
constexpr size_t kLargestOverhead = 256;  // of a record, beside its payload
constexpr size_t kSmallestCapacity = size_t{256} << 10;

size_t Capacity(size_t payload_bytes) {
  return std::max(kSmallestCapacity, std::bit_ceil(payload_bytes + kLargestOverhead));
}

size_t RecordBytes(size_t message_bytes) {
  return kLengthBytes + (message_bytes + kLengthBytes - 1) / kLengthBytes * kLengthBytes;
}

class MessageRing {
 public:
  static absl::StatusOr<std::unique_ptr<MessageRing>> Connect(int socket, size_t payload_bytes) {
    absl::StatusOr<RingSegments> segments = ExchangeRingSegments(socket, Capacity(payload_bytes));
    if (!segments.ok()) return segments.status();
    return std::make_unique<MessageRing>(*std::move(segments));
  }

  explicit MessageRing(RingSegments segments)
      : segments_(std::move(segments)), end_(segments_.own, segments_.peer), private_copy_(segments_.own.capacity()) {}
  MessageRing(const MessageRing&) = delete;
  MessageRing& operator=(const MessageRing&) = delete;

  absl::Status Send(const google::protobuf::MessageLite& message) {
    const uint64_t length = message.ByteSizeLong();
    const size_t record_bytes = RecordBytes(length);
    if (record_bytes > segments_.own.capacity()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a message of ", length, " bytes does not fit a ring of ", segments_.own.capacity()));
    }
    char* const record = end_.Reserve(record_bytes);
    std::memcpy(record, &length, sizeof(length));
    message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(record + kLengthBytes));
    end_.Publish(record_bytes);
    return absl::OkStatus();
  }

  absl::Status Receive(google::protobuf::MessageLite* message) {
    uint64_t length;
    std::memcpy(&length, end_.Await(kLengthBytes), sizeof(length));
    if (length > segments_.peer.capacity() - kLengthBytes) {
      return absl::InternalError(
          absl::StrCat("the peer announces a message of ", length, " bytes in a ring of ", segments_.peer.capacity()));
    }
    const size_t record_bytes = RecordBytes(length);
    std::memcpy(private_copy_.data(), end_.Await(record_bytes) + kLengthBytes, length);
    end_.Consume(record_bytes);
    if (!message->ParseFromArray(private_copy_.data(), static_cast<int>(length))) {
      return absl::InternalError("the peer's message cannot be parsed");
    }
    return absl::OkStatus();
  }

 private:
  const RingSegments segments_;
  RingEnd end_;
  std::vector<char> private_copy_;
};

}  // namespace

std::vector<PeerInfo> RingFloorPeers() {
  PeerInfo ring = DescribePeer<MessageFloorServer<MessageRing>, MessageFloorClient<MessageRing>>("floor-ring");
  ring.abilities = kFloorAbilities;
  return {ring};
}

}  // namespace shmrpc::bench
