#ifndef SHMRPC_TESTS_BENCH_PAYLOAD_H_
#define SHMRPC_TESTS_BENCH_PAYLOAD_H_

// What payloads look like and how they are checked. Every payload carries a number in its first eight bytes, so that
// one that was sent for another call is noticed, and a pattern behind it that is not the same at any two nearby places,
// so that shifted data is noticed.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace shmrpc::bench {

inline constexpr size_t kMinPayloadBytes = 8;

// Ends a floor's one-way stream; no payload gets this number by counting.
inline constexpr uint64_t kLastNumber = ~uint64_t{0};

// Fills a payload with the pattern of `slot` and gives it a number that leaves room for counting.
void FillPayload(absl::Span<char> payload, int slot);

// A filled payload.
std::string MakePayload(size_t payload_bytes, int slot);

uint64_t NumberOf(absl::Span<const char> payload);
void SetNumber(absl::Span<char> payload, uint64_t number);

// The numbers never begin again within one process: floor-cacheline knows a new line by them.
void SetNextNumber(absl::Span<char> payload);

// DATA_LOSS, saying what differs, unless the reply is what was sent, to the last byte.
absl::Status CheckReply(absl::Span<const char> request, absl::string_view reply);

// Checks the payloads of a one-way stream where they arrive: their sizes, that their numbers count up by one, and their
// contents. To compare every byte of every payload would cost the receiver as much as a copy and so distort what is
// measured: one payload in kFullCheckEvery, the first among them, is compared as a whole, and of each of the others a
// window of kWindowBytes that moves from payload to payload.
class StreamCheck {
 public:
  static constexpr uint64_t kFullCheckEvery = 64;
  static constexpr size_t kWindowBytes = 64;

  // `expected` is what payloads are to be like, but for the number, which may be any in the first one. It outlives this
  // object and is not made by it: that takes too long for the beginning of a stream.
  explicit StreamCheck(absl::Span<const char> expected) : expected_(expected.data(), expected.size()) {}

  // DATA_LOSS, saying what differs.
  absl::Status Check(absl::string_view payload);

 private:
  const absl::string_view expected_;
  uint64_t checked_ = 0;
  uint64_t last_number_ = 0;
};

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_PAYLOAD_H_
