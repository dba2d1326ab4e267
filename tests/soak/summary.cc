#include "tests/soak/summary.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace shmrpc::soak {
namespace {

constexpr double kMiB = 1 << 20;

std::string OutcomeName(int outcome) {
  if (outcome == kAsAsked) return "as asked";
  if (outcome == kAbandoned) return "abandoned";
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(outcome));
}

// Of all clients together.
struct Totals {
  uint64_t outcomes[kKinds][kStyles][kOutcomes] = {};
  uint64_t of_outcome[kOutcomes] = {};
  uint64_t calls = 0;
  uint64_t bytes_sent = 0, bytes_received = 0, items_sent = 0, items_received = 0, channels = 0;

  explicit Totals(const Board& board) {
    for (const ClientState& client : board.clients) {
      for (int kind = 0; kind < kKinds; ++kind) {
        for (int style = 0; style < kStyles; ++style) {
          for (int outcome = 0; outcome < kOutcomes; ++outcome) {
            const uint64_t count = client.outcomes[kind][style][outcome].load();
            outcomes[kind][style][outcome] += count;
            of_outcome[outcome] += count;
            calls += count;
          }
        }
      }
      bytes_sent += client.bytes_sent.load();
      bytes_received += client.bytes_received.load();
      items_sent += client.items_sent.load();
      items_received += client.items_received.load();
      channels += client.channels.load();
    }
  }
};

std::string MiB(int64_t bytes) { return absl::StrFormat("%.1f", bytes / kMiB); }

nlohmann::json Json(const Holdings& holdings) {
  return {{"descriptors", holdings.descriptors},     {"shared_mappings", holdings.shared_mappings},
          {"mappings", holdings.mappings},           {"threads", holdings.threads},
          {"private_bytes", holdings.private_bytes}, {"shared_bytes", holdings.shared_bytes}};
}

}  // namespace

std::string SummaryText(const SoakOptions& options, const SoakResult& result, const Board& board) {
  const Totals totals(board);
  std::string text = absl::StrFormat("soak: %s, seed %u, %.1f s; %d servers, %d clients of %d threads\n",
                                     options.transport->name, options.seed, absl::ToDoubleSeconds(result.traffic),
                                     options.servers, options.clients, options.threads);
  absl::StrAppendFormat(&text, "%-20s", "calls");
  for (int outcome = 0; outcome < kOutcomes; ++outcome) {
    if (totals.of_outcome[outcome] > 0) absl::StrAppendFormat(&text, " %*s", 10, OutcomeName(outcome));
  }
  text += "\n";
  for (int kind = 0; kind < kKinds; ++kind) {
    for (int style = 0; style < kStyles; ++style) {
      absl::StrAppendFormat(&text, "%-9s %-10s", KindName(static_cast<Kind>(kind)),
                            StyleName(static_cast<Style>(style)));
      for (int outcome = 0; outcome < kOutcomes; ++outcome) {
        if (totals.of_outcome[outcome] == 0) continue;
        absl::StrAppendFormat(&text, " %*u", std::max<int>(10, OutcomeName(outcome).size()),
                              totals.outcomes[kind][style][outcome]);
      }
      text += "\n";
    }
  }
  absl::StrAppendFormat(&text,
                        "%u calls, %u items to servers, %u to clients; %.1f MiB to servers, %.1f to clients; %u "
                        "channels\n",
                        totals.calls, totals.items_sent, totals.items_received, totals.bytes_sent / kMiB,
                        totals.bytes_received / kMiB, totals.channels);
  absl::StrAppendFormat(
      &text, "%d servers killed, %d shut down; %d clients killed; %d processes stopped, %d for long\n",
      result.server_kills, result.server_drains, result.client_kills, result.stops, result.long_stops);
  absl::StrAppendFormat(&text, "%-22s %12s %12s %12s\n", "held", "at first", "at most", "at last");
  for (const Watched& watched : result.watched) {
    if (watched.name != "server 0" && !watched.whole_time) continue;  // clients come and go
    const auto line = [&](absl::string_view what, const std::string& base, const std::string& highest,
                          const std::string& last) {
      absl::StrAppendFormat(&text, "%-8s %-13s %12s %12s %12s\n", watched.name, what, base, highest, last);
    };
    const auto counts = [&](absl::string_view what, int Holdings::*member) {
      line(what, absl::StrCat(watched.base.*member), absl::StrCat(watched.highest.*member),
           absl::StrCat(watched.last.*member));
    };
    counts("descriptors", &Holdings::descriptors);
    counts("rings mapped", &Holdings::shared_mappings);
    counts("threads", &Holdings::threads);
    line("heap, MiB", MiB(watched.heap_base), "", MiB(watched.heap_last));
    line("RSS, MiB", MiB(watched.base.private_bytes), MiB(watched.highest.private_bytes),
         MiB(watched.last.private_bytes));
    absl::StrAppendFormat(&text, "%-8s RSS by thirds, mean (highest): %s (%s), %s (%s), %s (%s) MiB\n", watched.name,
                          MiB(watched.trend.mean(0)), MiB(watched.trend.highest[0]), MiB(watched.trend.mean(1)),
                          MiB(watched.trend.highest[1]), MiB(watched.trend.mean(2)), MiB(watched.trend.highest[2]));
  }
  return text;
}

std::string SummaryJson(const SoakOptions& options, const SoakResult& result, const Board& board) {
  const Totals totals(board);
  nlohmann::json calls = nlohmann::json::object();
  for (int kind = 0; kind < kKinds; ++kind) {
    for (int style = 0; style < kStyles; ++style) {
      nlohmann::json& row =
          calls[absl::StrCat(KindName(static_cast<Kind>(kind)), " ", StyleName(static_cast<Style>(style)))];
      for (int outcome = 0; outcome < kOutcomes; ++outcome) {
        const uint64_t count = totals.outcomes[kind][style][outcome];
        if (count > 0) row[OutcomeName(outcome)] = count;
      }
    }
  }
  nlohmann::json watched = nlohmann::json::object();
  for (const Watched& process : result.watched) {
    watched[process.name] = {
        {"base", Json(process.base)},
        {"highest", Json(process.highest)},
        {"last", Json(process.last)},
        {"heap_base_bytes", process.heap_base},
        {"heap_last_bytes", process.heap_last},
        {"mean_private_bytes", {process.trend.mean(0), process.trend.mean(1), process.trend.mean(2)}}};
  }
  const nlohmann::json json = {{"transport", options.transport->name},
                               {"seed", options.seed},
                               {"seconds", absl::ToDoubleSeconds(result.traffic)},
                               {"ok", board.failure_count.load() == 0},
                               {"failures", board.failure_count.load()},
                               {"calls", totals.calls},
                               {"calls_by_kind", calls},
                               {"items_sent", totals.items_sent},
                               {"items_received", totals.items_received},
                               {"bytes_sent", totals.bytes_sent},
                               {"bytes_received", totals.bytes_received},
                               {"channels", totals.channels},
                               {"server_kills", result.server_kills},
                               {"server_drains", result.server_drains},
                               {"client_kills", result.client_kills},
                               {"stops", result.stops},
                               {"long_stops", result.long_stops},
                               {"processes", watched}};
  return json.dump() + "\n";
}

}  // namespace shmrpc::soak
