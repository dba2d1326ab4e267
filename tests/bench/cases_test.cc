#include "tests/bench/cases.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::bench {
namespace {

using ::testing::HasSubstr;

constexpr size_t kPayloadBytes = 100;

// A client whose server is a function, from the request's payload to the reply's.
class FakeClient final : public ClientSide {
 public:
  using Server = std::function<absl::StatusOr<std::string>(std::string)>;

  FakeClient(int slots, Server server)
      : server_(std::move(server)), requests_(slots, std::string(kPayloadBytes, '\0')), replies_(slots) {}

  absl::Status Connect(const std::string& address) override { return absl::OkStatus(); }
  absl::Span<char> request(int slot) override { return absl::MakeSpan(&requests_[slot][0], kPayloadBytes); }
  absl::string_view reply(int slot) const override { return replies_[slot]; }

  absl::Status Call(int slot) override {
    ++calls_;
    const absl::StatusOr<std::string> reply = server_(requests_[slot]);
    if (reply.ok()) replies_[slot] = *reply;
    return reply.status();
  }

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

  int64_t calls() const { return calls_; }
  size_t most_in_flight() const { return most_in_flight_; }

 private:
  const Server server_;
  std::vector<std::string> requests_;
  std::vector<std::string> replies_;
  std::vector<int> queue_;
  bool delivering_ = false;
  int64_t calls_ = 0;
  size_t most_in_flight_ = 0;
};

absl::StatusOr<std::string> Echo(std::string payload) { return payload; }

class CasesTest : public ::testing::TestWithParam<std::string> {
 protected:
  const CaseInfo& info() const { return *FindCase(GetParam()); }
  int slots() const { return info().pipelines ? 4 : 1; }

  absl::StatusOr<CaseResult> Run(FakeClient& client) {
    FillRequests(client, slots());
    return info().run(client, slots(), absl::Milliseconds(5));
  }
};

TEST_P(CasesTest, CountsEveryCall) {
  FakeClient client(slots(), Echo);
  const absl::StatusOr<CaseResult> result = Run(client);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(client.calls(), slots());
  EXPECT_EQ(result->latencies.count(), client.calls());
  EXPECT_GE(result->elapsed, absl::Milliseconds(5));
  if (info().pipelines) {
    EXPECT_EQ(client.most_in_flight(), static_cast<size_t>(slots()));
  }
}

TEST_P(CasesTest, AChangedByteEndsTheRun) {
  FakeClient client(slots(), [calls = 0](std::string payload) mutable -> absl::StatusOr<std::string> {
    if (++calls == 10) payload[77] ^= 1;
    return payload;
  });
  const absl::StatusOr<CaseResult> result = Run(client);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("byte 77"));
}

TEST_P(CasesTest, TheReplyToAnotherCallEndsTheRun) {
  FakeClient client(slots(), [last = std::string(kPayloadBytes, '\0')](std::string payload) mutable {
    std::swap(last, payload);
    return absl::StatusOr<std::string>(payload);
  });
  EXPECT_EQ(Run(client).status().code(), absl::StatusCode::kDataLoss);
}

TEST_P(CasesTest, AFurtherRunRepeatsNoCall) {
  std::set<std::string> requests;
  FakeClient client(slots(), [&](std::string payload) {
    EXPECT_TRUE(requests.insert(payload).second);
    return Echo(payload);
  });
  ASSERT_TRUE(Run(client).ok());
  ASSERT_TRUE(info().run(client, slots(), absl::Milliseconds(1)).ok());
  EXPECT_EQ(static_cast<int64_t>(requests.size()), client.calls());
}

TEST_P(CasesTest, AMissingByteEndsTheRun) {
  FakeClient client(slots(), [](std::string payload) { return Echo(payload.substr(1)); });
  const absl::StatusOr<CaseResult> result = Run(client);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("got 99 bytes back"));
}

TEST_P(CasesTest, AFailedCallEndsTheRunWithItsStatus) {
  FakeClient client(slots(), [calls = 0](std::string payload) mutable -> absl::StatusOr<std::string> {
    if (++calls == 10) return absl::UnavailableError("gone");
    return payload;
  });
  EXPECT_EQ(Run(client).status(), absl::UnavailableError("gone"));
}

INSTANTIATE_TEST_SUITE_P(AllCases, CasesTest, ::testing::Values("unary", "pipelined"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace shmrpc::bench
