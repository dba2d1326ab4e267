// Policies, throttling, and the decision whether there is to be another attempt.

#include "runtime/src/client_retry.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/stub.h"
#include "tests/unit/runtime_fake_server.h"

namespace shmrpc {
namespace {

using google::protobuf::StringValue;
using testing::FakeServer;
using ::testing::HasSubstr;

constexpr const char* kMethod = "/test.Retry/Method";
constexpr absl::StatusCode kUnavailable = absl::StatusCode::kUnavailable;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// With pauses that take no time, or that no test outlasts.
RetryPolicy Policy(int max_attempts, absl::StatusCode code, absl::Duration backoff = absl::Milliseconds(1)) {
  return {.max_attempts = max_attempts, .initial_backoff = backoff, .max_backoff = backoff, .codes = {code}};
}

// A decision for which throttling does not count.
std::optional<absl::Duration> NextAfter(CallAttempts& attempts, AttemptEnd end, const absl::Status& status,
                                        const RetryPolicy& policy) {
  RetryThrottle none(std::nullopt);
  return attempts.NextAfter(end, status, &policy, none);
}

TEST(RetryPolicyTest, TellsWhatIsWrong) {
  const struct {
    std::function<void(RetryPolicy*)> change;
    std::string why;
  } cases[] = {
      {[](RetryPolicy* policy) { *policy = RetryPolicy(); }, "max_attempts is 0"},
      {[](RetryPolicy* policy) { policy->max_attempts = 1; }, "max_attempts is 1"},
      {[](RetryPolicy* policy) { policy->initial_backoff = absl::ZeroDuration(); }, "initial_backoff is 0"},
      {[](RetryPolicy* policy) { policy->max_backoff = -absl::Seconds(1); }, "max_backoff -1s"},
      {[](RetryPolicy* policy) { policy->multiplier = 0; }, "multiplier is 0"},
      {[](RetryPolicy* policy) { policy->multiplier = std::nan(""); }, "multiplier is nan"},
      {[](RetryPolicy* policy) { policy->jitter = 1.5; }, "jitter is 1.5"},
      {[](RetryPolicy* policy) { policy->jitter = std::nan(""); }, "jitter is nan"},
      {[](RetryPolicy* policy) { policy->codes.clear(); }, "codes is empty"},
      {[](RetryPolicy* policy) { policy->codes.push_back(absl::StatusCode::kOk); }, "codes has 0"},
      {[](RetryPolicy* policy) { policy->codes.push_back(static_cast<absl::StatusCode>(17)); }, "codes has 17"},
  };
  for (const auto& each : cases) {
    RetryPolicy policy = Policy(2, kUnavailable);
    each.change(&policy);
    EXPECT_EQ(policy.Validate().code(), absl::StatusCode::kInvalidArgument) << each.why;
    EXPECT_THAT(MessageOf(policy.Validate()), HasSubstr(each.why));
    ChannelOptions options;
    options.retry_policy = policy;
    FakeServer server;
    const auto channel = server.NewChannel(options);
    EXPECT_THAT(MessageOf(channel->status()), HasSubstr("the option retry_policy: the option "));
    // That of a context is found out by the call.
    ClientContext context;
    context.set_retry_policy(policy);
    StringValue reply;
    const absl::Status status = UnaryCall(*server.NewChannel(), kMethod, &context, StringValue(), &reply);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr(each.why));
  }
  EXPECT_EQ(Policy(2, kUnavailable).Validate(), absl::OkStatus());
}

TEST(CallAttemptsTest, PausesGrowUpToTheLimit) {
  RetryPolicy policy = Policy(6, kUnavailable, absl::Milliseconds(10));
  policy.max_backoff = absl::Milliseconds(65);
  policy.jitter = 0;
  CallAttempts attempts;
  const absl::Status refused = absl::UnavailableError("refused");
  std::vector<absl::Duration> pauses;
  while (const auto pause = NextAfter(attempts, AttemptEnd::kNotConnected, refused, policy)) pauses.push_back(*pause);
  EXPECT_THAT(pauses, ::testing::ElementsAre(absl::Milliseconds(10), absl::Milliseconds(20), absl::Milliseconds(40),
                                             absl::Milliseconds(65), absl::Milliseconds(65)));
}

TEST(CallAttemptsTest, PausesAreSpreadByTheJitter) {
  RetryPolicy policy = Policy(1001, kUnavailable, absl::Seconds(100));
  policy.jitter = 0.5;
  CallAttempts attempts;
  absl::Duration shortest = absl::InfiniteDuration();
  absl::Duration longest = absl::ZeroDuration();
  for (int i = 0; i < 1000; ++i) {
    const auto pause = NextAfter(attempts, AttemptEnd::kNotConnected, absl::UnavailableError(""), policy);
    ASSERT_TRUE(pause.has_value());
    shortest = std::min(shortest, *pause);
    longest = std::max(longest, *pause);
  }
  EXPECT_GE(shortest, absl::Seconds(50));
  EXPECT_LT(shortest, absl::Seconds(60));
  EXPECT_LE(longest, absl::Seconds(150));
  EXPECT_GT(longest, absl::Seconds(140));
}

TEST(CallAttemptsTest, WhatMayHaveRunIsFinal) {
  const RetryPolicy policy = Policy(10, kUnavailable);
  CallAttempts attempts;
  EXPECT_EQ(NextAfter(attempts, AttemptEnd::kMayHaveRun, absl::UnavailableError(""), policy), std::nullopt);
  EXPECT_NE(NextAfter(attempts, AttemptEnd::kNotProcessed, absl::UnavailableError(""), policy), std::nullopt);
}

TEST(CallAttemptsTest, OnlyAMissingConnectionCanComeLater) {
  RetryPolicy policy = Policy(10, absl::StatusCode::kDeadlineExceeded);
  policy.codes.push_back(absl::StatusCode::kCancelled);
  CallAttempts attempts;
  EXPECT_EQ(NextAfter(attempts, AttemptEnd::kNotConnected, absl::DeadlineExceededError(""), policy), std::nullopt);
  EXPECT_EQ(NextAfter(attempts, AttemptEnd::kNotConnected, absl::CancelledError(""), policy), std::nullopt);
}

// ---- Throttling.

TEST(RetryThrottlingTest, TellsWhatIsWrong) {
  const struct {
    RetryThrottling throttling;
    std::string why;
  } cases[] = {
      {{.max_tokens = 0, .token_ratio = 1}, "max_tokens is 0"},
      {{.max_tokens = 1001, .token_ratio = 1}, "max_tokens is 1001"},
      {{.max_tokens = std::nan(""), .token_ratio = 1}, "max_tokens is nan"},
      {{.max_tokens = 10, .token_ratio = 0}, "token_ratio is 0"},
      {{.max_tokens = 10, .token_ratio = 0.0001}, "token_ratio is 0.0001"},
      {{.max_tokens = 10, .token_ratio = std::nan("")}, "token_ratio is nan"},
      {{.max_tokens = 10, .token_ratio = HUGE_VAL}, "token_ratio is inf"},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(each.throttling.Validate().code(), absl::StatusCode::kInvalidArgument) << each.why;
    EXPECT_THAT(MessageOf(each.throttling.Validate()), HasSubstr(each.why));
    ChannelOptions options;
    options.retry_throttling = each.throttling;
    FakeServer server;
    EXPECT_THAT(MessageOf(server.NewChannel(options)->status()), HasSubstr("the option retry_throttling: the option "));
  }
  EXPECT_EQ((RetryThrottling{.max_tokens = 0.5, .token_ratio = 5}.Validate()), absl::OkStatus());
}

class RetryThrottleTest : public ::testing::Test {
 protected:
  void Record(const absl::Status& status, int times) {
    for (int i = 0; i < times; ++i) throttle_.Record(policy_, status);
  }

