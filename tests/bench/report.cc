#include "tests/bench/report.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "tests/bench/statistics.h"

namespace shmrpc::bench {
namespace {

template <typename Field>
std::vector<double> Collect(const std::vector<Measurement>& rounds, Field Measurement::*field) {
  std::vector<double> values;
  for (const Measurement& measurement : rounds) values.push_back(static_cast<double>(measurement.*field));
  return values;
}

std::string FormatBytes(size_t bytes) {
  if (bytes >= size_t{1} << 20 && bytes % (size_t{1} << 20) == 0) return absl::StrCat(bytes >> 20, " MiB");
  if (bytes >= size_t{1} << 10 && bytes % (size_t{1} << 10) == 0) return absl::StrCat(bytes >> 10, " KiB");
  return absl::StrCat(bytes, " B");
}

// Three digits that count.
std::string FormatNumber(double number) {
  if (number < 10) return absl::StrFormat("%.2f", number);
  if (number < 100) return absl::StrFormat("%.1f", number);
  return absl::StrFormat("%.0f", number);
}

std::string FormatLatency(const Row& row) {
  return absl::StrCat(FormatNumber(row.p50_nanos / 1000), " (", FormatNumber(row.p99_nanos / 1000), ")");
}

std::string FormatRate(const Row& row) { return FormatNumber(row.calls_per_second / 1000); }

std::string FormatRatio(const Row& row) { return row.ratio_p50 ? FormatNumber(*row.ratio_p50) : "-"; }

// A first line of column heads, then the lines. Every column is as wide as its widest cell; the first is flushed left.
std::string Align(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> widths(lines.front().size());
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    absl::StrAppendFormat(&text, "  %-*s", static_cast<int>(widths[0]), line[0]);
    for (size_t i = 1; i < line.size(); ++i)
      absl::StrAppendFormat(&text, "  %*s", static_cast<int>(widths[i]), line[i]);
    text += '\n';
  }
  return text;
}

// The peers of `rows` in the order of their first appearance, with their mode where a peer has several.
std::vector<std::pair<std::string, std::string>> Columns(const std::vector<Row>& rows) {
  std::vector<std::pair<std::string, std::string>> columns;
  for (const Row& row : rows) {
    const std::pair<std::string, std::string> column(row.peer, row.mode);
    if (std::find(columns.begin(), columns.end(), column) == columns.end()) columns.push_back(column);
  }
  return columns;
}

// One table: `rows` are of one case.
std::string Pivot(const std::vector<Row>& rows, const std::function<std::string(const Row&)>& format) {
  const auto columns = Columns(rows);
  std::set<std::string> modes;
  std::set<int> concurrencies;
  for (const Row& row : rows) {
    if (row.mode != "-") modes.insert(row.mode);
    concurrencies.insert(row.concurrency);
  }

  std::vector<std::vector<std::string>> lines;
  std::vector<std::string> head = {""};
  for (const auto& [peer, mode] : columns) {
    head.push_back(modes.size() > 1 && mode != "-" ? absl::StrCat(peer, "/", mode) : peer);
  }
  lines.push_back(head);

  std::vector<std::pair<size_t, int>> done;
  for (const Row& row : rows) {
    const std::pair<size_t, int> key(row.payload_bytes, row.concurrency);
    if (std::find(done.begin(), done.end(), key) != done.end()) continue;
    done.push_back(key);
    std::vector<std::string> line = {FormatBytes(row.payload_bytes)};
    if (concurrencies.size() > 1) absl::StrAppend(&line[0], ", ", row.concurrency, " in flight");
    for (const auto& [peer, mode] : columns) {
      const auto it = std::find_if(rows.begin(), rows.end(), [&, peer = peer, mode = mode](const Row& other) {
        return other.payload_bytes == key.first && other.concurrency == key.second && other.peer == peer &&
               other.mode == mode;
      });
      line.push_back(it == rows.end() ? "-" : format(*it));
    }
    lines.push_back(std::move(line));
  }
  return Align(lines);
}

}  // namespace

Row Summarize(const MeasurementSpec& spec, const std::vector<Measurement>& rounds,
              const std::vector<Measurement>& against) {
  Row row;
  row.load = spec.load->name;
  row.peer = spec.peer->name;
  row.mode = spec.wait_mode;
  row.payload_bytes = spec.payload_bytes;
  row.concurrency = spec.concurrency;
  row.p50_nanos = Median(Collect(rounds, &Measurement::p50_nanos));
  row.p99_nanos = Median(Collect(rounds, &Measurement::p99_nanos));
  row.p999_nanos = Median(Collect(rounds, &Measurement::p999_nanos));
  row.calls_per_second = Median(Collect(rounds, &Measurement::calls_per_second));
  row.cpu_micros_per_call = Median(Collect(rounds, &Measurement::cpu_micros_per_call));
  row.calls = Median(Collect(rounds, &Measurement::calls));
  if (!against.empty()) {
    row.ratio_p50 = MedianRatio(Collect(against, &Measurement::p50_nanos), Collect(rounds, &Measurement::p50_nanos));
  }
  return row;
}

std::string ToJson(const Row& row) {
  // Not a fixed number of decimals: beside a floor a ratio may be very small, but is never zero.
  const auto to_five_digits = [](double number) {
    return std::strtod(absl::StrFormat("%.5g", number).c_str(), nullptr);
  };
  const auto to_thousandths = [](double number) { return std::round(number * 1000) / 1000; };
  nlohmann::ordered_json json = {
      {"case", row.load},
      {"peer", row.peer},
      {"mode", row.mode},
      {"payload", row.payload_bytes},
      {"concurrency", row.concurrency},
      {"p50_ns", std::llround(row.p50_nanos)},
      {"p99_ns", std::llround(row.p99_nanos)},
      {"p999_ns", std::llround(row.p999_nanos)},
      {"calls_per_s", std::llround(row.calls_per_second)},
      {"cpu_us_per_call", to_thousandths(row.cpu_micros_per_call)},
      {"calls", std::llround(row.calls)},
  };
  if (row.ratio_p50) json["ratio_p50"] = to_five_digits(*row.ratio_p50);
  return json.dump();
}

std::string ToTable(const std::vector<Row>& rows, const std::string& against) {
  std::vector<std::string> loads;
  for (const Row& row : rows) {
    if (std::find(loads.begin(), loads.end(), row.load) == loads.end()) loads.push_back(row.load);
  }
  std::string text;
  for (const std::string& load : loads) {
    std::vector<Row> of_load;
    std::copy_if(rows.begin(), rows.end(), std::back_inserter(of_load),
                 [&](const Row& row) { return row.load == load; });
    const bool has_ratios = std::any_of(of_load.begin(), of_load.end(), [](const Row& row) { return row.ratio_p50; });
    if (!text.empty()) text += '\n';
    absl::StrAppend(&text, load, ": round trip in microseconds, median (99th percentile)\n",
                    Pivot(of_load, FormatLatency));
    absl::StrAppend(&text, "\n", load, ": thousand calls per second\n", Pivot(of_load, FormatRate));
    if (has_ratios) {
      absl::StrAppend(&text, "\n", load, ": times as fast as ", against, ", by the median round trip\n",
                      Pivot(of_load, FormatRatio));
    }
  }
  return text;
}

}  // namespace shmrpc::bench
