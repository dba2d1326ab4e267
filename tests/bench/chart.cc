#include "tests/bench/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace shmrpc::bench {
namespace {

// Pixels.
constexpr double kWidth = 860;
constexpr double kLeft = 80;
constexpr double kTop = 44;
constexpr double kPlotWidth = 580;
constexpr double kPlotHeight = 320;
constexpr double kLegendLeft = kLeft + kPlotWidth + 16;
constexpr double kLineHeight = 16;
constexpr double kBelowPlot = 56;  // tick labels and the label of the axis
constexpr size_t kNoteColumns = 130;

// Told apart also by those who do not see all colours: dark and light ones alternate.
constexpr const char* kColours[] = {"#0b5fa5", "#e07b00", "#2a7f3f", "#b3325e", "#6a4fb0",
                                    "#7a5a2e", "#0f9aa8", "#d14b3a", "#5b6b7a", "#a8a100"};
constexpr size_t kColourCount = sizeof(kColours) / sizeof(kColours[0]);

// One axis: which values it has and where they are.
struct LogScale {
  double low = 1;
  double high = 10;
  double from = 0;  // pixels, of `low`
  double to = 1;    // of `high`

  double At(double value) const { return from + (to - from) * std::log(value / low) / std::log(high / low); }
};

// At most three digits that count.
std::string Short(double number) { return absl::StrFormat("%.3g", number); }

struct Step {
  double size;
  const char* name;
};

template <size_t kSteps>
std::string InSteps(double value, const Step (&steps)[kSteps]) {
  const Step* step = &steps[0];
  for (const Step& candidate : steps) {
    if (value >= candidate.size * 0.9995) step = &candidate;
  }
  return absl::StrCat(absl::StrFormat("%.4g", value / step->size), step->name);
}

// 1, 2 and 5 times the powers of ten where there is room for them, else the powers only.
std::vector<double> DecadeTicks(const LogScale& scale) {
  const bool dense = scale.high / scale.low < 2'000;
  std::vector<double> ticks;
  for (double decade = std::pow(10, std::floor(std::log10(scale.low))); decade <= scale.high; decade *= 10) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = decade * factor;
      if ((dense || factor == 1) && tick >= scale.low * 0.999 && tick <= scale.high * 1.001) ticks.push_back(tick);
    }
  }
  return ticks;
}

// The values that were measured; if they come too thick for labels, some of them.
std::vector<double> DataTicks(const std::set<double>& values, const LogScale& scale) {
  constexpr double kMinDistance = 46;
  std::vector<double> ticks;
  for (const double value : values) {
    if (ticks.empty() || std::abs(scale.At(value) - scale.At(ticks.back())) >= kMinDistance) ticks.push_back(value);
  }
  return ticks;
}

std::string Text(double x, double y, absl::string_view anchor, absl::string_view text, absl::string_view more = "") {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, more,
                         EscapeXml(text));
}

std::string Line(double x1, double y1, double x2, double y2, absl::string_view colour) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2,
                         colour);
}

// Broken at spaces.
std::vector<std::string> Wrap(absl::string_view text) {
  std::vector<std::string> lines;
  while (text.size() > kNoteColumns) {
    size_t end = text.rfind(' ', kNoteColumns);
    if (end == absl::string_view::npos || end == 0) end = kNoteColumns;
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  lines.emplace_back(text);
  return lines;
}

bool CanBeDrawn(const std::pair<double, double>& point) { return point.first > 0 && point.second > 0; }

std::string DrawSeries(const Series& series, const LogScale& x, const LogScale& y, absl::string_view colour) {
  std::string points;
  std::string marks;
  int count = 0;
  for (const auto& point : series.points) {
    if (!CanBeDrawn(point)) continue;
    ++count;
    absl::StrAppendFormat(&points, "%.1f,%.1f ", x.At(point.first), y.At(point.second));
    absl::StrAppendFormat(&marks, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"%s\"/>\n", x.At(point.first),
                          y.At(point.second), colour);
  }
  constexpr int kMostMarks = 16;
  std::string svg = absl::StrFormat("<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\"%s/>\n",
                                    points, colour, series.dashed ? " stroke-dasharray=\"5 4\"" : "");
  if (count <= kMostMarks) svg += marks;
  return svg;
}

}  // namespace

