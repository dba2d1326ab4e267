#include "tests/soak/verdict.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "shmrpc/retry.h"

namespace shmrpc::soak {
namespace {

// Calls that the library attempts again by itself when a server on its way out has not begun with them, and that then
// wait for the next one: an orderly restart does not cost a single one.
bool SurvivesRestarts(const CallFacts& call) {
  const Plan& plan = call.plan;
  if (!call.proves_not_processed || !plan.wait_for_ready) return false;
  if (plan.kind != Kind::kUnary && plan.kind != Kind::kDownload) return false;
  return (plan.kind == Kind::kUnary && plan.style == Style::kBlocking) ||
         plan.request_bytes + 1000 < kMaxKeptRequestBytes;
}

std::optional<std::string> UnexplainedUnavailable(const CallFacts& call, const ServerState& server,
                                                  const ClientState& client) {
  // In this order: the supervisor says what it is about to do before it does it.
  const uint32_t ready = server.ready.load();
  const int64_t ready_nanos = server.ready_nanos.load();
  const uint32_t incarnation = server.incarnation.load();
  const uint32_t doomed = server.doomed.load();
  const uint32_t kills = server.kills.load();
  const uint32_t long_stops = client.long_stops.load();
  if (long_stops != call.long_stops) return std::nullopt;

  const Confirmed& confirmed = call.confirmed;
  if (confirmed.incarnation != 0 && confirmed.long_stops == long_stops) {
    if (confirmed.incarnation == incarnation && doomed < incarnation) {
      return absl::StrCat("although its channel had reached server process ", incarnation, ", which is still there");
    }
    if (confirmed.kills == kills && SurvivesRestarts(call)) {
      return "although servers have only been shut down in good order, and it could have waited for the next one";
    }
  }
  if (ready != 0 && ready == incarnation && doomed < ready) {
    const auto at = [](int64_t nanos) {
      return SteadyTime::FromChrono(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(nanos)));
    };
    const SteadyTime reachable = std::max({at(ready_nanos), at(client.continued_nanos.load()), call.channel_created});
    if (call.begun - reachable > kReconnectGuard) {
      return absl::StrCat("although its channel could have reached server process ", ready, " for ",
                          absl::FormatDuration(call.begun - reachable));
    }
  }
  return std::nullopt;
}

}  // namespace

absl::Status AskedFor(uint64_t id, absl::StatusCode code) {
  return absl::Status(code, absl::StrCat("call ", id, " asked for it"));
}

std::optional<std::string> Unexplained(const CallFacts& call, const absl::Status& status, const ServerState& server,
                                       const ClientState& client) {
  const absl::StatusCode end_code = call.plan.end_code;
  if (status == AskedFor(call.plan.id, end_code) || status.ok()) {
    if (call.plan.refuse_size) return "although its request is too large";
    if (status.code() != end_code) return "although its handler was to end otherwise";
    return std::nullopt;
  }
  const bool late = call.deadline <= SteadyTime::Now();
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      // The handler may notice a deadline earlier than the client.
      if (call.cancelled || late) return std::nullopt;
      return "although nobody cancelled it";
    case absl::StatusCode::kDeadlineExceeded:
      if (late) return std::nullopt;
      return "although its deadline has not passed";
    case absl::StatusCode::kResourceExhausted:
      if (call.plan.refuse_size) return std::nullopt;
      return "although no limit forbids it";
    case absl::StatusCode::kUnavailable:
      return UnexplainedUnavailable(call, server, client);
    default:
      return "which nothing explains";
  }
}

}  // namespace shmrpc::soak
