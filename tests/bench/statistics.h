#ifndef SHMRPC_TESTS_BENCH_STATISTICS_H_
#define SHMRPC_TESTS_BENCH_STATISTICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace shmrpc::bench {

// How often which latency was seen. Each power of two is divided into 128 buckets of equal width, so a percentile is
// at most 0.4 % off. Adding a sample touches one word and never allocates, so that recording does not disturb what is
// measured. Not thread-safe.
class LatencyHistogram {
 public:
  // Longer latencies count as this one: 2^40 ns, about 18 minutes.
  static constexpr int64_t kMaxNanos = (int64_t{1} << 40) - 1;

  LatencyHistogram();

  void Add(int64_t nanos);
  void Merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }

  // The smallest latency that at least `fraction` (0 to 1) of the samples do not exceed, up to the width of a bucket;
  // 0 when there are no samples.
  int64_t Percentile(double fraction) const;

  // For another process on this host; only the buckets that are used take room.
  std::string Encode() const;
  // False, and an unspecified value, when `bytes` did not come from Encode.
  bool Decode(absl::string_view bytes);

 private:
  std::vector<uint32_t> buckets_;
  int64_t count_ = 0;
};

// The middle value, or the mean of the two in the middle. `values` is not empty.
double Median(std::vector<double> values);

// The median of reference[i] / measured[i]: how many times as fast as the reference something is, when both took turns
// in round i. Both have the same length, which is not 0.
double MedianRatio(const std::vector<double>& reference, const std::vector<double>& measured);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_STATISTICS_H_
