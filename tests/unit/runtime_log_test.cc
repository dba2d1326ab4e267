#include "runtime/src/log.h"

#include "gtest/gtest.h"
#include "shmrpc/options.h"

namespace shmrpc::internal {
namespace {

TEST(LogTest, WritesOneLineWhateverTheText) {
  ::testing::internal::CaptureStderr();
  LogWarning("two\nlines");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "shmrpc: two\\nlines\n");
}

TEST(LogTest, LimitsToOneLinePerSecondAndCountsTheRest) {
  constexpr int64_t kSecond = 1'000'000'000;
  LogLimiter limiter;
  uint64_t suppressed = 99;
  EXPECT_TRUE(limiter.Allow(5 * kSecond, &suppressed));
  EXPECT_EQ(suppressed, 0u);
  EXPECT_FALSE(limiter.Allow(5 * kSecond, &suppressed));
  EXPECT_FALSE(limiter.Allow(6 * kSecond - 1, &suppressed));
  EXPECT_TRUE(limiter.Allow(6 * kSecond, &suppressed));
  EXPECT_EQ(suppressed, 2u);
}

TEST(OptionsTest, NamesAndValuesFitTogether) {
  for (auto preference :
       {TransportPreference::kAuto, TransportPreference::kShm, TransportPreference::kTcp, TransportPreference::kUnix}) {
    EXPECT_EQ(ParseTransportPreference(TransportPreferenceName(preference)).value(), preference);
  }
  for (auto mode : {WaitMode::kAdaptive, WaitMode::kLatency, WaitMode::kEfficient}) {
    EXPECT_EQ(ParseWaitMode(WaitModeName(mode)).value(), mode);
  }
  EXPECT_EQ(ParseWaitMode("fast").status(),
            absl::InvalidArgumentError("unknown wait mode \"fast\"; it is one of: adaptive, latency, efficient"));
  EXPECT_EQ(ParseTransportPreference("").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shmrpc::internal
