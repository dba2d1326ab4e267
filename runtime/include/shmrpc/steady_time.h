#ifndef SHMRPC_STEADY_TIME_H_
#define SHMRPC_STEADY_TIME_H_

#include <time.h>

#include <algorithm>
#include <chrono>
#include <compare>
#include <cstdint>
#include <limits>

#include "absl/time/time.h"

namespace shmrpc {

// A point in time by the clock that nobody sets. The library waits, and counts time, by this clock alone: deadlines,
// back-off, pauses, keepalive and drains neither come early nor late when the system's clock is stepped. absl::Time,
// which is the system's clock, is for what programs say and ask (a context's deadline, Shutdown): it is converted once,
// on the way in or out.
//
// The clock is CLOCK_MONOTONIC: it stands still while the machine is suspended, and means nothing to another machine
// or after a restart. A value type; arithmetic that leaves its range, 292 years either way, ends at the infinite ends.
class SteadyTime {
 public:
  // InfinitePast.
  constexpr SteadyTime() = default;

  static constexpr SteadyTime InfinitePast() { return SteadyTime(); }
  static constexpr SteadyTime InfiniteFuture() { return SteadyTime(kFuture); }

  // Reads the clock.
  static SteadyTime Now() { return FromChrono(std::chrono::steady_clock::now()); }

  // When the system's clock will show `time`, unless it is stepped. Reads both clocks, but for the infinite times.
  static SteadyTime FromSystem(absl::Time time);
  // What the system's clock shows at this time, unless it is stepped: the inverse, but for the time that passes between
  // the two clocks' being read.
  absl::Time ToSystem() const;

  // For primitives that know std::chrono: the same clock. What comes out is not before the clock's zero, because not
  // all of them take that.
  static SteadyTime FromChrono(std::chrono::steady_clock::time_point time) {
    return SteadyTime(std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count());
  }
  std::chrono::steady_clock::time_point ToChrono() const {
    return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(std::max<int64_t>(nanoseconds_, 0)));
  }
  // The same for primitives of POSIX, with CLOCK_MONOTONIC.
  timespec ToTimespec() const {
    const int64_t since_zero = std::max<int64_t>(nanoseconds_, 0);
    return {.tv_sec = since_zero / 1'000'000'000, .tv_nsec = since_zero % 1'000'000'000};
  }

  // Whether this time has come. Reads the clock, but for InfiniteFuture.
  bool HasPassed() const { return *this != InfiniteFuture() && *this <= Now(); }
  // How long it is until then: 0 when it has come, InfiniteDuration until InfiniteFuture. Reads the clock, as above.
  absl::Duration Left() const { return *this == InfiniteFuture() ? absl::InfiniteDuration() : FiniteLeft(); }

  // The two that each call needs, without absl::Duration, whose arithmetic is costlier than the clock. How many
  // nanoseconds it is from `now` until then, 0 when it has come; both are finite. And the time that is so many
  // nanoseconds later than this, which is finite; at most InfiniteFuture.
  int64_t NanosecondsFrom(SteadyTime now) const {
    int64_t left;
    if (__builtin_sub_overflow(nanoseconds_, now.nanoseconds_, &left)) left = *this < now ? 0 : kFuture;
    return std::max<int64_t>(left, 0);
  }
  SteadyTime PlusNanoseconds(int64_t nanoseconds) const {
    int64_t sum;
    return SteadyTime(__builtin_add_overflow(nanoseconds_, nanoseconds, &sum) ? kFuture : sum);
  }

  friend SteadyTime operator+(SteadyTime time, absl::Duration duration);
  friend SteadyTime operator-(SteadyTime time, absl::Duration duration) { return time + -duration; }
  friend absl::Duration operator-(SteadyTime a, SteadyTime b);

  friend constexpr bool operator==(SteadyTime, SteadyTime) = default;
  friend constexpr auto operator<=>(SteadyTime, SteadyTime) = default;

 private:
  static constexpr int64_t kPast = std::numeric_limits<int64_t>::min();
  static constexpr int64_t kFuture = std::numeric_limits<int64_t>::max();

  explicit constexpr SteadyTime(int64_t nanoseconds) : nanoseconds_(nanoseconds) {}
  absl::Duration FiniteLeft() const;

  int64_t nanoseconds_ = kPast;
};

}  // namespace shmrpc

#endif  // SHMRPC_STEADY_TIME_H_
