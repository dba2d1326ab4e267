#include "runtime/src/option_checks.h"

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "runtime/src/memory_budget.h"

namespace shmrpc::internal {
namespace {

absl::Status BadLimit(absl::string_view name, absl::string_view value, absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("the option connection_limits: the option ", name, " is ", value, "; it must be ", rule));
}

absl::Status CheckAtLeastOne(absl::string_view name, absl::optional<int> limit) {
  if (limit.value_or(1) >= 1) return absl::OkStatus();
  return BadLimit(name, absl::StrCat(*limit), "at least 1");
}

}  // namespace

absl::Status CheckFlowControl(absl::string_view option, const FlowControlOptions& options) {
  constexpr size_t kMin = FlowControlOptions::kMinStreamBytes;
  constexpr size_t kMax = FlowControlOptions::kMaxBytes;
  if (options.stream_bytes < kMin || options.stream_bytes > kMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(option, ": stream_bytes is ", options.stream_bytes, "; it must be from ", kMin, " to ", kMax));
  }
  if (options.connection_bytes < options.stream_bytes || options.connection_bytes > kMax) {
    return absl::InvalidArgumentError(absl::StrCat(option, ": connection_bytes is ", options.connection_bytes,
                                                   "; it must be from stream_bytes, ", options.stream_bytes, ", to ",
                                                   kMax));
  }
  return absl::OkStatus();
}

absl::Status CheckConnectionLimits(const ConnectionLimits& limits) {
  absl::Status status = CheckAtLeastOne("max_connections", limits.max_connections);
  status.Update(CheckAtLeastOne("max_connections_per_user", limits.max_connections_per_user));
  status.Update(CheckAtLeastOne("max_connections_per_address", limits.max_connections_per_address));
  status.Update(CheckAtLeastOne("max_calls_per_connection", limits.max_calls_per_connection));
  if (limits.handshake_timeout <= absl::ZeroDuration()) {
    status.Update(BadLimit("handshake_timeout", absl::FormatDuration(limits.handshake_timeout), "positive"));
  }
  if (limits.max_unsent_bytes < limits.hold_back_bytes) {
    status.Update(BadLimit("max_unsent_bytes", absl::StrCat(limits.max_unsent_bytes),
                           absl::StrCat("at least hold_back_bytes, ", limits.hold_back_bytes)));
  }
  if (limits.max_memory_bytes.value_or(MemoryBudget::kLeast) < MemoryBudget::kLeast) {
    status.Update(BadLimit("max_memory_bytes", absl::StrCat(*limits.max_memory_bytes),
                           absl::StrCat("at least ", MemoryBudget::kLeast)));
  }
  if (limits.max_connection_idle < ConnectionLimits::kMinConnectionIdle) {
    status.Update(BadLimit("max_connection_idle", absl::FormatDuration(limits.max_connection_idle),
                           absl::StrCat("at least ", absl::FormatDuration(ConnectionLimits::kMinConnectionIdle),
                                        "; InfiniteDuration() switches it off")));
  }
  return status;
}

}  // namespace shmrpc::internal
