#ifndef SHMRPC_TESTS_FUZZ_INPUT_H_
#define SHMRPC_TESTS_FUZZ_INPUT_H_

// What a fuzzer is given, taken from the front. There always is more: zeros follow.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/strings/string_view.h"

namespace shmrpc::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return rest_.empty(); }

  // The next `size` bytes, or what is left of them.
  absl::string_view TakeBytes(size_t size) {
    const absl::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  absl::string_view TakeRest() { return TakeBytes(rest_.size()); }

  // Little-endian.
  template <typename Integer>
  Integer Take() {
    Integer value = 0;
    const absl::string_view bytes = TakeBytes(sizeof value);
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }

 private:
  absl::string_view rest_;
};

// What must hold whatever the input is.
inline void Check(bool holds) {
  if (!holds) std::abort();
}

}  // namespace shmrpc::fuzz

#endif  // SHMRPC_TESTS_FUZZ_INPUT_H_
