#ifndef SHMRPC_TESTS_SOAK_PAYLOAD_H_
#define SHMRPC_TESTS_SOAK_PAYLOAD_H_

// Payloads that follow from what they belong to. No two have a run of bytes in common, so one of another call, another
// item, or the other direction is noticed, and so is one that is cut, shifted, or has a hole.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shmrpc::soak {

enum class Direction : uint8_t { kToServer, kToClient };

// Fills `payload` with `size` bytes.
void FillPayload(uint64_t id, Direction direction, uint32_t number, size_t size, std::string* payload);

// DATA_LOSS, saying what differs and where, unless `payload` is what FillPayload makes of the same.
absl::Status CheckPayload(uint64_t id, Direction direction, uint32_t number, size_t size, absl::string_view payload);

// How long the payload of a stream's item is: from 0 to `most_bytes`, the same in both directions.
size_t ItemBytes(uint64_t id, uint32_t number, size_t most_bytes);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_PAYLOAD_H_
