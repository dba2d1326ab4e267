#include "shmrpc/steady_time.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace shmrpc {

SteadyTime SteadyTime::FromSystem(absl::Time time) {
  if (time == absl::InfiniteFuture()) return InfiniteFuture();
  if (time == absl::InfinitePast()) return InfinitePast();
  return Now() + (time - absl::Now());
}

absl::Time SteadyTime::ToSystem() const {
  if (*this == InfiniteFuture()) return absl::InfiniteFuture();
  if (*this == InfinitePast()) return absl::InfinitePast();
  return absl::Now() + (*this - Now());
}

absl::Duration SteadyTime::FiniteLeft() const { return std::max(absl::ZeroDuration(), *this - Now()); }

SteadyTime operator+(SteadyTime time, absl::Duration duration) {
  if (time == SteadyTime::InfiniteFuture() || time == SteadyTime::InfinitePast()) return time;
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(duration);  // the largest or smallest there is for longer ones
  if (nanoseconds == SteadyTime::kFuture) return SteadyTime::InfiniteFuture();
  if (nanoseconds == SteadyTime::kPast) return SteadyTime::InfinitePast();
  int64_t sum;
  if (__builtin_add_overflow(time.nanoseconds_, nanoseconds, &sum)) {
    return nanoseconds < 0 ? SteadyTime::InfinitePast() : SteadyTime::InfiniteFuture();
  }
  return SteadyTime(sum);
}

absl::Duration operator-(SteadyTime a, SteadyTime b) {
  if (a == b) return absl::ZeroDuration();
  if (a == SteadyTime::InfiniteFuture() || b == SteadyTime::InfinitePast()) return absl::InfiniteDuration();
  if (a == SteadyTime::InfinitePast() || b == SteadyTime::InfiniteFuture()) return -absl::InfiniteDuration();
  return absl::Nanoseconds(a.nanoseconds_) - absl::Nanoseconds(b.nanoseconds_);
}

}  // namespace shmrpc
