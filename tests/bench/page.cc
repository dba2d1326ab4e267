#include "tests/bench/page.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/chart.h"

namespace shmrpc::bench {
namespace {

using Rows = std::vector<const Row*>;

// The values that `key` has for the rows, in the order in which they appear.
template <typename Key>
auto Distinct(const Rows& rows, Key key) {
  std::vector<std::decay_t<decltype(key(*rows.front()))>> values;
  for (const Row* row : rows) {
    const auto value = key(*row);
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
  }
  return values;
}

Rows Where(const Rows& rows, const std::function<bool(const Row&)>& condition) {
  Rows some;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(some), [&](const Row* row) { return condition(*row); });
  return some;
}

size_t PayloadOf(const Row& row) { return row.payload_bytes; }
int AmountOf(const Row& row) { return row.amount; }
std::string PinOf(const Row& row) { return row.pin; }
std::string LoadOf(const Row& row) { return row.load; }
std::string NameOf(const Row& row) { return row.mode == "-" ? row.peer : absl::StrCat(row.peer, ", ", row.mode); }

// ", 64 B, clients 8, apart", as far as the rows of the case differ in that.
std::string Which(const Rows& of_load, const Row& row, bool tell_payload, bool tell_amount) {
  std::string text;
  if (tell_payload) absl::StrAppend(&text, ", ", FormatBytes(row.payload_bytes));
  if (tell_amount && !row.axis.empty()) absl::StrAppend(&text, ", ", row.axis, " ", row.amount);
  if (Distinct(of_load, PinOf).size() > 1) absl::StrAppend(&text, ", CPUs: ", row.pin);
  return text;
}

// What is drawn of a row: its throughput, if that is what the case is about, or its median latency.
double YOf(const Row& row) {
  if (row.one_way) return row.calls_per_second * static_cast<double>(row.payload_bytes);
  return row.throughput ? row.calls_per_second : row.p50_nanos;
}

void LabelY(const Row& row, Chart* chart) {
  chart->y_unit = row.one_way ? Unit::kBytesPerSecond : row.throughput ? Unit::kPerSecond : Unit::kNanos;
  chart->y_label = row.one_way      ? "payload, bytes per second (log)"
                   : row.throughput ? "calls per second (log)"
                                    : "round trip, median (log)";
}

// A line for each peer and mode, over what `x` says of a row.
std::vector<Series> Lines(const Rows& rows, const std::function<double(const Row&)>& x) {
  std::vector<Series> lines;
  for (const std::string& name : Distinct(rows, NameOf)) {
    Series line{.name = name, .points = {}, .dashed = absl::StartsWith(name, "floor-")};
    for (const Row* row : rows) {
      if (NameOf(*row) == name) line.points.emplace_back(x(*row), YOf(*row));
    }
    std::sort(line.points.begin(), line.points.end());
    lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<Chart> ChartsOverPayload(const Rows& of_load) {
  std::vector<Chart> charts;
  if (Distinct(of_load, PayloadOf).size() < 2) return charts;
  for (const std::string& pin : Distinct(of_load, PinOf)) {
    for (const int amount : Distinct(of_load, AmountOf)) {
      const Rows rows = Where(of_load, [&](const Row& row) { return row.pin == pin && row.amount == amount; });
      if (rows.empty()) continue;
      const Row& first = *rows.front();
      Chart chart{.title = absl::StrCat(first.load, Which(of_load, first, /*tell_payload=*/false, true)),
                  .x_label = "payload (log)",
                  .x_unit = Unit::kBytes,
                  .y_label = "",
                  .series = Lines(rows, [](const Row& row) { return static_cast<double>(row.payload_bytes); }),
                  .notes = {}};
      LabelY(first, &chart);
      charts.push_back(std::move(chart));
    }
  }
  return charts;
}

std::vector<Chart> ChartsOverAmount(const Rows& of_load) {
  std::vector<Chart> charts;
  if (Distinct(of_load, AmountOf).size() < 2) return charts;
  for (const std::string& pin : Distinct(of_load, PinOf)) {
    for (const size_t payload : Distinct(of_load, PayloadOf)) {
      const Rows rows = Where(of_load, [&](const Row& row) { return row.pin == pin && row.payload_bytes == payload; });
      if (rows.empty()) continue;
      const Row& first = *rows.front();
      Chart chart{.title = absl::StrCat(first.load, Which(of_load, first, true, /*tell_amount=*/false)),
                  .x_label = absl::StrCat(first.axis, " (log)"),
                  .x_unit = Unit::kCount,
                  .y_label = "",
                  .series = Lines(rows, [](const Row& row) { return static_cast<double>(row.amount); }),
                  .notes = {}};
      LabelY(first, &chart);
      charts.push_back(std::move(chart));
    }
  }
  return charts;
}

// Latency against percentile, as far as there were samples enough: up to the 99.99th.
Series Distribution(const Row& row) {
  constexpr double kLargestTail = 10'000;
  constexpr double kPerDecade = 8;
  Series line{.name = NameOf(row), .points = {}, .dashed = absl::StartsWith(row.peer, "floor-")};
  for (int i = 0; i <= kPerDecade * std::log10(kLargestTail); ++i) {
    const double tail = std::pow(10, i / kPerDecade);
    if (tail > static_cast<double>(row.latencies.count())) break;
    line.points.emplace_back(tail, static_cast<double>(row.latencies.Percentile(1 - 1 / tail)));
  }
  return line;
}

std::vector<Chart> DistributionCharts(const Rows& of_load) {
  std::vector<Chart> charts;
  if (of_load.front()->one_way) return charts;
  for (const std::string& pin : Distinct(of_load, PinOf)) {
    for (const int amount : Distinct(of_load, AmountOf)) {
      for (const size_t payload : Distinct(of_load, PayloadOf)) {
        Chart chart{.title = "",
                    .x_label = "percentile of calls",
                    .x_unit = Unit::kTail,
                    .y_label = "round trip (log)",
                    .y_unit = Unit::kNanos,
                    .series = {},
                    .notes = {}};
        for (const Row* row : of_load) {
          if (row->pin != pin || row->amount != amount || row->payload_bytes != payload) continue;
          chart.title = absl::StrCat(row->load, ", distribution", Which(of_load, *row, true, true));
          chart.series.push_back(Distribution(*row));
        }
        charts.push_back(std::move(chart));
      }
    }
  }
  return charts;
}

// A column of the table of a case: its head, and its cell of a row, empty where there is nothing.
struct Column {
  std::string head;
  std::function<std::string(const Row&)> cell;
};

std::string Micros(double nanos) { return FormatNumber(nanos / 1000); }

Column Optional(std::string head, std::optional<double> Row::*field, double unit = 1) {
  return {std::move(head), [field, unit](const Row& row) {
            const std::optional<double>& value = row.*field;
            return value ? FormatNumber(*value / unit) : std::string();
          }};
}

std::vector<Column> AllColumns(const Row& row) {
  std::vector<Column> columns = {
      {"peer", [](const Row& row) { return row.peer; }},
      {"mode", [](const Row& row) { return row.mode == "-" ? std::string() : row.mode; }},
      {"CPUs", PinOf},
      {"payload", [](const Row& row) { return FormatBytes(row.payload_bytes); }},
  };
  if (!row.axis.empty())
    columns.push_back({std::string(row.axis), [](const Row& row) { return absl::StrCat(row.amount); }});
  const std::vector<Column> figures = {
      {"median, µs", [](const Row& row) { return Micros(row.p50_nanos); }},
      {"99 %, µs", [](const Row& row) { return Micros(row.p99_nanos); }},
      {"99.9 %, µs", [](const Row& row) { return Micros(row.p999_nanos); }},
      {"99.99 %, µs", [](const Row& row) { return Micros(row.p9999_nanos); }},
      {"per second", [](const Row& row) { return FormatNumber(row.calls_per_second); }},
      {"GB/s",
       [](const Row& row) {
         return row.one_way ? FormatNumber(row.calls_per_second * static_cast<double>(row.payload_bytes) / 1e9) : "";
       }},
      {"CPU, µs per call", [](const Row& row) { return FormatNumber(row.cpu_micros_per_call); }},
      Optional("allocations per call", &Row::allocations_per_call),
      Optional("slowest client by mean", &Row::slowest_share),
      Optional("median alone, µs", &Row::p50_alone_nanos, 1000),
      Optional("median by that alone", &Row::ratio_alone),
      Optional("KiB per connection", &Row::memory_per_connection, 1024),
      Optional("CPU when idle, %", &Row::idle_cpu_percent),
      Optional("a call that wakes, µs", &Row::waking_micros),
      Optional("CPU of that, µs", &Row::waking_cpu_micros),
      Optional("times as fast, median", &Row::ratio_p50),
      Optional("times as many per second", &Row::ratio_calls),
  };
  columns.insert(columns.end(), figures.begin(), figures.end());
  return columns;
}

// Without the columns that are empty in every row.
std::string Table(const Rows& rows) {
  std::string heads;
  std::vector<std::string> lines(rows.size());
  for (const Column& column : AllColumns(*rows.front())) {
    std::vector<std::string> cells;
    for (const Row* row : rows) cells.push_back(column.cell(*row));
    if (std::all_of(cells.begin(), cells.end(), [](const std::string& cell) { return cell.empty(); })) continue;
    absl::StrAppend(&heads, "<th>", EscapeXml(column.head), "</th>");
    for (size_t i = 0; i < cells.size(); ++i) absl::StrAppend(&lines[i], "<td>", EscapeXml(cells[i]), "</td>");
  }
  std::string table = absl::StrCat("<table>\n<tr>", heads, "</tr>\n");
  for (const std::string& line : lines) absl::StrAppend(&table, "<tr>", line, "</tr>\n");
  return absl::StrCat(table, "</table>\n");
}

constexpr absl::string_view kStyle =
    "body { font-family: sans-serif; margin: 2em auto; max-width: 60em; color: #222; background: #fff; }\n"
    "table { border-collapse: collapse; margin: 1em 0; font-size: 0.85em; }\n"
    "th, td { border: 1px solid #ccc; padding: 0.2em 0.6em; text-align: right; }\n"
    "th:first-child, td:first-child { text-align: left; }\n"
    "code { font-size: 0.9em; }\n"
    "svg { max-width: 100%; height: auto; margin: 1em 0; }\n";

absl::Status WriteFile(const std::filesystem::path& path, absl::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path.string()));
}

}  // namespace

