#include "tests/bench/chart.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::bench {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Chart TwoLines() {
  return {.title = "unary",
          .x_label = "payload (log)",
          .x_unit = Unit::kBytes,
          .y_label = "round trip, median (log)",
          .y_unit = Unit::kNanos,
          .series = {{.name = "shm, adaptive", .points = {{64, 1'000}, {4'096, 2'000}, {1'048'576, 200'000}}},
                     {.name = "floor-ring", .points = {{64, 700}, {4'096, 1'400}}, .dashed = true}},
          .notes = {"shmrpc_bench --cases=unary", "a machine; 2026-01-01; commit abc"}};
}

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// The y coordinates of the marks, in the order of the points.
std::vector<double> MarkHeights(const std::string& svg) {
  std::vector<double> heights;
  for (size_t at = svg.find("cy=\""); at != std::string::npos; at = svg.find("cy=\"", at + 1)) {
    heights.push_back(std::stod(svg.substr(at + 4)));
  }
  return heights;
}

TEST(FormatValueTest, PicksTheUnitThatReadsWell) {
  EXPECT_EQ(FormatValue(500, Unit::kNanos), "500 ns");
  EXPECT_EQ(FormatValue(1'500, Unit::kNanos), "1.5 µs");
  EXPECT_EQ(FormatValue(2e6, Unit::kNanos), "2 ms");
  EXPECT_EQ(FormatValue(5e9, Unit::kNanos), "5 s");
  EXPECT_EQ(FormatValue(64, Unit::kBytes), "64 B");
  EXPECT_EQ(FormatValue(4'096, Unit::kBytes), "4 KiB");
  EXPECT_EQ(FormatValue(16 << 20, Unit::kBytes), "16 MiB");
  EXPECT_EQ(FormatValue(2e9, Unit::kBytesPerSecond), "2 GB/s");
  EXPECT_EQ(FormatValue(500'000, Unit::kPerSecond), "500 k");
  EXPECT_EQ(FormatValue(8, Unit::kCount), "8");
}

TEST(FormatValueTest, TailsAreWrittenAsPercentiles) {
  EXPECT_EQ(FormatValue(1, Unit::kTail), "0 %");
  EXPECT_EQ(FormatValue(2, Unit::kTail), "50 %");
  EXPECT_EQ(FormatValue(1'000, Unit::kTail), "99.9 %");
  EXPECT_EQ(FormatValue(10'000, Unit::kTail), "99.99 %");
}

TEST(ToSvgTest, ShowsEveryLineWithItsNameAndBothAxesWithTheirUnits) {
  const std::string svg = ToSvg(TwoLines());
  EXPECT_EQ(Count(svg, "<polyline"), 2);
  EXPECT_EQ(Count(svg, "<circle"), 5);
  EXPECT_THAT(svg, AllOf(HasSubstr(">shm, adaptive<"), HasSubstr(">floor-ring<"), HasSubstr(">payload (log)<"),
                         HasSubstr(">round trip, median (log)<"), HasSubstr(">4 KiB<"), HasSubstr(">1 MiB<"),
                         HasSubstr(">10 µs<"), HasSubstr(">unary<")));
}

TEST(ToSvgTest, SaysWhereTheNumbersComeFrom) {
  EXPECT_THAT(ToSvg(TwoLines()),
              AllOf(HasSubstr(">shmrpc_bench --cases=unary<"), HasSubstr(">a machine; 2026-01-01; commit abc<")));
}

TEST(ToSvgTest, LongNotesAreBrokenIntoLines) {
  Chart chart = TwoLines();
  chart.notes = {""};
  for (int i = 0; i < 60; ++i) absl::StrAppend(&chart.notes[0], "word", i, " ");
  const std::string svg = ToSvg(chart);
  EXPECT_THAT(svg, AllOf(HasSubstr(">word0 "), HasSubstr("word59"), Not(HasSubstr(chart.notes[0]))));
}

TEST(ToSvgTest, ScalesAreLogarithmic) {
  const std::string svg = ToSvg({.series = {{.name = "a", .points = {{1, 10}, {2, 100}, {3, 1'000}, {4, 10'000}}}}});
  const std::vector<double> heights = MarkHeights(svg);
  ASSERT_EQ(heights.size(), 4);
  EXPECT_GT(heights[0], heights[1]);  // pixels count from the top
  EXPECT_NEAR(heights[0] - heights[1], heights[1] - heights[2], 0.2);
  EXPECT_NEAR(heights[1] - heights[2], heights[2] - heights[3], 0.2);
}

TEST(ToSvgTest, WhatHasNoLogarithmIsLeftOut) {
  const std::string svg = ToSvg({.series = {{.name = "a", .points = {{1, 0}, {2, 100}, {0, 5}}}}});
  EXPECT_EQ(Count(svg, "<circle"), 1);
  EXPECT_THAT(svg, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
}

TEST(ToSvgTest, NothingToDrawIsNoPicture) {
  EXPECT_EQ(ToSvg({.title = "empty"}), "");
  EXPECT_EQ(ToSvg({.title = "empty", .series = {{.name = "a"}}}), "");
}

TEST(ToSvgTest, NamesAreEscaped) {
  Chart chart = TwoLines();
  chart.series[0].name = "a<b & \"c\"";
  EXPECT_THAT(ToSvg(chart), AllOf(HasSubstr("a&lt;b &amp; &quot;c&quot;"), Not(HasSubstr("a<b"))));
}

}  // namespace
}  // namespace shmrpc::bench
