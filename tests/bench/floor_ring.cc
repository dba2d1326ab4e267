// floor-ring: two protected rings and protobuf, and nothing of a remote procedure call. The message is serialised
// right into the sender's ring behind its length, and copied to private memory before it is parsed.

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpc/testing/messages.pb.h"
#include "tests/bench/byte_ring.h"
#include "tests/bench/floor.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {
namespace {

using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;

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

class RingServer final : public ServerSide {
 public:
  explicit RingServer(const PeerSetup& setup) : setup_(setup) {}

  absl::StatusOr<std::string> Start() override { return std::string(); }

  absl::Status Serve() override {
    absl::StatusOr<RingSegments> segments = ExchangeRingSegments(setup_.socket, Capacity(setup_.payload_bytes));
    if (!segments.ok()) return segments.status();
    MessageRing ring(*std::move(segments));
    SimpleRequest request;
    SimpleResponse response;
    return ServeFloor(
        setup_, [&] { return ring.Receive(&request); }, [&] { return absl::string_view(request.payload().body()); },
        [&] {
          *response.mutable_payload() = request.payload();  // what the handlers of the other peers do
          return ring.Send(response);
        });
  }

 private:
  const PeerSetup setup_;
};

class RingClient final : public FloorClient {
 public:
  explicit RingClient(const PeerSetup& setup) : socket_(setup.socket), capacity_(Capacity(setup.payload_bytes)) {
    request_.mutable_payload()->mutable_body()->resize(setup.payload_bytes);
  }

  absl::Status Connect(const std::string& address) override {
    absl::StatusOr<RingSegments> segments = ExchangeRingSegments(socket_, capacity_);
    if (!segments.ok()) return segments.status();
    ring_.emplace(*std::move(segments));
    return absl::OkStatus();
  }

  absl::Span<char> request(int slot) override {
    std::string* const body = request_.mutable_payload()->mutable_body();
    return absl::MakeSpan(body->data(), body->size());
  }
  absl::string_view reply(int slot) const override { return response_.payload().body(); }

  absl::Status Call(int slot) override {
    const absl::Status status = Send();
    return status.ok() ? Receive() : status;
  }

 protected:
  absl::Status Send() override { return ring_->Send(request_); }
  absl::Status Receive() override { return ring_->Receive(&response_); }

 private:
  const int socket_;
  const size_t capacity_;
  std::optional<MessageRing> ring_;
  SimpleRequest request_;
  SimpleResponse response_;
};

}  // namespace

std::vector<PeerInfo> RingFloorPeers() {
  PeerInfo ring = DescribePeer<RingServer, RingClient>("floor-ring");
  ring.abilities = kFloorAbilities;
  return {ring};
}

}  // namespace shmrpc::bench
