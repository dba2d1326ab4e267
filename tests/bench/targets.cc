#include "tests/bench/targets.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "tests/bench/statistics.h"

namespace shmrpc::bench {
namespace {

double Median50(const Figures& figures) { return static_cast<double>(figures.p50_nanos); }
double Micros99(const Figures& figures) { return static_cast<double>(figures.p99_nanos) / 1000; }
double CallsPerSecond(const Figures& figures) { return figures.calls_per_second; }
double SlowestShare(const Figures& figures) { return figures.slowest_share; }
double RatioAlone(const Figures& figures) { return static_cast<double>(figures.p50_nanos) / figures.p50_alone_nanos; }
double KibibytesPerConnection(const Figures& figures) { return figures.memory_per_connection / 1024; }
double IdleCpuPercent(const Figures& figures) { return figures.idle_cpu_percent; }

constexpr bool kAtMost = true;
constexpr bool kAtLeast = false;

// What arguments say, on top of `texts`.
absl::StatusOr<OptionTexts> WithArguments(OptionTexts texts, absl::string_view arguments) {
  static const std::pair<const char*, std::vector<std::string> OptionTexts::*> kLists[] = {
      {"cases", &OptionTexts::cases},
      {"peers", &OptionTexts::peers},
      {"payloads", &OptionTexts::payloads},
      {"modes", &OptionTexts::modes},
      {"concurrency", &OptionTexts::concurrency},
      {"clients", &OptionTexts::clients},
      {"connections", &OptionTexts::connections},
      {"sleeping", &OptionTexts::sleeping},
  };
  for (const absl::string_view argument : absl::StrSplit(arguments, ' ')) {
    bool known = false;
    for (const auto& [name, list] : kLists) {
      absl::string_view value = argument;
      if (!absl::ConsumePrefix(&value, absl::StrCat("--", name, "="))) continue;
      texts.*list = absl::StrSplit(value, ',');
      known = true;
    }
    if (!known) return absl::InternalError(absl::StrCat("a target has an argument it cannot have: ", argument));
  }
  return texts;
}

std::string Command(const Target& target, const OptionTexts& common) {
  return absl::StrFormat("shmrpc_bench %s --rounds=%d --seconds=%g", target.arguments, common.rounds, common.seconds);
}

// Four digits that count, large numbers without an exponent.
std::string Digits(double number) { return absl::StrFormat(number < 1000 ? "%.4g" : "%.0f", number); }

std::string Limit(const Check& check, double limit) {
  return absl::StrCat(check.at_most ? "<= " : ">= ", Digits(limit));
}

bool Holds(const Check& check, double limit, double measured) {
  return check.at_most ? measured <= limit : measured >= limit;
}

}  // namespace

const std::vector<Target>& AllTargets() {
  static const auto* const targets = new std::vector<Target>{
      {"unary 64 B over shm",
       "--cases=unary --payloads=64 --peers=shm,floor-ring,grpc-unix",
       {{.figure = "round trip, by that of floor-ring",
         .field = Median50,
         .of = {"unary", "shm"},
         .by = Check::Cell{"unary", "floor-ring"},
         .at_most = kAtMost,
         .limit = 1.5,
         .beyond = 1.0},
        {.figure = "times as fast as grpc-unix",
         .field = Median50,
         .of = {"unary", "grpc-unix"},
         .by = Check::Cell{"unary", "shm"},
         .at_most = kAtLeast,
         .limit = 60,
         .beyond = 100}}},
      {"unary 64 B over shm, never spinning",
       "--cases=unary --payloads=64 --modes=efficient --peers=shm,floor-unix",
       {{.figure = "round trip, by that of floor-unix",
         .field = Median50,
         .of = {"unary", "shm"},
         .by = Check::Cell{"unary", "floor-unix"},
         .at_most = kAtMost,
         .limit = 1.3,
         .beyond = 1.1}}},
      {"64 calls in flight, 64 B, shm",
       "--cases=pipelined --concurrency=64 --payloads=64 --peers=shm,grpc-unix",
       {{.figure = "times the calls per second of grpc-unix",
         .field = CallsPerSecond,
         .of = {"pipelined", "shm"},
         .by = Check::Cell{"pipelined", "grpc-unix"},
         .at_most = kAtLeast,
         .limit = 40},
        {.figure = "calls per second",
         .field = CallsPerSecond,
         .of = {"pipelined", "shm"},
         .at_most = kAtLeast,
         .limit = 1e6,
         .beyond = 2.5e6}}},
      {"unary 1 MiB over shm",
       "--cases=unary --payloads=1048576 --peers=shm,floor-memcpy,grpc-unix",
       {{.figure = "times as fast as grpc-unix",
         .field = Median50,
         .of = {"unary", "grpc-unix"},
         .by = Check::Cell{"unary", "shm"},
         .at_most = kAtLeast,
         .limit = 6,
         .beyond = 10},
        {.figure = "round trip, by that of floor-memcpy",
         .field = Median50,
         .of = {"unary", "shm"},
         .by = Check::Cell{"unary", "floor-memcpy"},
         .at_most = kAtMost,
         .limit = 2.5}}},
      {"unary 64 B over TCP",
       "--cases=unary --payloads=64 --peers=tcp,floor-tcp,grpc-tcp",
       {{.figure = "round trip, by that of floor-tcp",
         .field = Median50,
         .of = {"unary", "tcp"},
         .by = Check::Cell{"unary", "floor-tcp"},
         .at_most = kAtMost,
         .limit = 1.25,
         .beyond = 1.1},
        {.figure = "times as fast as grpc-tcp",
         .field = Median50,
         .of = {"unary", "grpc-tcp"},
         .by = Check::Cell{"unary", "tcp"},
         .at_most = kAtLeast,
         .limit = 4}}},
      {"64 calls in flight, 64 B, TCP",
       "--cases=pipelined --concurrency=64 --payloads=64 --peers=tcp,grpc-tcp",
       {{.figure = "times the calls per second of grpc-tcp",
         .field = CallsPerSecond,
         .of = {"pipelined", "tcp"},
         .by = Check::Cell{"pipelined", "grpc-tcp"},
         .at_most = kAtLeast,
         .limit = 15,
         .beyond = 30}}},
      {"streaming ping-pong 64 B over shm",
       "--cases=stream,unary --payloads=64 --peers=shm",
       {{.figure = "round trip, by that of a unary call",
         .field = Median50,
         .of = {"stream", "shm"},
         .by = Check::Cell{"unary", "shm"},
         .at_most = kAtMost,
         .limit = 1.0}}},
      {"8 client processes on 2 CPUs, closed loop, 64 B, shm",
       "--cases=clients --clients=8 --payloads=64 --peers=shm,grpc-unix",
       {{.figure = "times the calls per second of grpc-unix",
         .field = CallsPerSecond,
         .of = {"clients", "shm"},
         .by = Check::Cell{"clients", "grpc-unix"},
         .at_most = kAtLeast,
         .limit = 10},
        {.figure = "calls of the slowest client by the mean",
         .field = SlowestShare,
         .of = {"clients", "shm"},
         .at_most = kAtLeast,
         .limit = 0.5}}},
      {"1,000 idle connections beside a busy one, 64 B, shm",
       "--cases=idle --connections=1000 --payloads=64 --peers=shm",
       {{.figure = "round trip, by that without them",
         .field = RatioAlone,
         .of = {"idle", "shm"},
         .at_most = kAtMost,
         .limit = 1.5},
        {.figure = "KiB per idle connection",
         .field = KibibytesPerConnection,
         .of = {"idle", "shm"},
         .at_most = kAtMost,
         .limit = 64,
         .beyond = 32},
        // What counts as nothing: half a millisecond in a second, for all processes together.
        {.figure = "% of a CPU when all are idle",
         .field = IdleCpuPercent,
         .of = {"idle", "shm"},
         .at_most = kAtMost,
         .limit = 0.05}}},
      {"handlers that sleep 10 ms beside fast calls, 64 B, shm",
       "--cases=slow-handler --sleeping=4 --payloads=64 --peers=shm",
       {{.figure = "99th percentile of the fast calls, µs",
         .field = Micros99,
         .of = {"slow-handler", "shm"},
         .at_most = kAtMost,
         .limit = 200}}},
  };
  return *targets;
}

absl::StatusOr<std::vector<MeasurementSpec>> PlanTarget(const Target& target, const OptionTexts& common) {
  const absl::StatusOr<OptionTexts> texts = WithArguments(common, target.arguments);
  if (!texts.ok()) return texts.status();
  const absl::StatusOr<Options> options = ParseOptions(*texts);
  if (!options.ok()) return options.status();
  std::vector<std::string> notes;
  std::vector<MeasurementSpec> specs;
  for (const Contest& contest : PlanContests(*options, &notes)) {
    specs.insert(specs.end(), contest.contestants.begin(), contest.contestants.end());
  }
  return specs;
}

absl::StatusOr<std::vector<Verdict>> Judge(const Target& target, const std::vector<MeasurementSpec>& specs,
                                           const std::vector<std::vector<Measurement>>& measurements) {
  std::vector<Verdict> verdicts;
  for (const Check& check : target.checks) {
    // The check's figure of each round; empty when the cell is not there.
    const auto rounds_of = [&](const Check::Cell& cell) {
      std::vector<double> rounds;
      for (size_t i = 0; i < specs.size(); ++i) {
        if (specs[i].load->name != cell.load || specs[i].peer->name != cell.peer) continue;
        for (const Measurement& measurement : measurements[i]) rounds.push_back(check.field(measurement.figures));
        break;
      }
      return rounds;
    };
    const std::vector<double> of = rounds_of(check.of);
    const std::vector<double> by = check.by ? rounds_of(*check.by) : std::vector<double>(of.size(), 1.0);
    if (of.empty() || of.size() != by.size()) {
      return absl::InternalError(absl::StrCat(target.what, ": \"", check.figure, "\" is not measured"));
    }
    Verdict verdict{.target = &target, .check = &check, .measured = MedianRatio(of, by)};
    verdict.reached = Holds(check, check.limit, verdict.measured);
    verdict.beyond_reached = check.beyond.has_value() && Holds(check, *check.beyond, verdict.measured);
    verdicts.push_back(verdict);
  }
  return verdicts;
}

std::string ToJson(const Verdict& verdict, const OptionTexts& common) {
  const Check& check = *verdict.check;
  nlohmann::ordered_json json = {
      {"target", verdict.target->what},     {"figure", check.figure},
      {"limit", Limit(check, check.limit)}, {"measured", std::strtod(Digits(verdict.measured).c_str(), nullptr)},
      {"reached", verdict.reached},
  };
  if (check.beyond) {
    json["beyond"] = Limit(check, *check.beyond);
    json["beyond_reached"] = verdict.beyond_reached;
  }
  json["command"] = Command(*verdict.target, common);
  return json.dump();
}

std::string ToMarkdown(const std::vector<Verdict>& verdicts, const OptionTexts& common) {
  std::string text = "| what | figure | target | measured | reached | command |\n|---|---|---|---|---|---|\n";
  const Target* last = nullptr;
  for (const Verdict& verdict : verdicts) {
    const Check& check = *verdict.check;
    const bool first = verdict.target != last;
    last = verdict.target;
    absl::StrAppend(&text, "| ", first ? verdict.target->what : "", " | ", check.figure, " | ",
                    Limit(check, check.limit), check.beyond ? absl::StrCat(", ", Limit(check, *check.beyond)) : "",
                    " | ", Digits(verdict.measured), " | ",
                    verdict.beyond_reached ? "yes, both"
                    : verdict.reached      ? "yes"
                                           : "**no**",
                    " | ", first ? absl::StrCat("`", Command(*verdict.target, common), "`") : "", " |\n");
  }
  return text;
}

}  // namespace shmrpc::bench
