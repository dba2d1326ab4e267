#include "tests/bench/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

namespace shmrpc::bench {
namespace {

// Values below kSubBuckets have a bucket each. Above, `shift` low bits are dropped so that kSubBuckets to
// 2 * kSubBuckets - 1 remain, which number the buckets of that power of two.
constexpr int kSubBucketBits = 7;
constexpr size_t kSubBuckets = size_t{1} << kSubBucketBits;

int Shift(uint64_t value) { return std::max(0, static_cast<int>(std::bit_width(value)) - kSubBucketBits - 1); }

size_t BucketOf(uint64_t value) {
  const int shift = Shift(value);
  return shift * kSubBuckets + (value >> shift);
}

// The value in the middle of a bucket.
int64_t Middle(size_t bucket) {
  if (bucket < 2 * kSubBuckets) return static_cast<int64_t>(bucket);
  const int shift = static_cast<int>(bucket / kSubBuckets) - 1;
  const int64_t low = static_cast<int64_t>(bucket % kSubBuckets + kSubBuckets) << shift;
  return low + (int64_t{1} << shift) / 2;
}

}  // namespace

LatencyHistogram::LatencyHistogram() : buckets_(BucketOf(kMaxNanos) + 1) {}

void LatencyHistogram::Add(int64_t nanos) {
  ++buckets_[BucketOf(static_cast<uint64_t>(std::clamp(nanos, int64_t{0}, kMaxNanos)))];
  ++count_;
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
}

int64_t LatencyHistogram::Percentile(double fraction) const {
  const auto rank = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(fraction * static_cast<double>(count_))));
  int64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= rank) return Middle(i);
  }
  return 0;
}

std::string LatencyHistogram::Encode() const {
  std::string bytes;
  uint32_t entry[2];
  const auto used = buckets_.size() - static_cast<size_t>(std::count(buckets_.begin(), buckets_.end(), 0u));
  bytes.reserve(used * sizeof(entry));
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i] == 0) continue;
    entry[0] = static_cast<uint32_t>(i);
    entry[1] = buckets_[i];
    bytes.append(reinterpret_cast<const char*>(entry), sizeof(entry));
  }
  return bytes;
}

bool LatencyHistogram::Decode(absl::string_view bytes) {
  *this = LatencyHistogram();
  uint32_t entry[2];
  if (bytes.size() % sizeof(entry) != 0) return false;
  for (; !bytes.empty(); bytes.remove_prefix(sizeof(entry))) {
    std::memcpy(entry, bytes.data(), sizeof(entry));
    if (entry[0] >= buckets_.size()) return false;
    buckets_[entry[0]] = entry[1];
    count_ += entry[1];
  }
  return true;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double MedianRatio(const std::vector<double>& reference, const std::vector<double>& measured) {
  std::vector<double> ratios;
  ratios.reserve(measured.size());
  for (size_t i = 0; i < measured.size(); ++i) ratios.push_back(reference[i] / measured[i]);
  return Median(std::move(ratios));
}

}  // namespace shmrpc::bench
