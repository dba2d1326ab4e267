#include "shmrpc/options.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"

namespace shmrpc {
namespace {

constexpr std::pair<TransportPreference, std::string_view> kTransportPreferences[] = {
    {TransportPreference::kAuto, "auto"}, {TransportPreference::kShm, "shm"},   {TransportPreference::kTcp, "tcp"},
    {TransportPreference::kUnix, "unix"}, {TransportPreference::kGrpc, "grpc"},
};

constexpr std::pair<WaitMode, std::string_view> kWaitModes[] = {
    {WaitMode::kAdaptive, "adaptive"},
    {WaitMode::kLatency, "latency"},
    {WaitMode::kEfficient, "efficient"},
};

template <typename Value, size_t kCount>
absl::StatusOr<Value> ParseChoice(std::string_view what, std::string_view text,
                                  const std::pair<Value, std::string_view> (&choices)[kCount]) {
  std::string names;
  for (const auto& [value, name] : choices) {
    if (text == name) return value;
    absl::StrAppend(&names, names.empty() ? "" : ", ", ToAbsl(name));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown ", ToAbsl(what), " \"", absl::CHexEscape(ToAbsl(text)), "\"; it is one of: ", names));
}

template <typename Value, size_t kCount>
std::string_view ChoiceName(Value wanted, const std::pair<Value, std::string_view> (&choices)[kCount]) {
  for (const auto& [value, name] : choices) {
    if (value == wanted) return name;
  }
  return "unknown";
}

}  // namespace

absl::StatusOr<TransportPreference> ParseTransportPreference(std::string_view text) {
  return ParseChoice("transport", text, kTransportPreferences);
}

std::string_view TransportPreferenceName(TransportPreference preference) {
  return ChoiceName(preference, kTransportPreferences);
}

absl::StatusOr<WaitMode> ParseWaitMode(std::string_view text) { return ParseChoice("wait mode", text, kWaitModes); }

std::string_view WaitModeName(WaitMode mode) { return ChoiceName(mode, kWaitModes); }

}  // namespace shmrpc