std::string ToPage(const std::vector<Row>& rows, const RunInfo& run) {
  Rows all;
  for (const Row& row : rows) all.push_back(&row);
  const std::vector<std::string> notes = {run.command,
                                          absl::StrCat(run.machine, "; ", run.date, "; commit ", run.commit)};

  std::string page = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>shmrpc_bench</title>\n<style>\n",
      kStyle, "</style>\n</head>\n<body>\n<h1>shmrpc_bench</h1>\n<table>\n");
  const std::pair<absl::string_view, absl::string_view> facts[] = {
      {"command", run.command}, {"machine", run.machine}, {"date", run.date}, {"commit", run.commit}};
  for (const auto& [name, value] : facts) {
    absl::StrAppend(&page, "<tr><td>", name, "</td><td><code>", EscapeXml(value), "</code></td></tr>\n");
  }
  absl::StrAppend(&page, "</table>\n<p>docs/performance.md says what is measured and how.</p>\n");

  for (const std::string& load : Distinct(all, LoadOf)) {
    const Rows of_load = Where(all, [&](const Row& row) { return row.load == load; });
    absl::StrAppend(&page, "<h2>", EscapeXml(load), "</h2>\n");
    for (const auto& charts : {ChartsOverPayload(of_load), ChartsOverAmount(of_load), DistributionCharts(of_load)}) {
      for (Chart chart : charts) {
        chart.notes = notes;
        page += ToSvg(chart);
      }
    }
    page += Table(of_load);
  }
  return absl::StrCat(page, "</body>\n</html>\n");
}

absl::Status WriteReport(const std::string& directory, const std::vector<Row>& rows, const RunInfo& run) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot make ", directory, ": ", error.message()));
  std::string lines;
  for (const Row& row : rows) absl::StrAppend(&lines, ToJson(row), "\n");
  const std::filesystem::path path = directory;
  const absl::Status status = WriteFile(path / "rows.jsonl", lines);
  return status.ok() ? WriteFile(path / "index.html", ToPage(rows, run)) : status;
}

}  // namespace shmrpc::bench
