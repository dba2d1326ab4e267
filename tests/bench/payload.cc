#include "tests/bench/payload.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shmrpc::bench {
namespace {

// `offset` is where in the payload both begin. They have the same size.
absl::Status Compare(absl::string_view expected, absl::string_view received, size_t offset, size_t payload_bytes) {
  if (std::memcmp(expected.data(), received.data(), received.size()) == 0) return absl::OkStatus();
  size_t first = 0;
  while (expected[first] == received[first]) ++first;
  return absl::DataLossError(absl::StrFormat(
      "a payload of %d bytes arrived changed: byte %d was sent as 0x%02x and received as 0x%02x; the peer is broken",
      payload_bytes, offset + first, static_cast<unsigned char>(expected[first]),
      static_cast<unsigned char>(received[first])));
}

}  // namespace

void FillPayload(absl::Span<char> payload, int slot) {
  // A multiplicative generator's high bits: no byte repeats at a short distance.
  uint32_t state = static_cast<uint32_t>(slot) + 1;
  for (char& byte : payload) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  SetNumber(payload, static_cast<uint64_t>(slot) << 48);
}

std::string MakePayload(size_t payload_bytes, int slot) {
  std::string payload(payload_bytes, '\0');
  FillPayload(absl::MakeSpan(&payload[0], payload.size()), slot);
  return payload;
}

uint64_t NumberOf(absl::Span<const char> payload) {
  uint64_t number;
  std::memcpy(&number, payload.data(), sizeof(number));
  return number;
}

void SetNumber(absl::Span<char> payload, uint64_t number) { std::memcpy(payload.data(), &number, sizeof(number)); }

void SetNextNumber(absl::Span<char> payload) { SetNumber(payload, NumberOf(payload) + 1); }

absl::Status CheckReply(absl::Span<const char> request, absl::string_view reply) {
  if (reply.size() != request.size()) {
    return absl::DataLossError(absl::StrFormat("sent a payload of %d bytes, got %d bytes back; the peer is broken",
                                               request.size(), reply.size()));
  }
  return Compare(absl::string_view(request.data(), request.size()), reply, 0, reply.size());
}

absl::Status StreamCheck::Check(absl::string_view payload) {
  if (payload.size() != expected_.size()) {
    return absl::DataLossError(absl::StrCat("a stream of payloads of ", expected_.size(), " bytes has one of ",
                                            payload.size(), " bytes; the peer is broken"));
  }
  const uint64_t number = NumberOf(payload);
  if (checked_ > 0 && number != last_number_ + 1) {
    return absl::DataLossError(absl::StrCat("payload number ", number, " of a stream arrived after number ",
                                            last_number_, "; the peer is broken"));
  }
  last_number_ = number;
  const uint64_t index = checked_++;

  const absl::string_view body = payload.substr(kMinPayloadBytes);
  const absl::string_view expected = expected_.substr(kMinPayloadBytes);
  size_t begin = 0;
  size_t length = body.size();
  if (index % kFullCheckEvery != 0 && body.size() > kWindowBytes) {
    const size_t windows = (body.size() + kWindowBytes - 1) / kWindowBytes;
    begin = std::min(index % windows * kWindowBytes, body.size() - kWindowBytes);
    length = kWindowBytes;
  }
  return Compare(expected.substr(begin, length), body.substr(begin, length), kMinPayloadBytes + begin, payload.size());
}

}  // namespace shmrpc::bench
