#ifndef SHMRPC_TESTS_BENCH_FLOOR_H_
#define SHMRPC_TESTS_BENCH_FLOOR_H_

// What the floors have in common: a round trip is a payload sent and one received, and a stream is nothing but that.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tests/bench/payload.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {

inline constexpr uint32_t kFloorAbilities = kPingPong | kUploads;

// The client of a floor. Derived classes are final and know how to send request(0) and to receive reply(0).
class FloorClient : public ClientSide {
 public:
  absl::Status OpenStream(StreamKind kind) final {
    kind_ = kind;
    return absl::OkStatus();
  }
  absl::Status Write() final { return Send(); }
  absl::Status Read() final { return Receive(); }

  // The end of an upload is a payload with a number of its own, which the server sends back when it has taken all.
  absl::Status CloseStream() final {
    if (kind_ != StreamKind::kUpload) return absl::OkStatus();
    const absl::Span<char> payload = request(0);
    const uint64_t number = NumberOf(payload);
    SetNumber(payload, kLastNumber);
    absl::Status status = Send();
    if (status.ok()) status = Receive();
    if (status.ok()) status = CheckReply(payload, reply(0));
    SetNumber(payload, number);
    return status;
  }

 protected:
  virtual absl::Status Send() = 0;
  virtual absl::Status Receive() = 0;

 private:
  StreamKind kind_ = StreamKind::kPingPong;
};

// The work of a floor's server, until one of the functions fails. `receive` takes the next payload, `payload` shows it
// as a string_view, `send` sends it back.
template <typename Receive, typename Payload, typename Send>
absl::Status ServeFloor(const PeerSetup& setup, Receive receive, Payload payload, Send send) {
  while (!setup.uploads) {
    absl::Status status = receive();
    if (status.ok()) status = send();
    if (!status.ok()) return status;
  }
  const std::string expected = MakePayload(setup.payload_bytes, /*slot=*/0);
  while (true) {
    StreamCheck check(expected);
    while (true) {
      absl::Status status = receive();
      if (!status.ok()) return status;
      if (NumberOf(payload()) == kLastNumber) break;
      status = check.Check(payload());
      if (!status.ok()) return status;
    }
    const absl::Status status = send();
    if (!status.ok()) return status;
  }
}

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_FLOOR_H_
