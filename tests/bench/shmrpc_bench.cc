// shmrpc_bench: what a call costs, over shmrpc and over what else there is, side by side.
// docs/performance.md says what is measured and how.

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "tests/bench/measure.h"
#include "tests/bench/options.h"
#include "tests/bench/page.h"
#include "tests/bench/process.h"
#include "tests/bench/report.h"
#include "tests/bench/run_info.h"
#include "tests/bench/targets.h"

using Texts = std::vector<std::string>;

ABSL_FLAG(Texts, cases, Texts({"unary", "pipelined"}),
          "unary, pipelined, threads, clients, idle, slow-handler, stream, bulk, bulk-down, paced, bursts");
ABSL_FLAG(Texts, peers, Texts({"shm", "tcp", "unix", "grpc-unix", "grpc-tcp"}),
          "shm, tcp, unix, inproc, grpc-unix, grpc-tcp, floor-ring, floor-pool, floor-cacheline, floor-memcpy, "
          "floor-unix, floor-tcp");
ABSL_FLAG(Texts, payloads, Texts({"64", "4096", "65536", "1048576"}),
          "bytes that go there and back with each call, or one way with each message");
ABSL_FLAG(Texts, modes, Texts({"adaptive"}), "how shmrpc's peers wait: adaptive, latency, efficient");
ABSL_FLAG(Texts, concurrency, Texts({"1", "64"}), "pipelined: calls in flight; 1 is left to unary");
ABSL_FLAG(Texts, threads, Texts({"4"}), "threads: client threads on one connection");
ABSL_FLAG(Texts, clients, Texts({"8"}), "clients: client processes");
ABSL_FLAG(Texts, connections, Texts({"1000"}), "idle: connections that rest beside the busy one");
ABSL_FLAG(Texts, sleeping, Texts({"4"}), "slow-handler: calls at a time whose handlers sleep");
ABSL_FLAG(Texts, rate, Texts({"1000"}), "paced: calls per second");
ABSL_FLAG(Texts, burst, Texts({"100"}), "bursts: calls in one");
ABSL_FLAG(int, sleep_ms, 10, "slow-handler: how long a handler sleeps");
ABSL_FLAG(int, pause_ms, 10, "bursts: pause between two");
ABSL_FLAG(
    Texts, pin, Texts({"auto"}),
    "apart: clients on one CPU, the server on another; shared: all on one, bound when they are connected; single: "
    "all on one from the beginning; none: all on any; auto: none for threads and clients, else apart");
ABSL_FLAG(Texts, cpus, Texts(),
          "the CPUs to use; apart takes the first two, shared and single the first; default: all");
ABSL_FLAG(int, rounds, 5, "how often everything is measured; the medians are reported");
ABSL_FLAG(double, seconds, 0.5, "length of one measurement");
ABSL_FLAG(std::string, against, "", "a peer to compare the others with, round by round");
ABSL_FLAG(bool, table, false, "print tables for people after the run instead of a line of JSON for each result");
ABSL_FLAG(
    bool, targets, false,
    "measure what shmrpc is to reach, and tell what it does reach, instead of --cases; takes --rounds, --seconds, "
    "--cpus and --table");
ABSL_FLAG(std::string, report, "", "a directory to write a page with pictures and tables to, in addition");

