#include "shmrpc/options.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace shmrpc {
namespace {

constexpr std::pair<TransportPreference, absl::string_view> kTransportPreferences[] = {
    {TransportPreference::kAuto, "auto"}, {TransportPreference::kShm, "shm"},   {TransportPreference::kTcp, "tcp"},
    {TransportPreference::kUnix, "unix"}, {TransportPreference::kGrpc, "grpc"},
};

constexpr std::pair<WaitMode, absl::string_view> kWaitModes[] = {
    {WaitMode::kAdaptive, "adaptive"},
    {WaitMode::kLatency, "latency"},
    {WaitMode::kEfficient, "efficient"},
};

template <typename Value, size_t kCount>
absl::StatusOr<Value> ParseChoice(absl::string_view what, absl::string_view text,
                                  const std::pair<Value, absl::string_view> (&choices)[kCount]) {
  std::string names;
  for (const auto& [value, name] : choices) {
    if (text == name) return value;
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown ", what, " \"", absl::CHexEscape(text), "\"; it is one of: ", names));
}

template <typename Value, size_t kCount>
absl::string_view ChoiceName(Value wanted, const std::pair<Value, absl::string_view> (&choices)[kCount]) {
  for (const auto& [value, name] : choices) {
    if (value == wanted) return name;
  }
  return "unknown";
}

}  // namespace

absl::StatusOr<TransportPreference> ParseTransportPreference(absl::string_view text) {
  return ParseChoice("transport", text, kTransportPreferences);
}

absl::string_view TransportPreferenceName(TransportPreference preference) {
  return ChoiceName(preference, kTransportPreferences);
}

absl::StatusOr<WaitMode> ParseWaitMode(absl::string_view text) { return ParseChoice("wait mode", text, kWaitModes); }

absl::string_view WaitModeName(WaitMode mode) { return ChoiceName(mode, kWaitModes); }

}  // namespace shmrpc
