#include "shmrpc/steady_time.h"

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace shmrpc {
namespace {

TEST(SteadyTimeTest, ArithmeticEndsAtTheInfiniteEnds) {
  const SteadyTime now = SteadyTime::Now();
  const SteadyTime future = SteadyTime::InfiniteFuture();
  const SteadyTime past = SteadyTime::InfinitePast();
  EXPECT_EQ(now + absl::InfiniteDuration(), future);
  EXPECT_EQ(now - absl::InfiniteDuration(), past);
  EXPECT_EQ(now + absl::Hours(24 * 365 * 1000), future);
  EXPECT_EQ(now - absl::Hours(24 * 365 * 1000), past);
  EXPECT_EQ(future - absl::Seconds(1), future);
  EXPECT_EQ(past + absl::Seconds(1), past);
  EXPECT_EQ(future - now, absl::InfiniteDuration());
  EXPECT_EQ(now - future, -absl::InfiniteDuration());
  EXPECT_EQ(now - past, absl::InfiniteDuration());
  EXPECT_EQ(past - now, -absl::InfiniteDuration());
  EXPECT_EQ(future - future, absl::ZeroDuration());
  EXPECT_EQ((now + absl::Nanoseconds(7)) - now, absl::Nanoseconds(7));
  EXPECT_LT(past, now);
  EXPECT_LT(now, future);
  EXPECT_LT(now - absl::Nanoseconds(1), now);
}

TEST(SteadyTimeTest, TellsWhatIsLeft) {
  EXPECT_TRUE(SteadyTime::InfinitePast().HasPassed());
  EXPECT_TRUE(SteadyTime::Now().HasPassed());
  EXPECT_FALSE((SteadyTime::Now() + absl::Hours(1)).HasPassed());
  EXPECT_FALSE(SteadyTime::InfiniteFuture().HasPassed());
  EXPECT_EQ(SteadyTime::InfinitePast().Left(), absl::ZeroDuration());
  EXPECT_EQ((SteadyTime::Now() - absl::Seconds(1)).Left(), absl::ZeroDuration());
  EXPECT_EQ(SteadyTime::InfiniteFuture().Left(), absl::InfiniteDuration());
  const absl::Duration left = (SteadyTime::Now() + absl::Hours(1)).Left();
  EXPECT_LE(left, absl::Hours(1));
  EXPECT_GT(left, absl::Minutes(59));
}

TEST(SteadyTimeTest, ConvertsToTheSystemsClockAndBack) {
  EXPECT_EQ(SteadyTime::FromSystem(absl::InfiniteFuture()), SteadyTime::InfiniteFuture());
  EXPECT_EQ(SteadyTime::FromSystem(absl::InfinitePast()), SteadyTime::InfinitePast());
  EXPECT_EQ(SteadyTime::InfiniteFuture().ToSystem(), absl::InfiniteFuture());
  EXPECT_EQ(SteadyTime::InfinitePast().ToSystem(), absl::InfinitePast());
  const absl::Time time = absl::Now() + absl::Hours(1);
  const absl::Duration error = SteadyTime::FromSystem(time).ToSystem() - time;
  EXPECT_LT(absl::AbsDuration(error), absl::Minutes(1));
  EXPECT_GT(SteadyTime::FromSystem(time).Left(), absl::Minutes(59));
  EXPECT_TRUE(SteadyTime::FromSystem(absl::UnixEpoch()).HasPassed());
}

TEST(SteadyTimeTest, StdChronoGetsTheSameTimeButNoneBeforeTheClocksZero) {
  const SteadyTime now = SteadyTime::Now();
  EXPECT_EQ(SteadyTime::FromChrono(now.ToChrono()), now);
  EXPECT_EQ(SteadyTime::InfinitePast().ToChrono().time_since_epoch().count(), 0);
}

}  // namespace
}  // namespace shmrpc
