#ifndef SHMRPC_TESTS_SOAK_PLAN_H_
#define SHMRPC_TESTS_SOAK_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tests/soak/random.h"

namespace shmrpc::soak {

enum class Kind { kUnary, kUpload, kDownload, kChat };
enum class Style { kBlocking, kCallback, kCoroutine };
inline constexpr int kKinds = 4;
inline constexpr int kStyles = 3;
absl::string_view KindName(Kind kind);
absl::string_view StyleName(Style style);

// What messages may be on every channel and server: 16 MiB, the default, is not where it ends.
inline constexpr size_t kMessageLimitBytes = size_t{24} << 20;

// What one call is to be. A plain struct.
struct Plan {
  uint64_t id = 0;
  Kind kind = Kind::kUnary;
  Style style = Style::kBlocking;
  uint32_t request_bytes = 0;  // of the one request's payload
  uint32_t reply_bytes = 0;    // of the one reply's
  uint32_t items = 0;          // of the stream, in each of its directions
  uint32_t item_bytes = 0;     // of one of them at most
  uint32_t work_us = 0;
  absl::StatusCode end_code = absl::StatusCode::kOk;  // what the handler ends with
  bool metadata = false;
  bool wait_for_ready = false;
  bool refuse_size = false;                           // the context's limit forbids the request: RESOURCE_EXHAUSTED
  std::optional<uint32_t> read_items = std::nullopt;  // reads no more, and finishes
  std::optional<absl::Duration> timeout = std::nullopt;
  std::optional<absl::Duration> cancel_after = std::nullopt;

  // For people: everything.
  std::string ToString() const;
};

// Draws the next call, of which there are to be several at a time if the style allows that: see Together.
Plan DrawPlan(Random* random);

// How many calls of the plan's style and size a thread begins together.
int Together(const Plan& plan, Random* random);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_PLAN_H_