  const RetryPolicy policy_ = Policy(1 << 30, kUnavailable);
  const absl::Status failure_ = absl::UnavailableError("no");
  RetryThrottle throttle_{RetryThrottling{.max_tokens = 10, .token_ratio = 0.25}};
};

TEST_F(RetryThrottleTest, HalfOfTheTokensAreForRetries) {
  EXPECT_TRUE(throttle_.AllowsRetry());
  Record(failure_, 4);
  EXPECT_TRUE(throttle_.AllowsRetry());
  Record(failure_, 1);
  EXPECT_FALSE(throttle_.AllowsRetry()) << "5 of 10 are left";
}

TEST_F(RetryThrottleTest, SuccessesBringThemBack) {
  Record(failure_, 6);
  Record(absl::OkStatus(), 4);
  EXPECT_FALSE(throttle_.AllowsRetry()) << "5";
  Record(absl::OkStatus(), 1);
  EXPECT_TRUE(throttle_.AllowsRetry()) << "5.25";
}

TEST_F(RetryThrottleTest, ThereAreNeverMoreThanAllNorLessThanNone) {
  Record(absl::OkStatus(), 1000);
  Record(failure_, 5);
  EXPECT_FALSE(throttle_.AllowsRetry());
  Record(failure_, 1000);
  Record(absl::OkStatus(), 20);
  EXPECT_FALSE(throttle_.AllowsRetry()) << "5";
  Record(absl::OkStatus(), 1);
  EXPECT_TRUE(throttle_.AllowsRetry());
}

TEST_F(RetryThrottleTest, OtherCodesDoNotCount) {
  Record(absl::InternalError("no"), 1000);
  EXPECT_TRUE(throttle_.AllowsRetry());
}

TEST_F(RetryThrottleTest, WithoutThrottlingEverythingIsAllowed) {
  RetryThrottle none(std::nullopt);
  for (int i = 0; i < 10'000; ++i) none.Record(policy_, failure_);
  EXPECT_TRUE(none.AllowsRetry());
}

TEST_F(RetryThrottleTest, APolicyStopsWhereTheTokensDo) {
  CallAttempts attempts;
  int retries = 0;
  while (attempts.NextAfter(AttemptEnd::kNotConnected, failure_, &policy_, throttle_)) ++retries;
  EXPECT_EQ(retries, 4) << "the fifth failure takes the sixth token";
}

TEST_F(RetryThrottleTest, TheLastAttemptCostsATokenToo) {
  const RetryPolicy two = Policy(2, kUnavailable);
  for (int i = 0; i < 2; ++i) {
    CallAttempts attempts;
    EXPECT_TRUE(attempts.NextAfter(AttemptEnd::kNotConnected, failure_, &two, throttle_));
    EXPECT_FALSE(attempts.NextAfter(AttemptEnd::kNotConnected, failure_, &two, throttle_));
  }
  CallAttempts attempts;
  EXPECT_FALSE(attempts.NextAfter(AttemptEnd::kNotConnected, failure_, &two, throttle_));
}

TEST_F(RetryThrottleTest, TransparentRetriesNeitherCountNorWait) {
  Record(failure_, 5);
  CallAttempts held_back;
  for (int i = 0; i < kMaxTransparentRetries; ++i) {
    EXPECT_EQ(held_back.NextAfter(AttemptEnd::kNotProcessed, failure_, &policy_, throttle_), absl::ZeroDuration());
  }
  EXPECT_EQ(held_back.NextAfter(AttemptEnd::kNotProcessed, failure_, &policy_, throttle_), std::nullopt);
  Record(absl::OkStatus(), 5);
  EXPECT_TRUE(throttle_.AllowsRetry()) << "only the last of those failures took a token";
}

TEST_F(RetryThrottleTest, CallsWithoutAPolicyDoNotCount) {
  for (int i = 0; i < 100; ++i) {
    CallAttempts attempts;
    EXPECT_EQ(attempts.NextAfter(AttemptEnd::kNotConnected, failure_, nullptr, throttle_), std::nullopt);
  }
  EXPECT_TRUE(throttle_.AllowsRetry());
}

}  // namespace
}  // namespace shmrpc
