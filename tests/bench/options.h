#ifndef SHMRPC_TESTS_BENCH_OPTIONS_H_
#define SHMRPC_TESTS_BENCH_OPTIONS_H_

#include <cstddef>
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
  std::vector<std::string> modes;
  std::vector<std::string> concurrency;
  int rounds = 0;
  double seconds = 0;
  std::string against;
};

// The command line, checked.
struct Options {
  std::vector<const CaseInfo*> cases;
  std::vector<const PeerInfo*> peers;  // with `against`, even if it was not listed
  std::vector<size_t> payloads;
  std::vector<std::string> modes;
  std::vector<int> concurrency;
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
  int concurrency = 1;
  std::vector<MeasurementSpec> contestants;
  int against = -1;  // the contestant that the others are compared with, or -1
};

// All configurations that the options ask for, in order. Unary uses a concurrency of 1, pipelined all others. Where a
// peer cannot take part in one, `notes` gets a line that says why.
std::vector<Contest> PlanContests(const Options& options, std::vector<std::string>* notes);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_OPTIONS_H_
