#include "tests/bench/cases.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/mutex.h"
#include "tests/bench/payload.h"

namespace shmrpc::bench {
namespace {

using ::testing::HasSubstr;

constexpr size_t kPayloadBytes = 100;

// A client whose server is a function, from the request's payload to the reply's. An upload's server takes what the
// function returns and checks it as the real ones do; a download's sends what the function makes of each payload.
class FakeClient final : public ClientSide {
 public:
  using Server = std::function<absl::StatusOr<std::string>(std::string)>;

  FakeClient(int slots, Server server)
      : server_(std::move(server)), requests_(slots, std::string(kPayloadBytes, '\0')), replies_(slots) {}

  absl::Status Connect(const std::string& address) override { return absl::OkStatus(); }
  absl::Span<char> request(int slot) override { return absl::MakeSpan(&requests_[slot][0], kPayloadBytes); }
  absl::string_view reply(int slot) const override { return replies_[slot]; }

  absl::Status Call(int slot) override { return Serve(requests_[slot], &replies_[slot]); }

  // A queue makes calls of all slots overlap and keeps the stack flat.
  void Start(int slot, Observer* observer) override {
    queue_.push_back(slot);
    most_in_flight_ = std::max(most_in_flight_, queue_.size());
    if (delivering_ || queue_.size() < requests_.size()) return;
    delivering_ = true;
    while (!queue_.empty()) {
      const int next = queue_.front();
      queue_.erase(queue_.begin());
      observer->OnDone(next, Call(next));
    }
    delivering_ = false;
  }

  absl::Status OpenStream(StreamKind kind) override {
    EXPECT_EQ(open_streams_++, 0);
    kind_ = kind;
    source_ = requests_[0];
    check_.emplace(expected_);
    return absl::OkStatus();
  }

  absl::Status Write() override {
    EXPECT_EQ(open_streams_, 1);
    if (kind_ == StreamKind::kPingPong) return Call(0);
    EXPECT_EQ(kind_, StreamKind::kUpload);
    std::string taken;
    absl::Status status = Serve(requests_[0], &taken);
    if (status.ok()) status = check_->Check(taken);
    return status;
  }

  absl::Status Read() override {
    EXPECT_EQ(open_streams_, 1);
    if (kind_ == StreamKind::kPingPong) return absl::OkStatus();
    EXPECT_EQ(kind_, StreamKind::kDownload);
    SetNextNumber(absl::MakeSpan(&source_[0], source_.size()));
    return Serve(source_, &replies_[0]);
  }

  absl::Status CloseStream() override {
    EXPECT_EQ(open_streams_--, 1);
    return absl::OkStatus();
  }

  absl::Status Sleep(absl::Duration duration) override {
    ++sleeps_;
    absl::SleepFor(duration);
    return sleep_status_;
  }
  void set_sleep_status(absl::Status status) { sleep_status_ = std::move(status); }

  int64_t calls() const { return calls_; }
  int sleeps() const { return sleeps_; }
  int open_streams() const { return open_streams_; }
  size_t most_in_flight() const { return most_in_flight_; }

 private:
  absl::Status Serve(const std::string& request, std::string* reply) {
    MutexLock lock(&mutex_);
    ++calls_;
    const absl::StatusOr<std::string> answer = server_(request);
    if (answer.ok()) *reply = *answer;
    return answer.status();
  }

  Mutex mutex_;
  const Server server_;
  std::vector<std::string> requests_;
  std::vector<std::string> replies_;
  std::vector<int> queue_;
  bool delivering_ = false;
  std::atomic<int64_t> calls_ = 0;
  std::atomic<int> sleeps_ = 0;
  absl::Status sleep_status_;
  size_t most_in_flight_ = 0;
  int open_streams_ = 0;
  StreamKind kind_ = StreamKind::kPingPong;
  std::string source_;
  const std::string expected_ = MakePayload(kPayloadBytes, /*slot=*/0);
  std::optional<StreamCheck> check_;
};

absl::StatusOr<std::string> Echo(std::string payload) { return payload; }

class CasesTest : public ::testing::TestWithParam<std::string> {
 protected:
  const CaseInfo& info() const { return *FindCase(GetParam()); }

  // Calls that begin soon and one after the other.
  LoadShape shape() const {
    LoadShape shape{.amount = 4, .sleep = absl::Milliseconds(1), .pause = absl::Milliseconds(1)};
    if (info().axis == Axis::kRate) shape.amount = 10'000;
    if (info().axis == Axis::kBurst) shape.amount = 20;
    return shape;
  }
  int slots() const { return info().Slots(shape().amount); }

