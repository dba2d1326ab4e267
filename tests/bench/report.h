#ifndef SHMRPC_TESTS_BENCH_REPORT_H_
#define SHMRPC_TESTS_BENCH_REPORT_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/bench/measure.h"
#include "tests/bench/statistics.h"

namespace shmrpc::bench {

// What is reported of one contestant: the medians over the rounds, but for the distribution.
struct Row {
  std::string load = {};
  std::string peer = {};
  std::string mode = {};
  std::string pin = {};
  size_t payload_bytes = 0;
  int concurrency = 1;          // calls in flight at the same time
  absl::string_view axis = "";  // what the case has `amount` of, see AxisName; empty: nothing
  int amount = 1;
  bool throughput = false;  // calls per second are what the case is about
  bool one_way = false;     // payloads go in one direction only
  double p50_nanos = 0;
  double p99_nanos = 0;
  double p999_nanos = 0;
  double p9999_nanos = 0;  // of all rounds together: one has too few calls
  double calls_per_second = 0;
  double cpu_micros_per_call = 0;
  double calls = 0;
  std::optional<double> allocations_per_call = std::nullopt;
  std::optional<double> slowest_share = std::nullopt;
  std::optional<double> p50_alone_nanos = std::nullopt;
  std::optional<double> ratio_alone = std::nullopt;  // p50 by p50 alone of the same round: above 1, idle ones cost
  std::optional<double> memory_per_connection = std::nullopt;
  std::optional<double> idle_cpu_percent = std::nullopt;
  std::optional<double> waking_micros = std::nullopt;
  std::optional<double> waking_cpu_micros = std::nullopt;
  std::optional<double> ratio_p50 = std::nullopt;  // the compared peer's p50 by this one's: above 1, this one is faster
  std::optional<double> ratio_calls = std::nullopt;  // this one's calls per second by the compared peer's
  LatencyHistogram latencies = {};                   // of all rounds together
};

// `rounds` are those of this contestant, `against` those of the one that it is compared with: empty for none, else
// one for each of `rounds`, of the same round. Neither has rounds missing.
Row Summarize(const MeasurementSpec& spec, const std::vector<Measurement>& rounds,
              const std::vector<Measurement>& against);

// One JSON object, without a line end.
std::string ToJson(const Row& row);

// For people: "4 KiB" for 4096; three digits that count.
std::string FormatBytes(size_t bytes);
std::string FormatNumber(double number);

// For people: for each case tables of round trips, of calls per second and of CPU time per call, and one of ratios if
// there are any. A line for each payload, a column for each peer. `against` names the compared peer. Ends with a line
// end.
std::string ToTable(const std::vector<Row>& rows, const std::string& against);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_REPORT_H_
