#include "tests/bench/report.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "tests/bench/statistics.h"

namespace shmrpc::bench {
namespace {

template <typename Field>
std::vector<double> Collect(const std::vector<Measurement>& rounds, Field Figures::*field) {
  std::vector<double> values;
  for (const Measurement& measurement : rounds) values.push_back(static_cast<double>(measurement.figures.*field));
  return values;
}

// Nothing unless every round has measured it.
std::optional<double> MedianIfMeasured(const std::vector<double>& values) {
  for (const double value : values) {
    if (std::isnan(value)) return std::nullopt;
  }
  return Median(values);
}

std::string FormatLatency(const Row& row) {
  return absl::StrCat(FormatNumber(row.p50_nanos / 1000), " (", FormatNumber(row.p99_nanos / 1000), ")");
}

double GigabytesPerSecond(const Row& row) {
  return row.calls_per_second * static_cast<double>(row.payload_bytes) / 1e9;
}

std::string FormatRate(const Row& row) { return FormatNumber(row.calls_per_second / 1000); }

std::string FormatCpu(const Row& row) { return FormatNumber(row.cpu_micros_per_call); }

std::string FormatGigabytes(const Row& row) { return FormatNumber(GigabytesPerSecond(row)); }

std::string FormatRatio(const Row& row) {
  const std::optional<double>& ratio = row.throughput ? row.ratio_calls : row.ratio_p50;
  return ratio ? FormatNumber(*ratio) : "-";
}

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
  std::set<int> amounts;
  std::set<std::string> pins;
  for (const Row& row : rows) {
    if (row.mode != "-") modes.insert(row.mode);
    amounts.insert(row.amount);
    pins.insert(row.pin);
  }

  std::vector<std::vector<std::string>> lines;
  std::vector<std::string> head = {""};
  for (const auto& [peer, mode] : columns) {
    head.push_back(modes.size() > 1 && mode != "-" ? absl::StrCat(peer, "/", mode) : peer);
  }
  lines.push_back(head);

  using Key = std::tuple<size_t, int, std::string>;
  const auto key_of = [](const Row& row) { return Key(row.payload_bytes, row.amount, row.pin); };
  std::vector<Key> done;
  for (const Row& row : rows) {
    const Key key = key_of(row);
    if (std::find(done.begin(), done.end(), key) != done.end()) continue;
    done.push_back(key);
    std::vector<std::string> line = {FormatBytes(row.payload_bytes)};
    if (amounts.size() > 1) absl::StrAppend(&line[0], ", ", row.axis, " ", row.amount);
    if (pins.size() > 1) absl::StrAppend(&line[0], ", ", row.pin);
    for (const auto& [peer, mode] : columns) {
      const auto it = std::find_if(rows.begin(), rows.end(), [&, peer = peer, mode = mode](const Row& other) {
        return key_of(other) == key && other.peer == peer && other.mode == mode;
      });
      line.push_back(it == rows.end() ? "-" : format(*it));
    }
    lines.push_back(std::move(line));
  }
  return Align(lines);
}

}  // namespace

std::string FormatBytes(size_t bytes) {
  if (bytes >= size_t{1} << 20 && bytes % (size_t{1} << 20) == 0) return absl::StrCat(bytes >> 20, " MiB");
  if (bytes >= size_t{1} << 10 && bytes % (size_t{1} << 10) == 0) return absl::StrCat(bytes >> 10, " KiB");
  return absl::StrCat(bytes, " B");
}

std::string FormatNumber(double number) {
  if (number < 10) return absl::StrFormat("%.2f", number);
  if (number < 100) return absl::StrFormat("%.1f", number);
  return absl::StrFormat("%.0f", number);
}

