#ifndef SHMRPC_TESTS_FAULT_KILL_FIGURES_H_
#define SHMRPC_TESTS_FAULT_KILL_FIGURES_H_

// What the tests that kill processes count, and how they tell it.

#include <algorithm>
#include <fstream>
#include <iostream>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "process_state.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::conformance {

// What this process holds on behalf of its connections.
struct Holdings {
  int descriptors = 0;
  int mappings = 0;  // of memfds

  static Holdings Now() { return {CountOpenDescriptors(), CountMemfdMappings()}; }
  friend bool operator==(const Holdings& a, const Holdings& b) {
    return a.descriptors == b.descriptors && a.mappings == b.mappings;
  }
  friend std::ostream& operator<<(std::ostream& out, const Holdings& holdings) {
    return out << holdings.descriptors << " descriptors and " << holdings.mappings << " mappings";
  }
};

// What this process holds when the last connection that has ended is gone: nothing tells when that is, so it is the
// least of what is seen for a while.
inline Holdings LeastHoldings() {
  Holdings least = Holdings::Now();
  for (const SteadyTime end = SteadyTime::Now() + absl::Milliseconds(200); !end.HasPassed();) {
    const Holdings now = Holdings::Now();
    if (now.descriptors + now.mappings < least.descriptors + least.mappings) least = now;
  }
  return least;
}

// The memory of this process that is in RAM.
inline int64_t ResidentKib() {
  std::ifstream file("/proc/self/status");
  int64_t kib = -1;
  for (std::string line; std::getline(file, line);) {
    absl::string_view rest = line;
    if (absl::ConsumePrefix(&rest, "VmRSS:") && absl::ConsumeSuffix(&rest, " kB") && absl::SimpleAtoi(rest, &kib))
      break;
  }
  return kib;
}

// How long something took, many times.
class Durations {
 public:
  void Add(absl::Duration duration) { all_.push_back(std::max(duration, absl::ZeroDuration())); }
  size_t size() const { return all_.size(); }

  // With `name`, to the test's output and properties. Nothing is asserted: a machine that is busy takes its time.
  void Report(const std::string& name) {
    if (all_.empty()) return;
    std::sort(all_.begin(), all_.end());
    const size_t above = all_.end() - std::upper_bound(all_.begin(), all_.end(), absl::Milliseconds(100));
    Tell(name, "p50", At(0.5));
    Tell(name, "p99", At(0.99));
    Tell(name, "max", At(1));
    testing::Test::RecordProperty(absl::StrCat(name, "_above_100_ms"), static_cast<int>(above));
    std::cout << name << ": " << all_.size() << " times, median " << At(0.5) << ", 99 % within " << At(0.99)
              << ", longest " << At(1) << ", longer than 100 ms: " << above << std::endl;
  }

 private:
  absl::Duration At(double part) const {
    return all_[static_cast<size_t>(part * static_cast<double>(all_.size() - 1))];
  }
  static void Tell(const std::string& name, const char* which, absl::Duration duration) {
    testing::Test::RecordProperty(absl::StrCat(name, "_", which, "_us"),
                                  static_cast<int>(absl::ToInt64Microseconds(duration)));
  }

  std::vector<absl::Duration> all_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_KILL_FIGURES_H_