  absl::StatusOr<CaseResult> Run(FakeClient& client) {
    FillRequests(client, slots());
    return info().run(client, shape(), absl::Milliseconds(5));
  }
  // For as long as it takes until every slot has seen an error; the time is only a guard against hanging.
  absl::StatusOr<CaseResult> RunUntilError(FakeClient& client) {
    FillRequests(client, slots());
    return info().run(client, shape(), absl::Minutes(1));
  }
};

TEST_P(CasesTest, CountsEveryCall) {
  FakeClient client(slots(), Echo);
  const absl::StatusOr<CaseResult> result = Run(client);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(client.calls(), slots());
  // The first message of a download tells that the stream is there and does not count.
  EXPECT_EQ(result->latencies.count(), client.calls() - (GetParam() == "bulk-down" ? 1 : 0));
  EXPECT_GE(result->elapsed, absl::Milliseconds(5));
  EXPECT_EQ(client.open_streams(), 0);
  if (info().axis == Axis::kConcurrency) {
    EXPECT_EQ(client.most_in_flight(), static_cast<size_t>(slots()));
  }
}

TEST_P(CasesTest, ARunWithoutTimeMakesACallAllTheSame) {
  FakeClient client(slots(), Echo);
  FillRequests(client, slots());
  const absl::StatusOr<CaseResult> result = info().run(client, shape(), absl::ZeroDuration());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(result->latencies.count(), 1);
}

TEST_P(CasesTest, AChangedByteEndsTheRun) {
  FakeClient client(slots(), [calls = 0](std::string payload) mutable -> absl::StatusOr<std::string> {
    if (++calls >= 10) payload[77] ^= 1;
    return payload;
  });
  const absl::StatusOr<CaseResult> result = RunUntilError(client);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("byte 77"));
}

TEST_P(CasesTest, TheReplyToAnotherCallEndsTheRun) {
  FakeClient client(slots(), [calls = 0, last = std::string(kPayloadBytes, '\0')](std::string payload) mutable {
    if (++calls > 1) std::swap(last, payload);
    return absl::StatusOr<std::string>(payload);
  });
  EXPECT_EQ(RunUntilError(client).status().code(), absl::StatusCode::kDataLoss);
}

TEST_P(CasesTest, AFurtherRunRepeatsNoCall) {
  std::set<std::string> requests;
  FakeClient client(slots(), [&](std::string payload) {
    EXPECT_TRUE(requests.insert(payload).second);
    return Echo(payload);
  });
  ASSERT_TRUE(Run(client).ok());
  ASSERT_TRUE(info().run(client, shape(), absl::Milliseconds(1)).ok());
  EXPECT_EQ(static_cast<int64_t>(requests.size()), client.calls());
}

TEST_P(CasesTest, AMissingByteEndsTheRun) {
  FakeClient client(slots(), [](std::string payload) { return Echo(payload.substr(1)); });
  const absl::StatusOr<CaseResult> result = Run(client);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("99 bytes"));
}

TEST_P(CasesTest, AFailedCallEndsTheRunWithItsStatus) {
  FakeClient client(slots(), [calls = 0](std::string payload) mutable -> absl::StatusOr<std::string> {
    if (++calls >= 10) return absl::UnavailableError("gone");
    return payload;
  });
  EXPECT_EQ(RunUntilError(client).status(), absl::UnavailableError("gone"));
}

INSTANTIATE_TEST_SUITE_P(AllCases, CasesTest,
                         ::testing::Values("unary", "pipelined", "threads", "clients", "idle", "slow-handler", "stream",
                                           "bulk", "bulk-down", "paced", "bursts"),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param, {{"-", "_"}});
                         });

TEST(AllCasesTest, AllAreTestedAbove) { EXPECT_EQ(AllCases().size(), 11); }

TEST(SlowHandlerTest, SlowCallsGoOnBesideTheFastOnes) {
  FakeClient client(1, Echo);
  FillRequests(client, 1);
  const LoadShape shape{.amount = 3, .sleep = absl::Milliseconds(1)};
  ASSERT_TRUE(FindCase("slow-handler")->run(client, shape, absl::Milliseconds(20)).ok());
  EXPECT_GE(client.sleeps(), 3);
}

TEST(SlowHandlerTest, ASlowCallThatFailsEndsTheRunWithItsStatus) {
  FakeClient client(1, Echo);
  client.set_sleep_status(absl::UnavailableError("gone"));
  FillRequests(client, 1);
  EXPECT_EQ(FindCase("slow-handler")->run(client, LoadShape(), absl::Milliseconds(1)).status(),
            absl::UnavailableError("gone"));
}

TEST(PacedTest, MakesAsManyCallsAsTheRateSays) {
  FakeClient client(1, Echo);
  FillRequests(client, 1);
  const absl::StatusOr<CaseResult> result = FindCase("paced")->run(client, {.amount = 100}, absl::Milliseconds(50));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(client.calls(), 5);
}

TEST(PacedTest, ACallThatComesLateBecauseOfTheOneBeforeCountsFromWhenItWasDue) {
  // The first call takes as long as the whole run: all others are late when they begin.
  FakeClient client(1, [calls = 0](std::string payload) mutable {
    if (++calls == 1) absl::SleepFor(absl::Milliseconds(100));
    return Echo(payload);
  });
  FillRequests(client, 1);
  const absl::StatusOr<CaseResult> result = FindCase("paced")->run(client, {.amount = 100}, absl::Milliseconds(100));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(client.calls(), 10);
  EXPECT_GE(result->latencies.Percentile(0.5), 40'000'000);  // the sixth was due after 50 ms
}

TEST(BurstsTest, OnlyWholeBursts) {
  FakeClient client(1, Echo);
  FillRequests(client, 1);
  ASSERT_TRUE(
      FindCase("bursts")->run(client, {.amount = 7, .pause = absl::Milliseconds(1)}, absl::Milliseconds(5)).ok());
  EXPECT_EQ(client.calls() % 7, 0);
}

}  // namespace
}  // namespace shmrpc::bench