std::string EscapeXml(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string FormatValue(double value, Unit unit) {
  static constexpr Step kTimes[] = {{1, " ns"}, {1e3, " µs"}, {1e6, " ms"}, {1e9, " s"}};
  static constexpr Step kSizes[] = {{1, " B"}, {1024, " KiB"}, {1048576, " MiB"}, {1073741824, " GiB"}};
  static constexpr Step kRates[] = {{1, " B/s"}, {1e3, " kB/s"}, {1e6, " MB/s"}, {1e9, " GB/s"}};
  static constexpr Step kNumbers[] = {{1, ""}, {1e3, " k"}, {1e6, " M"}, {1e9, " G"}};
  switch (unit) {
    case Unit::kNanos:
      return InSteps(value, kTimes);
    case Unit::kBytes:
      return InSteps(value, kSizes);
    case Unit::kBytesPerSecond:
      return InSteps(value, kRates);
    case Unit::kPerSecond:
      return InSteps(value, kNumbers);
    case Unit::kCount:
      return Short(value);
    case Unit::kTail:
      return absl::StrFormat("%.6g %%", 100 - 100 / value);
  }
  return "";
}

std::string ToSvg(const Chart& chart) {
  std::set<double> xs;
  double y_low = std::numeric_limits<double>::infinity();
  double y_high = 0;
  for (const Series& series : chart.series) {
    for (const auto& point : series.points) {
      if (!CanBeDrawn(point)) continue;
      xs.insert(point.first);
      y_low = std::min(y_low, point.second);
      y_high = std::max(y_high, point.second);
    }
  }
  if (xs.empty()) return "";
  // Some room around the points, also if there is one only.
  constexpr double kRoom = 1.25;
  const LogScale x{.low = *xs.begin() / (xs.size() == 1 ? 2 : 1),
                   .high = *xs.rbegin() * (xs.size() == 1 ? 2 : 1),
                   .from = kLeft + 10,
                   .to = kLeft + kPlotWidth - 10};
  const LogScale y{.low = y_low / kRoom, .high = y_high * kRoom, .from = kTop + kPlotHeight, .to = kTop};

  std::vector<std::string> notes;
  for (const std::string& note : chart.notes) {
    for (std::string& line : Wrap(note)) notes.push_back(std::move(line));
  }
  const double bottom = kTop + kPlotHeight;
  const double legend_bottom = kTop + kLineHeight * static_cast<double>(chart.series.size() + 1);
  const double notes_top = std::max(bottom + kBelowPlot, legend_bottom) + kLineHeight;
  const double height = notes_top + kLineHeight * static_cast<double>(notes.size());

  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
      "font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\" role=\"img\">\n<title>%s</title>\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      kWidth, height, kWidth, height, EscapeXml(chart.title));
  svg += Text(kLeft, 24, "start", chart.title, " font-size=\"15\" font-weight=\"bold\"");

  for (const double tick : DecadeTicks(y)) {
    svg += Line(kLeft, y.At(tick), kLeft + kPlotWidth, y.At(tick), "#ddd");
    svg += Text(kLeft - 6, y.At(tick) + 4, "end", FormatValue(tick, chart.y_unit));
  }
  for (const double tick : chart.x_unit == Unit::kTail ? DecadeTicks(x) : DataTicks(xs, x)) {
    svg += Line(x.At(tick), kTop, x.At(tick), bottom, "#eee");
    svg += Text(x.At(tick), bottom + 16, "middle", FormatValue(tick, chart.x_unit));
  }
  svg += absl::StrFormat("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" stroke=\"#888\"/>\n",
                         kLeft, kTop, kPlotWidth, kPlotHeight);
  svg += Text(kLeft + kPlotWidth / 2, bottom + 38, "middle", chart.x_label);
  svg += Text(0, 0, "middle", chart.y_label,
              absl::StrFormat(" transform=\"translate(16 %.1f) rotate(-90)\"", kTop + kPlotHeight / 2));

  for (size_t i = 0; i < chart.series.size(); ++i) {
    const Series& series = chart.series[i];
    const char* const colour = kColours[i % kColourCount];
    svg += DrawSeries(series, x, y, colour);
    const double legend_y = kTop + kLineHeight * (static_cast<double>(i) + 0.5);
    svg += absl::StrFormat(
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"2.4\"%s/>\n", kLegendLeft,
        legend_y, kLegendLeft + 22, legend_y, colour, series.dashed ? " stroke-dasharray=\"5 4\"" : "");
    svg += Text(kLegendLeft + 28, legend_y + 4, "start", series.name);
  }
  for (size_t i = 0; i < notes.size(); ++i) {
    svg += Text(kLeft - 64, notes_top + kLineHeight * (static_cast<double>(i) - 0.4), "start", notes[i],
                " font-size=\"11\" fill=\"#666\"");
  }
  svg += "</svg>\n";
  return svg;
}

}  // namespace shmrpc::bench
