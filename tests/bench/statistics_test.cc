#include "tests/bench/statistics.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace shmrpc::bench {
namespace {

TEST(MedianTest, IsTheMiddleOfAnOddNumber) { EXPECT_DOUBLE_EQ(Median({9, 1, 5}), 5); }

TEST(MedianTest, IsTheMeanOfTheMiddleTwoOfAnEvenNumber) { EXPECT_DOUBLE_EQ(Median({9, 1, 5, 6}), 5.5); }

TEST(MedianTest, OneValueIsItsOwnMedian) { EXPECT_DOUBLE_EQ(Median({3.5}), 3.5); }

TEST(MedianRatioTest, ComparesRoundByRound) {
  // The machine was half as fast in the second round. The ratio of the medians would be 2.5.
  EXPECT_DOUBLE_EQ(MedianRatio({200, 400, 600}, {100, 200, 100}), 2);
}

TEST(LatencyHistogramTest, EmptyHasNoPercentiles) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0);
  EXPECT_EQ(histogram.Percentile(0.5), 0);
}

TEST(LatencyHistogramTest, SmallValuesAreExact) {
  LatencyHistogram histogram;
  for (int64_t value = 1; value <= 200; ++value) histogram.Add(value);
  EXPECT_EQ(histogram.count(), 200);
  EXPECT_EQ(histogram.Percentile(0), 1);
  EXPECT_EQ(histogram.Percentile(0.5), 100);
  EXPECT_EQ(histogram.Percentile(0.99), 198);
  EXPECT_EQ(histogram.Percentile(0.999), 200);
  EXPECT_EQ(histogram.Percentile(1), 200);
}

TEST(LatencyHistogramTest, EveryValueIsKeptToHalfAPercent) {
  for (int64_t value = 1; value < LatencyHistogram::kMaxNanos; value += value / 7 + 1) {
    LatencyHistogram histogram;
    histogram.Add(value);
    EXPECT_NEAR(static_cast<double>(histogram.Percentile(0.5)), static_cast<double>(value),
                static_cast<double>(value) * 0.005);
  }
}

TEST(LatencyHistogramTest, LargerValuesNeverLandInEarlierBuckets) {
  int64_t last = 0;
  for (int64_t value = 1; value < 1'000'000; value += 37) {
    LatencyHistogram histogram;
    histogram.Add(value);
    EXPECT_GE(histogram.Percentile(1), last) << value;
    last = histogram.Percentile(1);
  }
}

TEST(LatencyHistogramTest, ValuesOutOfRangeCountAsTheNearestInRange) {
  LatencyHistogram histogram;
  histogram.Add(-5);
  EXPECT_EQ(histogram.Percentile(1), 0);
  histogram.Add(INT64_MAX);
  EXPECT_NEAR(static_cast<double>(histogram.Percentile(1)), static_cast<double>(LatencyHistogram::kMaxNanos),
              static_cast<double>(LatencyHistogram::kMaxNanos) * 0.005);
  EXPECT_EQ(histogram.count(), 2);
}

TEST(LatencyHistogramTest, ArrivesInAnotherProcessAsItWas) {
  LatencyHistogram histogram, decoded;
  for (int64_t value = 1; value < 1'000'000; value += 999) histogram.Add(value);
  decoded.Add(7);  // is forgotten
  ASSERT_TRUE(decoded.Decode(histogram.Encode()));
  EXPECT_EQ(decoded.count(), histogram.count());
  for (const double fraction : {0.0, 0.1, 0.5, 0.9999, 1.0}) {
    EXPECT_EQ(decoded.Percentile(fraction), histogram.Percentile(fraction));
  }
  ASSERT_TRUE(decoded.Decode(LatencyHistogram().Encode()));
  EXPECT_EQ(decoded.count(), 0);
}

TEST(LatencyHistogramTest, DecodesNothingThatIsNotOne) {
  LatencyHistogram histogram;
  EXPECT_FALSE(histogram.Decode("1234567"));
  EXPECT_FALSE(histogram.Decode(std::string(8, '\xff')));
}

TEST(LatencyHistogramTest, MergingEqualsAddingToOne) {
  LatencyHistogram low, high, both;
  for (int64_t value = 1; value <= 5000; ++value) {
    (value <= 2000 ? low : high).Add(value * 10);
    both.Add(value * 10);
  }
  low.Merge(high);
  EXPECT_EQ(low.count(), both.count());
  for (const double fraction : {0.1, 0.5, 0.9, 0.999}) EXPECT_EQ(low.Percentile(fraction), both.Percentile(fraction));
}

}  // namespace
}  // namespace shmrpc::bench
