// The health service, seen by clients that are fakes. The request is a StringValue: on the wire the two are the same.

#include "shmrpc/health.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/src/health_service.h"
#include "shmrpc/health.pb.h"
#include "tests/unit/runtime_fake_server_call.h"

namespace shmrpc {
namespace {

using health::HealthCheckResponse;
using ::testing::ElementsAre;
using testing::FakeServerCall;
using ::testing::HasSubstr;
using testing::KindsService;
using testing::ServerUnderTest;
using testing::StringValue;
using testing::Text;

constexpr const char* kCheck = "/grpc.health.v1.Health/Check";
constexpr const char* kWatch = "/grpc.health.v1.Health/Watch";
constexpr const char* kKinds = "test.Kinds";

constexpr auto kServing = HealthCheckResponse::SERVING;
constexpr auto kNotServing = HealthCheckResponse::NOT_SERVING;
constexpr auto kServiceUnknown = HealthCheckResponse::SERVICE_UNKNOWN;

class HealthTest : public ::testing::Test {
 protected:
  using Statuses = std::vector<HealthCheckResponse::ServingStatus>;

  // What has been sent on `call`, once there are `count` messages.
  static Statuses WaitForSent(FakeServerCall& call, size_t count) {
    call.WaitForSent(count);
    Statuses statuses;
    for (const std::string& bytes : call.sent_bytes()) {
      HealthCheckResponse response;
      EXPECT_TRUE(response.ParseFromString(bytes));
      statuses.push_back(response.status());
    }
    return statuses;
  }

  absl::Status Check(const std::string& service, Statuses* statuses) {
    const auto call = server_.Call(kCheck, service);
    absl::Status status = call->WaitForStatus();
    *statuses = WaitForSent(*call, 0);
    return status;
  }
  HealthCheckResponse::ServingStatus Check(const std::string& service) {
    Statuses statuses;
    EXPECT_EQ(Check(service, &statuses), absl::OkStatus());
    return statuses.size() == 1 ? statuses[0] : HealthCheckResponse::UNKNOWN;
  }

  HealthService& health() { return *server_.server().health(); }

