// The parts of the soak that decide what is an error: they have to notice one.

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/soak/board.h"
#include "tests/soak/payload.h"
#include "tests/soak/run_table.h"
#include "tests/soak/verdict.h"
#include "tests/soak/watched.h"

namespace shmrpc::soak {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(SoakPayloadTest, EveryWrongByteIsNoticed) {
  for (const size_t size : {1, 7, 8, 9, 1000}) {
    std::string payload;
    FillPayload(3, Direction::kToClient, 2, size, &payload);
    EXPECT_EQ(payload.size(), size);
    EXPECT_TRUE(CheckPayload(3, Direction::kToClient, 2, size, payload).ok());
    for (size_t i = 0; i < size; ++i) {
      payload[i] ^= 1;
      EXPECT_FALSE(CheckPayload(3, Direction::kToClient, 2, size, payload).ok()) << i << " of " << size;
      payload[i] ^= 1;
    }
  }
}

TEST(SoakPayloadTest, ThoseOfOthersAreNoticed) {
  std::string payload;
  FillPayload(3, Direction::kToClient, 2, 100, &payload);
  EXPECT_FALSE(CheckPayload(4, Direction::kToClient, 2, 100, payload).ok());
  EXPECT_FALSE(CheckPayload(3, Direction::kToServer, 2, 100, payload).ok());
  EXPECT_FALSE(CheckPayload(3, Direction::kToClient, 3, 100, payload).ok());
  EXPECT_FALSE(CheckPayload(3, Direction::kToClient, 2, 99, payload).ok());
  EXPECT_FALSE(CheckPayload(3, Direction::kToClient, 2, 99, absl::string_view(payload).substr(1)).ok());
}

TEST(SoakRunTableTest, ASecondRunIsNoticed) {
  const auto table = std::make_unique<RunTable>();
  const uint64_t first = table->TakeId();
  const uint64_t second = table->TakeId();
  EXPECT_NE(first, second);
  EXPECT_FALSE(table->HasRun(second));
  EXPECT_TRUE(table->NoteRun(second));
  EXPECT_TRUE(table->HasRun(second));
  EXPECT_FALSE(table->HasRun(first));
  EXPECT_FALSE(table->NoteRun(second));
}

TEST(SoakRunTableTest, ItBeginsAgainWhenItIsFull) {
  const auto table = std::make_unique<RunTable>();
  const uint64_t first = table->TakeId();
  EXPECT_TRUE(table->NoteRun(first));
  uint64_t id = first;
  while (id < first + RunTable::kIds) id = table->TakeId();
  EXPECT_TRUE(table->NoteRun(id)) << "the place of the first one is free again";
}

// A call that ends on a channel to a server that is there.
class SoakVerdictTest : public ::testing::Test {
 protected:
  SoakVerdictTest() {
    ServerState& server = board_->servers[0];
    server.incarnation = 2;
    server.ready = 2;
    server.ready_nanos = NowNanos();
    server.doomed = 1;
    server.kills = 1;
    call_.plan.id = 7;
    call_.begun = SteadyTime::Now();
    call_.channel_created = call_.begun;
    call_.confirmed = {.incarnation = 2, .kills = 1};
  }

  bool IsExplained(const absl::Status& status) {
    return !Unexplained(call_, status, board_->servers[0], board_->clients[0]).has_value();
  }
  bool IsExplained(absl::StatusCode code) { return IsExplained(absl::Status(code, "")); }

