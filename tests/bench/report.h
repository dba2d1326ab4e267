#ifndef SHMRPC_TESTS_BENCH_REPORT_H_
#define SHMRPC_TESTS_BENCH_REPORT_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "tests/bench/measure.h"

namespace shmrpc::bench {

// What is reported of one contestant: the medians over the rounds.
struct Row {
  std::string load;
  std::string peer;
  std::string mode;
  size_t payload_bytes = 0;
  int concurrency = 1;
  double p50_nanos = 0;
  double p99_nanos = 0;
  double p999_nanos = 0;
  double calls_per_second = 0;
  double cpu_micros_per_call = 0;
  double calls = 0;
  std::optional<double> ratio_p50 = std::nullopt;  // the compared peer's p50 by this one's: above 1, this one is faster
};

// `rounds` are those of this contestant, `against` those of the one that it is compared with: empty for none, else
// one for each of `rounds`, of the same round. Neither has rounds missing.
Row Summarize(const MeasurementSpec& spec, const std::vector<Measurement>& rounds,
              const std::vector<Measurement>& against);

// One JSON object, without a line end.
std::string ToJson(const Row& row);

// For people: for each case a table of round trips and of calls per second, and one of ratios if there are any. A line
// for each payload, a column for each peer. `against` names the compared peer. Ends with a line end.
std::string ToTable(const std::vector<Row>& rows, const std::string& against);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_REPORT_H_
