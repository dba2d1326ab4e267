#ifndef SHMRPC_TESTS_BENCH_OPTIONS_H_
#define SHMRPC_TESTS_BENCH_OPTIONS_H_

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/bench/cases.h"
#include "tests/bench/measure.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {

// The command line as it was written.
struct OptionTexts {
  std::vector<std::string> cases;
  std::vector<std::string> peers;
  std::vector<std::string> payloads;
  std::vector<std::string> modes = {"adaptive"};
  // How many of what the cases have a number of, see Axis.
  std::vector<std::string> concurrency = {"1", "64"};
  std::vector<std::string> threads = {"4"};
  std::vector<std::string> clients = {"8"};
  std::vector<std::string> connections = {"1000"};
  std::vector<std::string> sleeping = {"4"};
  std::vector<std::string> rate = {"1000"};
  std::vector<std::string> burst = {"100"};
  int sleep_ms = 10;
  int pause_ms = 10;
  std::vector<std::string> pin = {"auto"};
  std::vector<std::string> cpus = {};  // empty: all that are allowed
  int rounds = 5;
  double seconds = 0.5;
  std::string against;
};

// The command line, checked.
struct Options {
  std::vector<const CaseInfo*> cases;
  std::vector<const PeerInfo*> peers;  // with `against`, even if it was not listed
  std::vector<size_t> payloads;
  std::vector<std::string> modes;
  std::map<Axis, std::vector<int>> amounts;  // of every axis but kNone
  absl::Duration sleep = absl::ZeroDuration();
  absl::Duration pause = absl::ZeroDuration();
  std::vector<std::optional<Pin>> pins;  // nullopt: as it suits the case
  std::vector<int> cpus;                 // at least one
  int rounds = 0;
  absl::Duration duration = absl::ZeroDuration();  // of one measurement
  const PeerInfo* against = nullptr;               // null: no ratios
};

// INVALID_ARGUMENT, naming the option, the value and the values that it can have.
absl::StatusOr<Options> ParseOptions(const OptionTexts& texts);

// One configuration: peers that take turns under the same load.
struct Contest {
  const CaseInfo* load = nullptr;
  size_t payload_bytes = 0;
  int amount = 1;  // of what the case's axis says
  Pin pin = Pin::kApart;
  std::vector<MeasurementSpec> contestants;
  int against = -1;  // the contestant that the others are compared with, or -1
};

// All configurations that the options ask for, in order. A concurrency of 1 is left to unary. Where a peer cannot take
// part in one, `notes` gets a line that says why.
std::vector<Contest> PlanContests(const Options& options, std::vector<std::string>* notes);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_OPTIONS_H_
