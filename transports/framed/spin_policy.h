#ifndef SHMRPC_TRANSPORTS_FRAMED_SPIN_POLICY_H_
#define SHMRPC_TRANSPORTS_FRAMED_SPIN_POLICY_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

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
// Spinning may also be what keeps the frame from coming, because the peer needs this CPU. Where the peer is bound to
// says little of that: of two CPUs that both may run on, both may be needed by others. So it is tried: after spinning
// in vain twice in a row one wait does not spin, and if that is much shorter, the next 3, 7, 15 and so on do not
// either, with one that does between them. As soon as spinning succeeds, or sleeping at once is no better twice in
// a row, all waits spin again.
//
// A peer that has got a large message, or that gave one, needs time for it that grows with its size: a handler that
// copies a MiB is not back within the largest budget of any small call. The bytes that were moved since the last wait
// therefore buy an allowance on top of the budget, in proportion to what moving them has cost anyway.
//
// Not synchronised: guarded by whatever guards the link's receiver.
class SpinPolicy {
 public:
  static constexpr std::chrono::nanoseconds kSmallestBudget = std::chrono::microseconds(2);
  static constexpr std::chrono::nanoseconds kLargestBudget = std::chrono::microseconds(50);
  static constexpr std::chrono::nanoseconds kLatencyBudget = std::chrono::milliseconds(1);
  // A wait beyond this one is an idle connection's, and tells nothing of who needs the CPU.
  static constexpr std::chrono::nanoseconds kShortWait = std::chrono::microseconds(200);
  static constexpr int kMostSkipped = 255;
  // An allowance for large messages: about as long as two copies of them take. Beyond the largest one a wake-up is
  // little beside what the message costs.
  static constexpr uint64_t kBytesPerNanosecond = 8;
  static constexpr std::chrono::nanoseconds kLargestAllowance = std::chrono::milliseconds(1);

  static constexpr std::chrono::nanoseconds AllowanceFor(uint64_t large_message_bytes) {
    return std::min(kLargestAllowance,
                    std::chrono::nanoseconds(static_cast<int64_t>(large_message_bytes / kBytesPerNanosecond)));
  }

  // `may_spin`: whether this side and the peer can run at the same time at all.
  SpinPolicy(WaitMode mode, bool may_spin);

  // Whether any wait may spin.
  bool spins() const { return budget_.count() > 0; }

  // A wait begins: whether it is to spin, and then for budget().
  bool BeginWait() {
    if (skip_ == 0) return spins();
    --skip_;
    return false;
  }
  std::chrono::nanoseconds budget() const { return budget_; }

  // A wait has ended with a frame after that time: one that has spun, for budget() and the allowance, and maybe slept
  // then; or one that was not to spin.
  void OnWaited(std::chrono::nanoseconds wait, std::chrono::nanoseconds allowance = {});
  void OnSlept(std::chrono::nanoseconds wait);

 private:
  const bool adaptive_;
  std::chrono::nanoseconds budget_;
  int in_vain_ = 0;                            // so many waits in a row have spun for nothing
  std::chrono::nanoseconds latest_in_vain_{};  // how long the latest of them was
  int slept_in_vain_ = 0;                      // so many in a row have slept at once, and it was no better
  int skip_ = 0;                               // so many of the next waits do not spin
  int skipped_at_once_ = 0;                    // how many that were when it began
};

// The CPUs that the calling thread may run on, as a bit mask in bytes, least significant first: what hellos carry.
std::string AllowedCpus();

// Whether two threads, one allowed on `a` and one on `b`, can run at the same time: the masks together name two CPUs or
// more, and this process's control group grants it more than one CPU's time.
bool CanRunTogether(std::string_view a, std::string_view b);

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SPIN_POLICY_H_