Row Summarize(const MeasurementSpec& spec, const std::vector<Measurement>& rounds,
              const std::vector<Measurement>& against) {
  Row row;
  row.load = spec.load->name;
  row.peer = spec.peer->name;
  row.mode = spec.wait_mode;
  row.pin = std::string(PinName(spec.pin));
  row.payload_bytes = spec.payload_bytes;
  row.concurrency = spec.concurrency();
  row.axis = AxisName(spec.load->axis);
  row.amount = spec.shape.amount;
  row.throughput = spec.load->throughput;
  row.one_way = spec.load->one_way;
  const std::vector<double> p50 = Collect(rounds, &Figures::p50_nanos);
  const std::vector<double> calls_per_second = Collect(rounds, &Figures::calls_per_second);
  const std::vector<double> p50_alone = Collect(rounds, &Figures::p50_alone_nanos);
  row.p50_nanos = Median(p50);
  row.p99_nanos = Median(Collect(rounds, &Figures::p99_nanos));
  row.p999_nanos = Median(Collect(rounds, &Figures::p999_nanos));
  row.calls_per_second = Median(calls_per_second);
  row.cpu_micros_per_call = Median(Collect(rounds, &Figures::cpu_micros_per_call));
  row.calls = Median(Collect(rounds, &Figures::calls));
  row.allocations_per_call = MedianIfMeasured(Collect(rounds, &Figures::allocations_per_call));
  row.slowest_share = MedianIfMeasured(Collect(rounds, &Figures::slowest_share));
  row.p50_alone_nanos = MedianIfMeasured(p50_alone);
  row.memory_per_connection = MedianIfMeasured(Collect(rounds, &Figures::memory_per_connection));
  row.idle_cpu_percent = MedianIfMeasured(Collect(rounds, &Figures::idle_cpu_percent));
  row.waking_micros = MedianIfMeasured(Collect(rounds, &Figures::waking_micros));
  row.waking_cpu_micros = MedianIfMeasured(Collect(rounds, &Figures::waking_cpu_micros));
  if (row.p50_alone_nanos) row.ratio_alone = MedianRatio(p50, p50_alone);
  for (const Measurement& measurement : rounds) row.latencies.Merge(measurement.latencies);
  row.p9999_nanos = static_cast<double>(row.latencies.Percentile(0.9999));
  if (!against.empty()) {
    row.ratio_p50 = MedianRatio(Collect(against, &Figures::p50_nanos), p50);
    row.ratio_calls = MedianRatio(calls_per_second, Collect(against, &Figures::calls_per_second));
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
      {"pin", row.pin},
      {"payload", row.payload_bytes},
      {"concurrency", row.concurrency},
  };
  if (!row.axis.empty()) json[std::string(row.axis)] = row.amount;
  json["p50_ns"] = std::llround(row.p50_nanos);
  json["p99_ns"] = std::llround(row.p99_nanos);
  json["p999_ns"] = std::llround(row.p999_nanos);
  json["p9999_ns"] = std::llround(row.p9999_nanos);
  json["calls_per_s"] = to_five_digits(row.calls_per_second);
  if (row.one_way) json["gb_per_s"] = to_five_digits(GigabytesPerSecond(row));
  json["cpu_us_per_call"] = to_thousandths(row.cpu_micros_per_call);
  json["calls"] = std::llround(row.calls);
  const auto add = [&](const char* name, const std::optional<double>& value, const auto& round) {
    if (value) json[name] = round(*value);
  };
  add("allocations_per_call", row.allocations_per_call, to_thousandths);
  add("slowest_share", row.slowest_share, to_thousandths);
  add("p50_alone_ns", row.p50_alone_nanos, [](double nanos) { return std::llround(nanos); });
  add("ratio_alone", row.ratio_alone, to_five_digits);
  add("memory_per_connection", row.memory_per_connection, [](double bytes) { return std::llround(bytes); });
  add("idle_cpu_percent", row.idle_cpu_percent, to_thousandths);
  add("waking_us", row.waking_micros, to_thousandths);
  add("waking_cpu_us", row.waking_cpu_micros, to_thousandths);
  add("ratio_p50", row.ratio_p50, to_five_digits);
  add("ratio_calls", row.ratio_calls, to_five_digits);
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
    const bool one_way = of_load.front().one_way;
    if (one_way) {
      absl::StrAppend(&text, load, ": gigabytes per second\n", Pivot(of_load, FormatGigabytes));
    } else {
      absl::StrAppend(&text, load, ": round trip in microseconds, median (99th percentile)\n",
                      Pivot(of_load, FormatLatency));
    }
    absl::StrAppend(&text, "\n", load, ": thousand ", one_way ? "messages" : "calls", " per second\n",
                    Pivot(of_load, FormatRate));
    absl::StrAppend(&text, "\n", load, ": microseconds of CPU time per ", one_way ? "message" : "call", "\n",
                    Pivot(of_load, FormatCpu));
    if (has_ratios) {
      absl::StrAppend(&text, "\n", load, ": times as fast as ", against, ", by the ",
                      of_load.front().throughput ? "calls per second" : "median round trip", "\n",
                      Pivot(of_load, FormatRatio));
    }
  }
  return text;
}

}  // namespace shmrpc::bench
