#include "transports/framed/spin_policy.h"

#include <sched.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"

namespace shmrpc::framed {
namespace {

// False when the control group limits this process to at most one CPU's worth of time (cgroup v2, cpu.max: "quota
// period", or "max period"). Spinning would then burn what the peer or the handler needs.
bool QuotaAllowsSpinning() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota, period;
  if (!(file >> quota >> period)) return true;
  double quota_us, period_us;
  if (!absl::SimpleAtod(quota, &quota_us) || !absl::SimpleAtod(period, &period_us)) return true;
  return quota_us > period_us;
}

}  // namespace

SpinPolicy::SpinPolicy(WaitMode mode, bool may_spin)
    : adaptive_(mode == WaitMode::kAdaptive && may_spin),
      budget_(!may_spin || mode == WaitMode::kEfficient ? std::chrono::nanoseconds(0)
              : mode == WaitMode::kLatency              ? kLatencyBudget
                                                        : kLargestBudget) {}

void SpinPolicy::OnWaited(std::chrono::nanoseconds wait, std::chrono::nanoseconds allowance) {
  if (!adaptive_) return;
  // What the large messages account for says nothing of the waits that come after small ones.
  const std::chrono::nanoseconds beyond = std::max(wait - allowance, std::chrono::nanoseconds(0));
  if (beyond <= budget_) {
    in_vain_ = 0;
    skipped_at_once_ = 0;
  } else if (beyond <= kShortWait) {
    latest_in_vain_ = wait;
    if (++in_vain_ >= 2) {
      skipped_at_once_ = std::min(2 * skipped_at_once_ + 1, kMostSkipped);
      skip_ = skipped_at_once_;
    }
  }
  const auto wanted = beyond <= kLargestBudget ? std::max(budget_, 2 * beyond) : budget_ / 2;
  budget_ = std::clamp(wanted, kSmallestBudget, kLargestBudget);
}

void SpinPolicy::OnSlept(std::chrono::nanoseconds wait) {
  if (wait <= latest_in_vain_ / 2) {
    slept_in_vain_ = 0;
    return;
  }
  // One may be the peer's own trial of spinning.
  if (skipped_at_once_ > 1 && ++slept_in_vain_ < 2) return;
  slept_in_vain_ = 0;
  in_vain_ = 0;
  skip_ = 0;
  skipped_at_once_ = 0;
}

std::string AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return std::string();
  std::string mask;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    if (mask.size() <= cpu / 8) mask.resize(cpu / 8 + 1);
    mask[cpu / 8] = static_cast<char>(static_cast<unsigned char>(mask[cpu / 8]) | (1u << (cpu % 8)));
  }
  return mask;
}

bool CanRunTogether(std::string_view a, std::string_view b) {
  int cpus = 0;
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const unsigned in_a = i < a.size() ? static_cast<unsigned char>(a[i]) : 0;
    const unsigned in_b = i < b.size() ? static_cast<unsigned char>(b[i]) : 0;
    cpus += std::popcount(in_a | in_b);
  }
  static const bool quota_allows = QuotaAllowsSpinning();
  return cpus >= 2 && quota_allows;
}

}  // namespace shmrpc::framed
