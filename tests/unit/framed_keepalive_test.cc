#include "transports/framed/keepalive.h"

#include <chrono>
#include <optional>

#include "gtest/gtest.h"

namespace shmrpc::framed {
namespace {

constexpr absl::Duration kNever = absl::InfiniteDuration();

// A session's keepalive, with a clock that goes when it is told to.
class Ticker {
 public:
  explicit Ticker(Keepalive* keepalive) : keepalive_(keepalive) {}

  Keepalive::Verdict Tick(absl::Duration after, bool heard, bool expects) {
    now_ += absl::ToChronoNanoseconds(after);
    return keepalive_->Tick(now_, heard, expects);
  }

  // In silence. How long it takes until the peer counts as dead, at most `limit`.
  absl::Duration UntilDead(absl::Duration limit) {
    absl::Duration silent;
    while (silent < limit) {
      silent += keepalive_->period();
      if (Tick(keepalive_->period(), /*heard=*/false, /*expects=*/true).dead) break;
    }
    return silent;
  }

 private:
  Keepalive* const keepalive_;
  SteadyClock::time_point now_{std::chrono::hours(1)};
};

TEST(KeepaliveTest, TicksAsOftenAsTheMoreImpatientSideNeedsIt) {
  EXPECT_EQ(Keepalive(absl::Seconds(30), absl::Seconds(30)).period(), absl::Seconds(7.5));
  EXPECT_EQ(Keepalive(absl::Seconds(30), absl::Seconds(2)).period(), absl::Milliseconds(500));
  EXPECT_EQ(Keepalive(absl::Seconds(4), kNever).period(), absl::Seconds(1));
  EXPECT_EQ(Keepalive(kNever, absl::Seconds(4)).period(), absl::Seconds(1));
  EXPECT_FALSE(Keepalive(kNever, kNever).enabled());
}

TEST(KeepaliveTest, APeerThatTakesNoPartIsLeftAlone) {
  Keepalive keepalive(absl::Seconds(1), std::nullopt);
  EXPECT_FALSE(keepalive.enabled());
  Ticker ticker(&keepalive);
  for (int i = 0; i < 100; ++i) {
    const Keepalive::Verdict verdict = ticker.Tick(absl::Seconds(1), false, true);
    EXPECT_FALSE(verdict.beat || verdict.dead);
  }
}

TEST(KeepaliveTest, NobodyCanAskForBeatsWithoutPause) {
  EXPECT_EQ(Keepalive(absl::Seconds(30), absl::Nanoseconds(1)).period(), kMinKeepaliveTimeout / 4);
  EXPECT_EQ(Keepalive(absl::Seconds(30), absl::ZeroDuration()).period(), kMinKeepaliveTimeout / 4);
}

TEST(KeepaliveTest, APeerIsDeadAfterItsTimeInSilence) {
  Keepalive keepalive(absl::Seconds(8), absl::Seconds(8));
  Ticker ticker(&keepalive);
  const absl::Duration dead_after = ticker.UntilDead(absl::Seconds(100));
  EXPECT_GE(dead_after, absl::Seconds(8));
  EXPECT_LE(dead_after, absl::Seconds(12));
}

TEST(KeepaliveTest, ItCountsAsLongForAPeerThatIsMoreImpatient) {
  Keepalive keepalive(absl::Seconds(8), absl::Seconds(1));
  Ticker ticker(&keepalive);
  const absl::Duration dead_after = ticker.UntilDead(absl::Seconds(100));
  EXPECT_GE(dead_after, absl::Seconds(8));
  EXPECT_LE(dead_after, absl::Seconds(9));
}

TEST(KeepaliveTest, AnythingHeardBeginsAgain) {
  Keepalive keepalive(absl::Seconds(8), absl::Seconds(8));
  Ticker ticker(&keepalive);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(ticker.Tick(absl::Seconds(2), /*heard=*/i % 3 == 0, true).dead) << i;
}

TEST(KeepaliveTest, SilenceWithoutCallsDoesNotCount) {
  Keepalive keepalive(absl::Seconds(8), absl::Seconds(8));
  Ticker ticker(&keepalive);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(ticker.Tick(absl::Seconds(2), false, /*expects=*/i % 4 != 0).dead) << i;
  (void)ticker.Tick(absl::Seconds(2), false, false);
  // Nor does the time before the first tick that expects something, however long ago the last one was.
  EXPECT_FALSE(ticker.Tick(absl::Hours(1), false, true).dead);
  EXPECT_GE(ticker.UntilDead(absl::Seconds(100)), absl::Seconds(8));
}

TEST(KeepaliveTest, AProcessThatWasStoppedDoesNotBlameItsPeer) {
  Keepalive keepalive(absl::Seconds(8), absl::Seconds(8));
  Ticker ticker(&keepalive);
  (void)ticker.Tick(absl::Seconds(2), true, true);
  EXPECT_FALSE(ticker.Tick(absl::Hours(1), false, true).dead);
  EXPECT_GE(ticker.UntilDead(absl::Seconds(100)), absl::Seconds(6));
}

TEST(KeepaliveTest, BeatsComeFourTimesInThePeersPatience) {
  Keepalive keepalive(absl::Seconds(2), absl::Seconds(8));
  Ticker ticker(&keepalive);
  int beats = 0;
  for (absl::Duration time; time < absl::Seconds(80); time += keepalive.period()) {
    beats += ticker.Tick(keepalive.period() * (beats % 2 == 0 ? 1.01 : 0.99), true, true).beat;
  }
  EXPECT_GE(beats, 40);
  EXPECT_LE(beats, 41);
}

TEST(KeepaliveTest, CountsFramesFromOneLookToTheNext) {
  Keepalive keepalive(absl::Seconds(8), absl::Seconds(8));
  EXPECT_FALSE(keepalive.TakeHeard());
  keepalive.Heard();
  keepalive.Heard();
  EXPECT_TRUE(keepalive.TakeHeard());
  EXPECT_FALSE(keepalive.TakeHeard());
}

}  // namespace
}  // namespace shmrpc::framed
