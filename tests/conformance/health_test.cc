// The standard health service.

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fixture.h"
#include "health.shmrpc.pb.h"

namespace shmrpc::conformance {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr const char* kEcho = "shmrpc.conformance.Echo";
constexpr auto kServing = HealthCheckResponse::SERVING;
constexpr auto kNotServing = HealthCheckResponse::NOT_SERVING;

HealthCheckRequest RequestFor(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  return request;
}

// "SERVING", or the name of the code that the call failed with.
std::string Check(const std::shared_ptr<Channel>& channel, const std::string& service) {
  const absl::StatusOr<HealthCheckResponse> response = Health::Stub(channel).Check(RequestFor(service));
  if (!response.ok()) return absl::StatusCodeToString(response.status().code());
  return HealthCheckResponse::ServingStatus_Name(response->status());
}

// A Watch that is under way.
class WatchCall {
 public:
  WatchCall(const std::shared_ptr<Channel>& channel, const std::string& service) {
    context_.set_timeout(kHangGuard);
    reader_ = Health::Stub(channel).Watch(&context_, RequestFor(service));
  }
  // UNKNOWN: the call is over.
  HealthCheckResponse::ServingStatus Read() {
    HealthCheckResponse response;
    return reader_->Read(&response) ? response.status() : HealthCheckResponse::UNKNOWN;
  }
  absl::Status Finish() { return reader_->Finish(); }
  void Cancel() { context_.TryCancel(); }

 private:
  ClientContext context_;
  std::unique_ptr<ClientReader<HealthCheckResponse>> reader_;
};

TEST_P(ConformanceTest, HealthCheckTellsTheStatusOfEachService) {
  StartServer();
  const auto channel = NewChannel();
  EXPECT_EQ(Check(channel, ""), "SERVING");
  EXPECT_EQ(Check(channel, kEcho), "SERVING");
  EXPECT_EQ(Check(channel, "shmrpc.conformance.Ecko"), "NOT_FOUND");
  server_->health()->SetServingStatus(kEcho, false);
  EXPECT_EQ(Check(channel, ""), "SERVING");
  EXPECT_EQ(Check(channel, kEcho), "NOT_SERVING");
  ExpectEcho(channel);
  server_->health()->SetAll(true);
  EXPECT_EQ(Check(channel, kEcho), "SERVING");
}

TEST_P(ConformanceTest, HealthWatchTellsEveryChange) {
  StartServer();
  const auto channel = NewChannel();
  WatchCall echo(channel, kEcho);
  WatchCall later(channel, "later");
  EXPECT_EQ(echo.Read(), kServing);
  EXPECT_EQ(later.Read(), HealthCheckResponse::SERVICE_UNKNOWN);
  for (int i = 0; i < Scaled(100); ++i) {
    server_->health()->SetServingStatus(kEcho, false);
    EXPECT_EQ(echo.Read(), kNotServing);
    server_->health()->SetServingStatus(kEcho, true);
    EXPECT_EQ(echo.Read(), kServing);
  }
  server_->health()->SetServingStatus("later", true);
  EXPECT_EQ(later.Read(), kServing);
  echo.Cancel();
  EXPECT_EQ(echo.Read(), HealthCheckResponse::UNKNOWN);
  EXPECT_EQ(echo.Finish().code(), absl::StatusCode::kCancelled);
}

TEST_P(ConformanceTest, HealthWatchesEndWithShutdown) {
  StartServer();
  const auto channel = NewChannel();
  WatchCall watch(channel, "");
  EXPECT_EQ(watch.Read(), kServing);
  std::thread shutdown([&] { server_->Shutdown(absl::InfiniteFuture()); });
  EXPECT_EQ(watch.Read(), kNotServing);
  EXPECT_EQ(watch.Read(), HealthCheckResponse::UNKNOWN);
  EXPECT_EQ(watch.Finish().code(), absl::StatusCode::kUnavailable);
  shutdown.join();
}

TEST_P(ConformanceTest, HealthWatchesTakeNoThreadsAndNoPlaces) {
  StartServer(NewServerBuilder().SetMaxConcurrentCalls(1).SetMaxThreads(4), listen_address());
  const auto channel = NewChannel();
  ExpectEcho(channel);
  const int threads = CountThreads();
  std::vector<std::unique_ptr<WatchCall>> watches;
  for (int i = 0; i < Scaled(200); ++i) {
    watches.push_back(std::make_unique<WatchCall>(channel, i % 2 == 0 ? "" : kEcho));
    EXPECT_EQ(watches.back()->Read(), kServing);
  }
  // Threads that a busy machine makes the library start end a while later.
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads + 10; }))
      << CountThreads() << " threads, " << threads << " before";
  ExpectEcho(channel);
  server_->health()->SetAll(false);
  for (const auto& watch : watches) EXPECT_EQ(watch->Read(), kNotServing);
}

TEST_P(ConformanceTest, HealthServiceCanBeSwitchedOff) {
  StartServer(NewServerBuilder().EnableHealthService(false), listen_address());
  EXPECT_EQ(server_->health(), nullptr);
  EXPECT_EQ(Check(NewChannel(), ""), "UNIMPLEMENTED");
}

TEST_P(ConformanceTest, HealthServiceOfTheUserComesInItsPlace) {
  class OwnHealth final : public Health::Service {
    absl::Status Check(ServerContext*, const HealthCheckRequest*, HealthCheckResponse*) override {
      return absl::DataLossError("it is mine");
    }
  };
  OwnHealth own;
  StartServer(NewServerBuilder().Register(&own), listen_address());
  EXPECT_EQ(server_->health(), nullptr);
  EXPECT_EQ(Check(NewChannel(), ""), "DATA_LOSS");
  server_.reset();  // before the service
}

}  // namespace
}  // namespace shmrpc::conformance
