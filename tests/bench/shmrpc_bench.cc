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
#include "tests/bench/process.h"
#include "tests/bench/report.h"

ABSL_FLAG(std::vector<std::string>, cases, std::vector<std::string>({"unary", "pipelined"}), "unary, pipelined");
ABSL_FLAG(std::vector<std::string>, peers, std::vector<std::string>({"shm", "tcp", "unix", "grpc-unix", "grpc-tcp"}),
          "shm, tcp, unix, inproc, grpc-unix, grpc-tcp, floor-ring, floor-cacheline, floor-memcpy, floor-unix, "
          "floor-tcp");
ABSL_FLAG(std::vector<std::string>, payloads, std::vector<std::string>({"64", "4096", "65536", "1048576"}),
          "bytes that go there and back with each call");
ABSL_FLAG(std::vector<std::string>, modes, std::vector<std::string>({"adaptive"}),
          "how shmrpc's peers wait: adaptive, latency, efficient");
ABSL_FLAG(std::vector<std::string>, concurrency, std::vector<std::string>({"1", "64"}),
          "calls in flight; unary has 1, pipelined is run with each number above 1");
ABSL_FLAG(int, rounds, 5, "how often everything is measured; the medians are reported");
ABSL_FLAG(double, seconds, 0.5, "length of one measurement");
ABSL_FLAG(std::string, against, "", "a peer to compare the others with, round by round");
ABSL_FLAG(bool, table, false, "print tables for people after the run instead of a line of JSON for each result");

namespace shmrpc::bench {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

CpuPair ChooseCpus() {
  const std::vector<int> allowed = AllowedCpus();
  if (allowed.size() >= 2) return {.client = allowed[0], .server = allowed[1]};
  std::cerr << "shmrpc_bench: only one CPU is allowed; client and server share it, and peers that spin will be slow\n";
  const int only = allowed.empty() ? 0 : allowed[0];
  return {.client = only, .server = only};
}

// Lets the contestants take turns, round by round. Returns their rows in order.
absl::StatusOr<std::vector<Row>> Run(const Contest& contest, int rounds, const CpuPair& cpus) {
  std::vector<std::vector<Measurement>> measurements(contest.contestants.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < contest.contestants.size(); ++i) {
      const MeasurementSpec& spec = contest.contestants[i];
      const absl::StatusOr<Measurement> measurement = Measure(spec, cpus);
      if (!measurement.ok()) {
        return absl::Status(measurement.status().code(),
                            absl::StrCat(spec.peer->name, " (case ", spec.load->name, ", mode ", spec.wait_mode, ", ",
                                         spec.payload_bytes, " bytes, ", spec.concurrency,
                                         " in flight): ", measurement.status().message()));
      }
      measurements[i].push_back(*measurement);
    }
  }
  std::vector<Row> rows;
  for (size_t i = 0; i < contest.contestants.size(); ++i) {
    const auto against = contest.against < 0 ? std::vector<Measurement>() : measurements[contest.against];
    rows.push_back(Summarize(contest.contestants[i], measurements[i], against));
  }
  return rows;
}

int Main() {
  const absl::StatusOr<Options> options = ParseOptions({.cases = absl::GetFlag(FLAGS_cases),
                                                        .peers = absl::GetFlag(FLAGS_peers),
                                                        .payloads = absl::GetFlag(FLAGS_payloads),
                                                        .modes = absl::GetFlag(FLAGS_modes),
                                                        .concurrency = absl::GetFlag(FLAGS_concurrency),
                                                        .rounds = absl::GetFlag(FLAGS_rounds),
                                                        .seconds = absl::GetFlag(FLAGS_seconds),
                                                        .against = absl::GetFlag(FLAGS_against)});
  if (!options.ok()) {
    std::cerr << "shmrpc_bench: " << options.status().message() << "\n";
    return kWrongUsage;
  }
  std::vector<std::string> notes;
  const std::vector<Contest> contests = PlanContests(*options, &notes);
  for (const std::string& note : notes) std::cerr << "shmrpc_bench: " << note << "\n";
  const CpuPair cpus = ChooseCpus();

  const bool table = absl::GetFlag(FLAGS_table);
  std::vector<Row> all;
  for (const Contest& contest : contests) {
    const absl::StatusOr<std::vector<Row>> rows = Run(contest, options->rounds, cpus);
    if (!rows.ok()) {
      std::cerr << "shmrpc_bench: " << rows.status().message() << "\n";
      return kFailed;
    }
    for (const Row& row : *rows) {
      if (!table) std::cout << ToJson(row) << std::endl;
      all.push_back(row);
    }
  }
  if (table) std::cout << ToTable(all, absl::GetFlag(FLAGS_against)) << std::flush;
  return std::cout ? EXIT_SUCCESS : kFailed;
}

}  // namespace
}  // namespace shmrpc::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Measures calls over shmrpc and its peers: one line of JSON for each result.");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::cerr << "shmrpc_bench: unexpected argument \"" << rest[1] << "\"; options begin with --, see --help\n";
    return shmrpc::bench::kWrongUsage;
  }
  return shmrpc::bench::Main();
}
