// Floors without a codec: what two CPUs can do through memory at best.

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "tests/bench/byte_ring.h"
#include "tests/bench/floor.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {
namespace {

// floor-cacheline: one cache line there and one back. The line is the payload; its first word, the number of the call,
// is written last and tells the other side that the rest is there.
constexpr size_t kLineBytes = 64;

// Waits until the line's first word is no longer `last`, then copies the line. Returns the new first word.
uint64_t AwaitLine(const char* line, uint64_t last, char* copy) {
  const auto& first = *reinterpret_cast<const std::atomic<uint64_t>*>(line);
  uint64_t value;
  while ((value = first.load(std::memory_order_acquire)) == last) SpinPause();
  std::memcpy(copy, &value, sizeof(value));
  std::memcpy(copy + sizeof(value), line + sizeof(value), kLineBytes - sizeof(value));
  return value;
}

void PublishLine(char* line, const char* bytes) {
  uint64_t value;
  std::memcpy(&value, bytes, sizeof(value));
  std::memcpy(line + sizeof(value), bytes + sizeof(value), kLineBytes - sizeof(value));
  reinterpret_cast<std::atomic<uint64_t>*>(line)->store(value, std::memory_order_release);
}

class CacheLineServer final : public ServerSide {
 public:
  explicit CacheLineServer(const PeerSetup& setup) : socket_(setup.socket) {}

  absl::StatusOr<std::string> Start() override { return std::string(); }

  absl::Status Serve() override {
    const absl::StatusOr<RingSegments> segments = ExchangeRingSegments(socket_, RingSegment::kHeaderBytes);
    if (!segments.ok()) return segments.status();
    char* const own = segments->own.data(0);
    const char* const peer = segments->peer.data(0);
    char bytes[kLineBytes];
    uint64_t last = 0;
    while (true) {
      last = AwaitLine(peer, last, bytes);
      PublishLine(own, bytes);
    }
  }

 private:
  const int socket_;
};

class CacheLineClient final : public ClientSide {
 public:
  explicit CacheLineClient(const PeerSetup& setup) : socket_(setup.socket) {}

  absl::Status Connect(const std::string& address) override {
    absl::StatusOr<RingSegments> segments = ExchangeRingSegments(socket_, RingSegment::kHeaderBytes);
    if (!segments.ok()) return segments.status();
    segments_.emplace(*std::move(segments));
    return absl::OkStatus();
  }

  absl::Span<char> request(int slot) override { return absl::MakeSpan(request_); }
  absl::string_view reply(int slot) const override { return absl::string_view(reply_, kLineBytes); }

  absl::Status Call(int slot) override {
    PublishLine(segments_->own.data(0), request_);
    last_ = AwaitLine(segments_->peer.data(0), last_, reply_);
    return absl::OkStatus();
  }

 private:
  const int socket_;
  std::optional<RingSegments> segments_;
  uint64_t last_ = 0;
  char request_[kLineBytes] = {};
  char reply_[kLineBytes] = {};
};

// floor-memcpy: two rings of bytes. Each side copies the payload into its ring, and out of the other's.
constexpr size_t kMemcpyRingBytes = size_t{1} << 20;

class MemcpyServer final : public ServerSide {
 public:
  explicit MemcpyServer(const PeerSetup& setup) : setup_(setup), payload_(setup.payload_bytes) {}

  absl::StatusOr<std::string> Start() override { return std::string(); }

  absl::Status Serve() override {
    const absl::StatusOr<RingSegments> segments = ExchangeRingSegments(setup_.socket, kMemcpyRingBytes);
    if (!segments.ok()) return segments.status();
    RingEnd end(segments->own, segments->peer);
    return ServeFloor(
        setup_,
        [&] {
          end.Read(payload_.data(), payload_.size());
          return absl::OkStatus();
        },
        [&] { return absl::string_view(payload_.data(), payload_.size()); },
        [&] {
          end.Write(payload_.data(), payload_.size());
          return absl::OkStatus();
        });
  }

 private:
  const PeerSetup setup_;
  std::vector<char> payload_;
};

class MemcpyClient final : public FloorClient {
 public:
  explicit MemcpyClient(const PeerSetup& setup)
      : socket_(setup.socket), request_(setup.payload_bytes), reply_(setup.payload_bytes) {}

  absl::Status Connect(const std::string& address) override {
    absl::StatusOr<RingSegments> segments = ExchangeRingSegments(socket_, kMemcpyRingBytes);
    if (!segments.ok()) return segments.status();
    segments_.emplace(*std::move(segments));
    end_.emplace(segments_->own, segments_->peer);
    return absl::OkStatus();
  }

  absl::Span<char> request(int slot) override { return absl::MakeSpan(request_); }
  absl::string_view reply(int slot) const override { return absl::string_view(reply_.data(), reply_.size()); }

  absl::Status Call(int slot) override {
    const absl::Status status = Send();
    return status.ok() ? Receive() : status;
  }

 protected:
  absl::Status Send() override {
    end_->Write(request_.data(), request_.size());
    return absl::OkStatus();
  }
  absl::Status Receive() override {
    end_->Read(reply_.data(), reply_.size());
    return absl::OkStatus();
  }

 private:
  const int socket_;
  std::optional<RingSegments> segments_;
  std::optional<RingEnd> end_;
  std::vector<char> request_;
  std::vector<char> reply_;
};

}  // namespace

std::vector<PeerInfo> MemoryFloorPeers() {
  PeerInfo cache_line = DescribePeer<CacheLineServer, CacheLineClient>("floor-cacheline");
  cache_line.only_payload_bytes = kLineBytes;
  PeerInfo memcpy = DescribePeer<MemcpyServer, MemcpyClient>("floor-memcpy");
  memcpy.abilities = kFloorAbilities;
  return {cache_line, memcpy};
}

}  // namespace shmrpc::bench