  KindsService service_{
      [](ServerContext*, const StringValue*, StringValue*, ServerStream*) { return absl::OkStatus(); }};
  ServerUnderTest server_{&service_, [](ServerBuilder* builder) { builder->SetMaxConcurrentCalls(1); }};
};

TEST_F(HealthTest, CheckTellsTheStatus) {
  EXPECT_EQ(Check(""), kServing);
  EXPECT_EQ(Check(kKinds), kServing);
  health().SetServingStatus(kKinds, false);
  EXPECT_EQ(Check(""), kServing);
  EXPECT_EQ(Check(kKinds), kNotServing);
  health().SetAll(false);
  EXPECT_EQ(Check(""), kNotServing);
  health().SetAll(true);
  EXPECT_EQ(Check(kKinds), kServing);
}

TEST_F(HealthTest, CheckDoesNotKnowEveryName) {
  Statuses statuses;
  const absl::Status status = Check("not\n.me", &statuses);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not\\n.me"));
  EXPECT_THAT(statuses, ElementsAre());
  health().SetAll(false);
  EXPECT_EQ(Check("other", &statuses).code(), absl::StatusCode::kNotFound);
  health().SetServingStatus("other", true);
  EXPECT_EQ(Check("other"), kServing);
}

TEST_F(HealthTest, WatchTellsChanges) {
  const auto call = server_.Call(kWatch, kKinds);
  EXPECT_THAT(WaitForSent(*call, 1), ElementsAre(kServing));
  health().SetServingStatus("", false);
  health().SetServingStatus(kKinds, true);  // as it is
  health().SetServingStatus(kKinds, false);
  EXPECT_THAT(WaitForSent(*call, 2), ElementsAre(kServing, kNotServing));
  health().SetAll(true);
  EXPECT_THAT(WaitForSent(*call, 3), ElementsAre(kServing, kNotServing, kServing));
  call->Cancel();
  EXPECT_EQ(call->WaitForStatus().code(), absl::StatusCode::kUnavailable);
  health().SetAll(false);
  EXPECT_EQ(call->sent().size(), 3u);
}

TEST_F(HealthTest, WatchWaitsForANameToBecomeKnown) {
  const auto call = server_.Call(kWatch, "later");
  const auto other = server_.Call(kWatch, "never");
  EXPECT_THAT(WaitForSent(*call, 1), ElementsAre(kServiceUnknown));
  EXPECT_THAT(WaitForSent(*other, 1), ElementsAre(kServiceUnknown));
  health().SetAll(false);
  health().SetServingStatus("later", true);
  EXPECT_THAT(WaitForSent(*call, 2), ElementsAre(kServiceUnknown, kServing));
  EXPECT_EQ(other->sent().size(), 1u);
  call->Cancel();
  other->Cancel();
  EXPECT_FALSE(call->WaitForStatus().ok());
  EXPECT_FALSE(other->WaitForStatus().ok());
  Statuses statuses;
  EXPECT_EQ(Check("later"), kServing);
  EXPECT_EQ(Check("never", &statuses).code(), absl::StatusCode::kNotFound);
}

TEST_F(HealthTest, NamesThatNoServiceHasAreNotKept) {
  const std::string longest(internal::ServedHealthService::kMaxNameBytes, 'x');
  const auto watch = server_.Call(kWatch, longest);
  EXPECT_THAT(WaitForSent(*watch, 1), ElementsAre(kServiceUnknown));
  watch->Cancel();
  for (const char* method : {kCheck, kWatch}) {
    const auto call = server_.Call(method, longest + "x");
    const absl::Status status = call->WaitForStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_LT(status.message().size(), 512u) << "it repeats what it was asked for";
    EXPECT_TRUE(call->sent().empty());
  }
}

TEST_F(HealthTest, AClientHasSoManyWatchesAndNoMore) {
  std::vector<decltype(server_.Call(kWatch, ""))> calls;
  for (int i = 0; i < internal::ServedHealthService::kMaxWatchesOfPeer; ++i) calls.push_back(server_.Call(kWatch, ""));
  for (const auto& call : calls) EXPECT_THAT(WaitForSent(*call, 1), ElementsAre(kServing));
  const auto one_more = server_.Call(kWatch, "");
  EXPECT_EQ(one_more->WaitForStatus().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Check(""), kServing);
  calls[0]->Cancel();
  EXPECT_FALSE(calls[0]->WaitForStatus().ok());
  const auto next = server_.Call(kWatch, "");
  EXPECT_THAT(WaitForSent(*next, 1), ElementsAre(kServing));
  next->Cancel();
  for (const auto& call : calls) call->Cancel();
}

TEST_F(HealthTest, ASlowClientGetsTheLatest) {
  FakeServerCall::Options options;
  options.method = kWatch;
  options.request = "";
  options.credits = 1;
  const auto call = server_.Call(std::move(options));
  EXPECT_THAT(WaitForSent(*call, 1), ElementsAre(kServing));
  health().SetAll(false);
  call->WaitForSenderToWait();
  for (int i = 0; i < 10; ++i) {
    health().SetAll(true);
    health().SetAll(false);
  }
  health().SetAll(true);
  call->Grant(100);
  EXPECT_THAT(WaitForSent(*call, 3), ElementsAre(kServing, kNotServing, kServing));
  call->Cancel();
  EXPECT_FALSE(call->WaitForStatus().ok());
}

TEST_F(HealthTest, CancellingEndsAWatchThatWaitsForItsClient) {
  FakeServerCall::Options options;
  options.method = kWatch;
  options.request = "";
  options.credits = 0;
  const auto call = server_.Call(std::move(options));
  call->WaitForSenderToWait();
  call->Cancel();
  EXPECT_FALSE(call->WaitForStatus().ok());
}

TEST_F(HealthTest, ShutdownEndsWatches) {
  const auto known = server_.Call(kWatch, kKinds);
  const auto unknown = server_.Call(kWatch, "unknown");
  WaitForSent(*known, 1);
  WaitForSent(*unknown, 1);
  server_.server().Shutdown(absl::InfiniteFuture());
  EXPECT_EQ(known->WaitForStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(unknown->WaitForStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(WaitForSent(*known, 2), ElementsAre(kServing, kNotServing));
  EXPECT_THAT(WaitForSent(*unknown, 1), ElementsAre(kServiceUnknown));
  health().SetAll(true);
  EXPECT_EQ(known->sent().size(), 2u);
}

TEST_F(HealthTest, WatchesTakeNoPlaceOfOtherCalls) {
  const auto first = server_.Call(kWatch, "");
  const auto second = server_.Call(kWatch, "");
  WaitForSent(*first, 1);
  WaitForSent(*second, 1);
  EXPECT_EQ(server_.Call(KindsService::kUnary, "x")->WaitForStatus(), absl::OkStatus());
  first->Cancel();
  second->Cancel();
  EXPECT_FALSE(first->WaitForStatus().ok());
  EXPECT_FALSE(second->WaitForStatus().ok());
}

TEST_F(HealthTest, EverythingAtOnce) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (bool serving = false; !stop; serving = !serving) {
        health().SetServingStatus(kKinds, serving);
        health().SetAll(i == 0);
        std::this_thread::yield();
      }
    });
  }
  for (int round = 0; round < 20; ++round) {
    std::vector<std::unique_ptr<FakeServerCall>> calls;
    for (const char* name : {kKinds, "", "unknown", kKinds}) calls.push_back(server_.Call(kWatch, name));
    calls[0]->Cancel();
    calls[1]->WaitForSent(1 + round);
    for (const auto& call : calls) call->Cancel();
    for (const auto& call : calls) EXPECT_FALSE(call->WaitForStatus().ok());
  }
  const auto last = server_.Call(kWatch, kKinds);
  last->WaitForSent(3);
  server_.server().Shutdown(absl::InfiniteFuture());
  EXPECT_FALSE(last->WaitForStatus().ok());
  EXPECT_EQ(WaitForSent(*last, 3).back(), kNotServing);
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST(HealthServiceTest, CanBeSwitchedOff) {
  KindsService service(KindsService::Invoke(
      [](ServerContext*, const StringValue*, StringValue*, ServerStream*) { return absl::OkStatus(); }));
  ServerUnderTest server(&service, [](ServerBuilder* builder) { builder->EnableHealthService(false); });
  EXPECT_EQ(server.server().health(), nullptr);
  EXPECT_EQ(server.Call(kCheck, "")->WaitForStatus().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace shmrpc
