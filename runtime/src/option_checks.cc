#include "runtime/src/option_checks.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"

namespace shmrpc::internal {
namespace {

absl::Status BadLimit(std::string_view name, std::string_view value, std::string_view rule) {
  return absl::InvalidArgumentError(absl::StrCat("the option connection_limits: the option ", ToAbsl(name), " is ",
                                                 ToAbsl(value), "; it must be ", ToAbsl(rule)));
}

absl::Status CheckAtLeastOne(std::string_view name, std::optional<int> limit) {
  if (limit.value_or(1) >= 1) return absl::OkStatus();
  return BadLimit(name, absl::StrCat(*limit), "at least 1");
}

}  // namespace

absl::Status CheckFlowControl(std::string_view option, const FlowControlOptions& options) {
  constexpr size_t kMin = FlowControlOptions::kMinStreamBytes;
  constexpr size_t kMax = FlowControlOptions::kMaxBytes;
  if (options.stream_bytes < kMin || options.stream_bytes > kMax) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(option), ": stream_bytes is ", options.stream_bytes,
                                                   "; it must be from ", kMin, " to ", kMax));
  }
  if (options.connection_bytes < options.stream_bytes || options.connection_bytes > kMax) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(option), ": connection_bytes is ", options.connection_bytes,
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
  return status;
}

}  // namespace shmrpc::internal