namespace shmrpc::bench {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

// The rows of a contest, in the order of its contestants.
absl::StatusOr<std::vector<Row>> Run(const Contest& contest, const Options& options) {
  const auto measurements = MeasureInTurns(contest.contestants, options.rounds);
  if (!measurements.ok()) return measurements.status();
  std::vector<Row> rows;
  for (size_t i = 0; i < contest.contestants.size(); ++i) {
    const auto against = contest.against < 0 ? std::vector<Measurement>() : (*measurements)[contest.against];
    rows.push_back(Summarize(contest.contestants[i], (*measurements)[i], against));
  }
  return rows;
}

OptionTexts FlagTexts() {
  return {.cases = absl::GetFlag(FLAGS_cases),
          .peers = absl::GetFlag(FLAGS_peers),
          .payloads = absl::GetFlag(FLAGS_payloads),
          .modes = absl::GetFlag(FLAGS_modes),
          .concurrency = absl::GetFlag(FLAGS_concurrency),
          .threads = absl::GetFlag(FLAGS_threads),
          .clients = absl::GetFlag(FLAGS_clients),
          .connections = absl::GetFlag(FLAGS_connections),
          .sleeping = absl::GetFlag(FLAGS_sleeping),
          .rate = absl::GetFlag(FLAGS_rate),
          .burst = absl::GetFlag(FLAGS_burst),
          .sleep_ms = absl::GetFlag(FLAGS_sleep_ms),
          .pause_ms = absl::GetFlag(FLAGS_pause_ms),
          .pin = absl::GetFlag(FLAGS_pin),
          .cpus = absl::GetFlag(FLAGS_cpus),
          .rounds = absl::GetFlag(FLAGS_rounds),
          .seconds = absl::GetFlag(FLAGS_seconds),
          .against = absl::GetFlag(FLAGS_against)};
}

int Complain(int exit_code, const absl::Status& status) {
  std::cerr << "shmrpc_bench: " << status.message() << "\n";
  return exit_code;
}

int RunTargets() {
  OptionTexts common;
  common.rounds = absl::GetFlag(FLAGS_rounds);
  common.seconds = absl::GetFlag(FLAGS_seconds);
  common.cpus = absl::GetFlag(FLAGS_cpus);
  if (common.cpus.empty()) {
    // The targets are for two.
    for (const int cpu : AllowedCpus()) {
      if (common.cpus.size() < 2) common.cpus.push_back(absl::StrCat(cpu));
    }
  }
  std::vector<Verdict> all;
  for (const Target& target : AllTargets()) {
    const auto specs = PlanTarget(target, common);
    if (!specs.ok()) return Complain(kWrongUsage, specs.status());
    const auto measurements = MeasureInTurns(*specs, common.rounds);
    if (!measurements.ok()) return Complain(kFailed, measurements.status());
    const auto verdicts = Judge(target, *specs, *measurements);
    if (!verdicts.ok()) return Complain(kFailed, verdicts.status());
    for (const Verdict& verdict : *verdicts) {
      if (!absl::GetFlag(FLAGS_table)) std::cout << ToJson(verdict, common) << std::endl;
      all.push_back(verdict);
    }
  }
  if (absl::GetFlag(FLAGS_table)) std::cout << ToMarkdown(all, common) << std::flush;
  return std::cout ? EXIT_SUCCESS : kFailed;
}

int RunCases(const RunInfo& run) {
  const absl::StatusOr<Options> options = ParseOptions(FlagTexts());
  if (!options.ok()) return Complain(kWrongUsage, options.status());
  std::vector<std::string> notes;
  const std::vector<Contest> contests = PlanContests(*options, &notes);
  for (const std::string& note : notes) std::cerr << "shmrpc_bench: " << note << "\n";
  if (options->cpus.size() < 2) {
    std::cerr << "shmrpc_bench: only one CPU is to be used; client and server share it, and peers that spin will be "
                 "slow\n";
  }

  const bool table = absl::GetFlag(FLAGS_table);
  std::vector<Row> all;
  for (const Contest& contest : contests) {
    const absl::StatusOr<std::vector<Row>> rows = Run(contest, *options);
    if (!rows.ok()) return Complain(kFailed, rows.status());
    for (const Row& row : *rows) {
      if (!table) std::cout << ToJson(row) << std::endl;
      all.push_back(row);
    }
  }
  if (table) std::cout << ToTable(all, absl::GetFlag(FLAGS_against)) << std::flush;
  const std::string report = absl::GetFlag(FLAGS_report);
  if (!report.empty()) {
    const absl::Status status = WriteReport(report, all, run);
    if (!status.ok()) return Complain(kFailed, status);
    std::cerr << "shmrpc_bench: the report is in " << report << "/index.html\n";
  }
  return std::cout ? EXIT_SUCCESS : kFailed;
}

}  // namespace
}  // namespace shmrpc::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Measures calls over shmrpc and its peers: one line of JSON for each result.");
  const shmrpc::bench::RunInfo run = shmrpc::bench::DescribeRun(argc, argv);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::cerr << "shmrpc_bench: unexpected argument \"" << rest[1] << "\"; options begin with --, see --help\n";
    return shmrpc::bench::kWrongUsage;
  }
  return absl::GetFlag(FLAGS_targets) ? shmrpc::bench::RunTargets() : shmrpc::bench::RunCases(run);
}
