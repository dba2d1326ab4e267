#ifndef SHMRPC_TESTS_BENCH_TARGETS_H_
#define SHMRPC_TESTS_BENCH_TARGETS_H_

// What shmrpc is to reach, as measurements: --targets runs them and tells which ones are reached.

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/bench/measure.h"
#include "tests/bench/options.h"

namespace shmrpc::bench {

// One figure of a target: the median over the rounds of what a peer does in a case, or of its ratio to what another
// peer does, or the same peer in another case, in the same round.
struct Check {
  struct Cell {
    std::string load;
    std::string peer;
  };

  std::string figure;  // for people
  double (*field)(const Figures& figures) = nullptr;
  Cell of;
  std::optional<Cell> by = std::nullopt;  // divide by that
  bool at_most = true;                    // the limits are upper ones, or lower ones
  double limit = 0;
  std::optional<double> beyond = std::nullopt;  // a further aim
};

// Peers and cases that take turns, and what is to come out.
struct Target {
  std::string what;       // for people
  std::string arguments;  // of shmrpc_bench, to measure the same without limits
  std::vector<Check> checks;
};

const std::vector<Target>& AllTargets();

// What a target measures, in the order in which the contestants take turns. `common` has what the target's arguments do
// not say: rounds, seconds and CPUs.
absl::StatusOr<std::vector<MeasurementSpec>> PlanTarget(const Target& target, const OptionTexts& common);

struct Verdict {
  const Target* target = nullptr;
  const Check* check = nullptr;
  double measured = 0;
  bool reached = false;
  bool beyond_reached = false;  // false if there is no further aim
};

// `measurements` are those of `specs`, round by round. INTERNAL when a check is about something that is not measured.
absl::StatusOr<std::vector<Verdict>> Judge(const Target& target, const std::vector<MeasurementSpec>& specs,
                                           const std::vector<std::vector<Measurement>>& measurements);

// One JSON object, without a line end. `common` is what the measurement was run with.
std::string ToJson(const Verdict& verdict, const OptionTexts& common);

// A table in Markdown.
std::string ToMarkdown(const std::vector<Verdict>& verdicts, const OptionTexts& common);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_TARGETS_H_
