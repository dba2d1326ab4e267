#ifndef SHMRPC_TRANSPORTS_FRAMED_SPIN_POLICY_H_
#define SHMRPC_TRANSPORTS_FRAMED_SPIN_POLICY_H_

#include <chrono>
#include <string>

#include "absl/strings/string_view.h"
#include "shmrpc/options.h"

namespace shmrpc::framed {

using SteadyClock = std::chrono::steady_clock;

// Decides how long a thread looks for the peer's next frame before it goes to sleep.
//
// Waking up costs about as much as some microseconds of spinning on both sides, so spinning pays when the frame comes
// soon and wastes CPU time when it does not. In adaptive mode the budget follows what waiting turned out to be: when a
// wait, slept or not, was shorter than the largest budget, spinning that long would have paid, and the budget grows to
// twice that wait; when it was longer, the budget is halved. Calls once a second so cost next to no spinning after a
// few of them, and a burst brings it back with its second call.
//
// Not synchronised: guarded by whatever guards the link's receiver.
class SpinPolicy {
 public:
  static constexpr std::chrono::nanoseconds kSmallestBudget = std::chrono::microseconds(2);
  static constexpr std::chrono::nanoseconds kLargestBudget = std::chrono::microseconds(50);
  static constexpr std::chrono::nanoseconds kLatencyBudget = std::chrono::milliseconds(1);

  // `may_spin`: whether this side and the peer can run at the same time at all.
  SpinPolicy(WaitMode mode, bool may_spin);

  std::chrono::nanoseconds budget() const { return budget_; }

  // A wait of that length has ended with a frame.
  void OnWaited(std::chrono::nanoseconds wait);

 private:
  const bool adaptive_;
  std::chrono::nanoseconds budget_;
};

// The CPUs that the calling thread may run on, as a bit mask in bytes, least significant first: what hellos carry.
std::string AllowedCpus();

// Whether two threads, one allowed on `a` and one on `b`, can run at the same time: the masks together name two CPUs or
// more, and this process's control group grants it more than one CPU's time.
bool CanRunTogether(absl::string_view a, absl::string_view b);

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SPIN_POLICY_H_