  const std::unique_ptr<Board> board_ = std::make_unique<Board>();
  CallFacts call_;
};

TEST_F(SoakVerdictTest, WithoutAFaultOnlyOkIs) {
  EXPECT_TRUE(IsExplained(absl::OkStatus()));
  for (int code = 1; code <= 16; ++code) EXPECT_FALSE(IsExplained(static_cast<absl::StatusCode>(code))) << code;
}

TEST_F(SoakVerdictTest, WhatTheHandlerWasAskedForAndNothingElseIs) {
  call_.plan.end_code = absl::StatusCode::kAborted;
  EXPECT_TRUE(IsExplained(AskedFor(7, absl::StatusCode::kAborted)));
  EXPECT_FALSE(IsExplained(AskedFor(8, absl::StatusCode::kAborted)));
  EXPECT_FALSE(IsExplained(absl::OkStatus()));
}

TEST_F(SoakVerdictTest, ACancellationADeadlineAndALimitExplainTheirStatus) {
  call_.cancelled = true;
  EXPECT_TRUE(IsExplained(absl::StatusCode::kCancelled));
  EXPECT_FALSE(IsExplained(absl::StatusCode::kDeadlineExceeded));
  call_.cancelled = false;
  call_.deadline = SteadyTime::Now() + absl::Hours(1);
  EXPECT_FALSE(IsExplained(absl::StatusCode::kDeadlineExceeded));
  call_.deadline = SteadyTime::Now();
  EXPECT_TRUE(IsExplained(absl::StatusCode::kDeadlineExceeded));
  EXPECT_FALSE(IsExplained(absl::StatusCode::kUnavailable));
  call_.plan.refuse_size = true;
  EXPECT_TRUE(IsExplained(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE(IsExplained(absl::OkStatus()));
}

TEST_F(SoakVerdictTest, TheEndOfTheServerExplainsUnavailable) {
  board_->servers[0].doomed = 2;
  EXPECT_TRUE(IsExplained(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(IsExplained(absl::StatusCode::kInternal));
}

TEST_F(SoakVerdictTest, AnEarlierServersEndDoesAsLongAsTheChannelHasNotReachedTheNext) {
  call_.confirmed = {.incarnation = 1, .kills = 0};
  EXPECT_TRUE(IsExplained(absl::StatusCode::kUnavailable));
  call_.begun = call_.begun + kReconnectGuard + absl::Seconds(1);
  EXPECT_FALSE(IsExplained(absl::StatusCode::kUnavailable)) << "it should have";
}

TEST_F(SoakVerdictTest, AnOrderlyEndDoesNotForACallThatCanWait) {
  board_->servers[0].doomed = 2;
  call_.plan.wait_for_ready = true;
  EXPECT_FALSE(IsExplained(absl::StatusCode::kUnavailable));
  call_.plan.kind = Kind::kUpload;
  EXPECT_TRUE(IsExplained(absl::StatusCode::kUnavailable));
  call_.plan.kind = Kind::kUnary;
  board_->servers[0].kills = 2;
  EXPECT_TRUE(IsExplained(absl::StatusCode::kUnavailable));
}

TEST_F(SoakVerdictTest, ALongStopOfTheClientExplainsUnavailable) {
  board_->clients[0].long_stops = 1;
  EXPECT_TRUE(IsExplained(absl::StatusCode::kUnavailable));
  // The channel was reached before the stop, and the call begins after it.
  call_.long_stops = 1;
  EXPECT_TRUE(IsExplained(absl::StatusCode::kUnavailable));
  call_.confirmed.long_stops = 1;
  EXPECT_FALSE(IsExplained(absl::StatusCode::kUnavailable));
}

TEST(SoakWatchedTest, WhatIsHeldBeyondTheBaseLineIsNamed) {
  Watched watched = WatchedServer("server 0", /*whole_time=*/true, {.descriptors = 9, .threads = 4});
  watched.last = {.descriptors = 9 + watched.kept_descriptors, .threads = 4 + watched.kept_threads};
  EXPECT_THAT(NotGivenBack(watched, /*idle=*/true), IsEmpty());
  ++watched.last.descriptors;
  EXPECT_THAT(NotGivenBack(watched, /*idle=*/true), HasSubstr("descriptors"));
  --watched.last.descriptors;
  watched.last.shared_mappings = 1;
  EXPECT_THAT(NotGivenBack(watched, /*idle=*/true), HasSubstr("mappings"));
  watched.last.shared_mappings = 0;
  ++watched.last.threads;
  EXPECT_THAT(NotGivenBack(watched, /*idle=*/true), HasSubstr("threads"));
  --watched.last.threads;
  watched.heap_last = 100 << 20;
  EXPECT_THAT(NotGivenBack(watched, /*idle=*/true), HasSubstr("memory"));
  EXPECT_THAT(NotGivenBack(watched, /*idle=*/false), IsEmpty());
  watched.last.descriptors += 100;
  EXPECT_THAT(NotGivenBack(watched, /*idle=*/false), HasSubstr("descriptors"));
}

TEST(SoakWatchedTest, ResidentMemoryThatGrowsIsNoticed) {
  Watched watched = WatchedClient("client 0", /*whole_time=*/true, {});
  watched.trend.Add(0, 100 << 20);
  watched.trend.Add(2, 110 << 20);
  EXPECT_THAT(Grown(watched), IsEmpty());
  for (int i = 0; i < 9; ++i) watched.trend.Add(2, 500 << 20);
  EXPECT_THAT(Grown(watched), HasSubstr("client 0"));
}

}  // namespace
}  // namespace shmrpc::soak
