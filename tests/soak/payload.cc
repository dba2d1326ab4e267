#include "tests/soak/payload.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/soak/random.h"

namespace shmrpc::soak {
namespace {

// The bytes of a payload, eight at a time.
class Words {
 public:
  Words(uint64_t id, Direction direction, uint32_t number)
      : state_(Mix(Mix(id + 1) ^ (uint64_t{number} << 8 | static_cast<uint64_t>(direction)))) {}

  uint64_t Next() {
    // One multiplication a word, because payloads of megabytes are made and checked on both sides. An odd increment
    // makes all states, and so all words, of a payload different.
    state_ += 0x9e3779b97f4a7c15;
    const uint64_t product = state_ * 0xd6e8feb86659fd93;
    return product ^ (product >> 32);
  }

 private:
  uint64_t state_;
};

}  // namespace

void FillPayload(uint64_t id, Direction direction, uint32_t number, size_t size, std::string* payload) {
  payload->resize(size);
  Words words(id, direction, number);
  size_t position = 0;
  for (; position + sizeof(uint64_t) <= size; position += sizeof(uint64_t)) {
    const uint64_t word = words.Next();
    std::memcpy(&(*payload)[position], &word, sizeof word);
  }
  const uint64_t word = words.Next();
  if (position < size) std::memcpy(&(*payload)[position], &word, size - position);
}

absl::Status CheckPayload(uint64_t id, Direction direction, uint32_t number, size_t size, absl::string_view payload) {
  const absl::string_view whose = direction == Direction::kToServer ? "to the server" : "to the client";
  if (payload.size() != size) {
    return absl::DataLossError(
        absl::StrCat("payload ", number, " ", whose, " has ", payload.size(), " bytes, sent were ", size));
  }
  Words words(id, direction, number);
  for (size_t position = 0; position < size; position += sizeof(uint64_t)) {
    const uint64_t word = words.Next();
    const size_t length = std::min(sizeof word, size - position);
    if (std::memcmp(&payload[position], &word, length) != 0) {
      return absl::DataLossError(absl::StrCat("payload ", number, " ", whose, ", of ", size,
                                              " bytes, is wrong from about byte ", position, " on"));
    }
  }
  return absl::OkStatus();
}

size_t ItemBytes(uint64_t id, uint32_t number, size_t most_bytes) {
  Random random(Mix(id) + number);
  if (most_bytes == 0 || random.OneIn(8)) return 0;
  return static_cast<size_t>(random.LogUniform(1, static_cast<double>(most_bytes)));
}

}  // namespace shmrpc::soak
