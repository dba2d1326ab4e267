#include "tests/bench/payload.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::bench {
namespace {

using ::testing::HasSubstr;

constexpr size_t kPayloadBytes = 10'000;

std::string Payload(int slot, uint64_t number) {
  std::string payload = MakePayload(kPayloadBytes, slot);
  SetNumber(absl::MakeSpan(&payload[0], payload.size()), number);
  return payload;
}

const std::string& Expected() {
  static const auto* const expected = new std::string(MakePayload(kPayloadBytes, 0));
  return *expected;
}

TEST(PayloadTest, SlotsHaveDifferentPatterns) { EXPECT_NE(Payload(0, 7), Payload(1, 7)); }

TEST(PayloadTest, NumbersCountUp) {
  std::string payload = Payload(3, 41);
  SetNextNumber(absl::MakeSpan(&payload[0], payload.size()));
  EXPECT_EQ(NumberOf(payload), 42);
  EXPECT_EQ(payload, Payload(3, 42));
}

TEST(PayloadTest, TheSmallestIsANumber) {
  const std::string payload = MakePayload(kMinPayloadBytes, 2);
  EXPECT_EQ(NumberOf(payload), uint64_t{2} << 48);
  StreamCheck check(payload);
  EXPECT_TRUE(check.Check(payload).ok());
}

TEST(CheckReplyTest, FindsEveryChangedByte) {
  const std::string request = Payload(0, 1);
  EXPECT_TRUE(CheckReply(request, request).ok());
  for (size_t i = 0; i < request.size(); i += 331) {
    std::string reply = request;
    reply[i] ^= 0x10;
    const absl::Status status = CheckReply(request, reply);
    EXPECT_TRUE(absl::IsDataLoss(status)) << i;
    EXPECT_THAT(std::string(status.message()), HasSubstr("byte " + std::to_string(i) + " "));
  }
}

TEST(StreamCheckTest, TakesWhatCountsUp) {
  StreamCheck check(Expected());
  for (uint64_t number = 500; number < 1'000; ++number) {
    const absl::Status status = check.Check(Payload(0, number));
    ASSERT_TRUE(status.ok()) << status;
  }
}

TEST(StreamCheckTest, ALostOneIsNoticed) {
  StreamCheck check(Expected());
  ASSERT_TRUE(check.Check(Payload(0, 1)).ok());
  ASSERT_TRUE(check.Check(Payload(0, 2)).ok());
  EXPECT_TRUE(absl::IsDataLoss(check.Check(Payload(0, 4))));
}

TEST(StreamCheckTest, ARepeatedOneIsNoticed) {
  StreamCheck check(Expected());
  ASSERT_TRUE(check.Check(Payload(0, 1)).ok());
  EXPECT_TRUE(absl::IsDataLoss(check.Check(Payload(0, 1))));
}

TEST(StreamCheckTest, ASizeThatDiffersIsNoticed) {
  StreamCheck check(Expected());
  EXPECT_TRUE(absl::IsDataLoss(check.Check(Payload(0, 1).substr(1))));
}

TEST(StreamCheckTest, OneInSoManyIsComparedAsAWhole) {
  for (const size_t changed : {kMinPayloadBytes, kPayloadBytes / 2, kPayloadBytes - 1}) {
    StreamCheck check(Expected());
    uint64_t number = 0;
    for (; number < StreamCheck::kFullCheckEvery; ++number) ASSERT_TRUE(check.Check(Payload(0, number)).ok());
    std::string payload = Payload(0, number);
    payload[changed] ^= 1;
    const absl::Status status = check.Check(payload);
    EXPECT_TRUE(absl::IsDataLoss(status)) << changed;
    EXPECT_THAT(std::string(status.message()), HasSubstr("byte " + std::to_string(changed) + " "));
  }
}

// A byte that is always wrong is seen by one of the windows long before it has been seen everywhere.
TEST(StreamCheckTest, WindowsMoveOverTheWholePayload) {
  for (const size_t changed : {kMinPayloadBytes, size_t{4'321}, kPayloadBytes - 1}) {
    StreamCheck check(Expected());
    ASSERT_TRUE(check.Check(Payload(0, 0)).ok());
    bool noticed = false;
    for (uint64_t number = 1; number < 2'000 && !noticed; ++number) {
      std::string payload = Payload(0, number);
      // Whole comparisons shall not be what finds it.
      if (number % StreamCheck::kFullCheckEvery != 0) payload[changed] ^= 1;
      noticed = !check.Check(payload).ok();
    }
    EXPECT_TRUE(noticed) << changed;
  }
}

TEST(StreamCheckTest, SmallPayloadsAreComparedAsAWhole) {
  constexpr size_t kSmall = 40;
  const std::string expected = MakePayload(kSmall, 0);
  StreamCheck check(expected);
  std::string payload = MakePayload(kSmall, 0);
  ASSERT_TRUE(check.Check(payload).ok());
  SetNextNumber(absl::MakeSpan(&payload[0], payload.size()));
  payload[kSmall - 1] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(check.Check(payload)));
}

}  // namespace
}  // namespace shmrpc::bench
