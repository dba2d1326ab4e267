#ifndef SHMRPC_TESTS_BENCH_CHART_H_
#define SHMRPC_TESTS_BENCH_CHART_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace shmrpc::bench {

// What the numbers along an axis are, which decides how they are written.
enum class Unit {
  kNanos,           // as ns, µs, ms or s
  kBytes,           // as B, KiB or MiB
  kBytesPerSecond,  // as MB/s or GB/s
  kPerSecond,       // as 1, 1 k, 1 M
  kCount,
  kTail,  // one sample in so many is larger: 1 for the smallest, 100 for the 99th percentile; as percentiles
};

// "4 KiB", "1.5 µs", "99.9 %"; without what kPerSecond counts.
std::string FormatValue(double value, Unit unit);

// One line of a chart.
struct Series {
  std::string name = {};
  std::vector<std::pair<double, double>> points =
      {};  // x and y, in the order of x; those that are not above 0 are left out
  bool dashed = false;
};

// A picture of lines over two logarithmic axes.
struct Chart {
  std::string title = {};
  std::string x_label = {};
  Unit x_unit = Unit::kCount;
  std::string y_label = {};
  Unit y_unit = Unit::kNanos;
  std::vector<Series> series = {};
  std::vector<std::string> notes = {};  // lines below the picture: where the numbers come from
};

// An <svg> element that needs nothing else. Empty when there is no point to draw.
std::string ToSvg(const Chart& chart);

// With the characters that mean something in XML written as entities.
std::string EscapeXml(absl::string_view text);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_CHART_H_
