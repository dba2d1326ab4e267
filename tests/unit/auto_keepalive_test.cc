// Peers whose hellos say odd things about keepalive, and peers that say too often that they are alive.

#include <atomic>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/stub.h"
#include "tests/conformance/sync.h"
#include "tests/unit/auto_raw_peer.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc::autoselect {
namespace {

using framed::FrameHeader;
using framed::FrameType;
using testing::Event;
using testing::Outcome;
using testing::StringValue;
using testing::TestService;
using testing::Text;

// What stands for "for ever": 0 in the hello, and whatever is so large that to calculate with it would go wrong.
constexpr uint64_t kForEver[] = {0, (uint64_t{1} << 40) + 1, std::numeric_limits<int64_t>::max() / 1'000'000,
                                 uint64_t{1} << 63, std::numeric_limits<uint64_t>::max()};

// Beats that are nearly due are sent, so that they may be half an interval of 25 ms apart.
constexpr absl::Duration kShortestBeat = absl::Microseconds(12'500);

template <typename Hello>
Hello HelloWith(std::optional<uint64_t> keepalive_ms) {
  Hello hello = OrderlyHello<Hello>();
  if (keepalive_ms.has_value()) hello.set_keepalive_ms(*keepalive_ms);
  return hello;
}

void ExpectBeatsInMeasure(RawFrames& peer, SteadyTime since) {
  constexpr int kBeats = 20;
  for (int i = 0; i < kBeats; ++i) peer.Expect(FrameType::kAlive);
  EXPECT_GE(SteadyTime::Now() - since, kShortestBeat * (kBeats - 1));
}

// Sends beats without pause, each with everything in it that a receiver ignores.
class Flood {
 public:
  explicit Flood(RawFrames& peer)
      : peer_(peer), thread_([this] {
          const FrameHeader beat = {.type = FrameType::kAlive, .flags = 0xff, .code = 0xffff, .call_id = ~uint64_t{0}};
          while (!stop_ && peer_.Send(beat, std::string(100, 'x'))) {
          }
        }) {}
  ~Flood() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  RawFrames& peer_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

std::string WayName(const ::testing::TestParamInfo<RawWay>& info) { return RawWayName(info.param); }

// ---- A real server, whose client is the test.

class ServerKeepaliveTest : public ::testing::TestWithParam<RawWay> {
 protected:
  ServerKeepaliveTest()
      : service_([this](ServerContext* context, const StringValue& request, StringValue*) {
          if (request.value() == "hold") {
            conformance::Eventually([&] { return go_.IsSet() || context->IsCancelled(); });
            if (context->IsCancelled()) ++cancelled_;
          }
          return absl::OkStatus();
        }) {}
  ~ServerKeepaliveTest() override { go_.Set(); }

  void Start(absl::Duration keepalive_timeout = absl::InfiniteDuration()) {
    absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder()
                                                         .Listen(RawAddress(GetParam()))
                                                         .SetKeepaliveTimeout(keepalive_timeout)
                                                         .Register(&service_)
                                                         .Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::unique_ptr<RawFrames> Connect(std::optional<uint64_t> keepalive_ms) {
    return ConnectRaw(GetParam(), server_->addresses()[0], HelloWith<wire::ClientHello>(keepalive_ms));
  }

  static void Call(RawFrames& client, uint64_t call_id, const std::string& request) {
    if (call_id == 1) client.Send({.type = FrameType::kMethod}, TestService::kEcho);
    client.Send({.type = FrameType::kRequest, .call_id = call_id}, Text(request).SerializeAsString());
  }

  Event go_;
  std::atomic<int> cancelled_{0};
  TestService service_;
  std::unique_ptr<Server> server_;
};

INSTANTIATE_TEST_SUITE_P(Ways, ServerKeepaliveTest, ::testing::Values(RawWay::kTcp, RawWay::kShm), &WayName);

TEST_P(ServerKeepaliveTest, NobodyCanAskForBeatsWithoutPause) {
  Start();
  const auto client = Connect(1);
  ASSERT_NE(client, nullptr);
  const SteadyTime since = SteadyTime::Now();
  Call(*client, 1, "hold");
  ExpectBeatsInMeasure(*client, since);
}

TEST_P(ServerKeepaliveTest, WhoWaitsForEverGetsNoBeats) {
  Start();
  std::vector<std::unique_ptr<RawFrames>> clients;
  for (const uint64_t keepalive_ms : kForEver) {
    clients.push_back(Connect(keepalive_ms));
    ASSERT_NE(clients.back(), nullptr);
    Call(*clients.back(), 1, "hold");
  }
  clients.push_back(Connect(std::nullopt));
  ASSERT_NE(clients.back(), nullptr);
  Call(*clients.back(), 1, "hold");
  // One that gets beats shows that there was time for them.
  const auto other = Connect(1);
  ASSERT_NE(other, nullptr);
  Call(*other, 1, "hold");
  for (int i = 0; i < 10; ++i) other->Expect(FrameType::kAlive);
  go_.Set();
  for (const auto& client : clients) EXPECT_EQ(client->Expect(FrameType::kResponse).code, 0);
}

TEST_P(ServerKeepaliveTest, WhoTakesNoPartIsNotGivenUp) {
  Start(absl::Milliseconds(100));
  const auto without = Connect(std::nullopt);
  const auto silent = Connect(0);
  ASSERT_NE(without, nullptr);
  ASSERT_NE(silent, nullptr);
  Call(*without, 1, "hold");
  Call(*silent, 1, "hold");
  EXPECT_TRUE(silent->SeesTheEnd());
  // The client may see the end a moment before its call is cancelled.
  EXPECT_TRUE(conformance::Eventually([this] { return cancelled_ > 0; }));
  go_.Set();
  EXPECT_EQ(without->Expect(FrameType::kResponse).code, 0);
  server_->Shutdown(absl::InfiniteFuture());
  EXPECT_EQ(cancelled_, 1);
}

TEST_P(ServerKeepaliveTest, AFloodOfBeatsIsTakenAndNotAnswered) {
  Start();
  const auto client = Connect(0);
  ASSERT_NE(client, nullptr);
  Flood flood(*client);
  // Others do not notice it.
  const auto channel = Channel::Create(server_->addresses()[0].ToString());
  StringValue reply;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(UnaryCall(*channel, TestService::kEcho, nullptr, Text("x"), &reply), absl::OkStatus());
  }
  flood.Stop();
  Call(*client, 1, "x");
  EXPECT_EQ(client->Expect(FrameType::kResponse).code, 0) << "the first frame of the server";
}

// Its client may wait for a handler that another thread is about to run, which this side does not know yet.
TEST_P(ServerKeepaliveTest, WhoeverIsHeardOfGetsBeatsWithoutACall) {
  Start();
  const auto client = Connect(1);
  ASSERT_NE(client, nullptr);
  Call(*client, 1, "x");  // which begins the watch over the server's clients
  EXPECT_EQ(client->Expect(FrameType::kResponse).code, 0);
  Flood flood(*client);
  for (int i = 0; i < 5; ++i) client->Expect(FrameType::kAlive);
}

TEST_P(ServerKeepaliveTest, AFloodOfBeatsKeepsACallAlive) {
  Start(absl::Seconds(2));  // longer than a loaded machine keeps a thread waiting
  const auto client = Connect(0);
  const auto silent = Connect(0);
  ASSERT_NE(client, nullptr);
  ASSERT_NE(silent, nullptr);
  Call(*client, 1, "hold");
  Flood flood(*client);
  Call(*silent, 1, "hold");
  EXPECT_TRUE(silent->SeesTheEnd());
  flood.Stop();
  go_.Set();
  EXPECT_EQ(client->Expect(FrameType::kResponse).code, 0);
}

// ---- A real client, whose server is the test.

class ClientKeepaliveTest : public ::testing::TestWithParam<RawWay> {
 protected:
  struct Client {
    StringValue reply;
    Outcome outcome;  // outlives what may end the call
    std::shared_ptr<Channel> channel;
    std::unique_ptr<RawFrames> server;
    uint64_t call_id = 0;
  };

  // A client that has begun with a call.
  std::unique_ptr<Client> Connect(std::optional<uint64_t> keepalive_ms,
                                  absl::Duration keepalive_timeout = absl::InfiniteDuration(),
                                  ClientContext* context = nullptr) {
    auto client = std::make_unique<Client>();
    ChannelOptions options;
    options.keepalive_timeout = keepalive_timeout;
    options.transport = GetParam() == RawWay::kTcp ? TransportPreference::kTcp : TransportPreference::kShm;
    client->channel = Channel::Create(server_.address(), options);
    AsyncUnaryCall(client->channel, TestService::kEcho, context, Text("x"), &client->reply, client->outcome.Callback());
    client->server = server_.Accept(HelloWith<wire::ServerHello>(keepalive_ms));
    if (client->server == nullptr) return nullptr;
    client->server->Expect(FrameType::kMethod);
    client->call_id = client->server->Expect(FrameType::kRequest).call_id;
    return client;
  }

  static void Respond(Client& client) {
    client.server->Send({.type = FrameType::kResponse, .call_id = client.call_id}, Text("y").SerializeAsString());
  }

  RawServer server_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Ways, ClientKeepaliveTest, ::testing::Values(RawWay::kTcp, RawWay::kShm), &WayName);

TEST_P(ClientKeepaliveTest, NobodyCanAskForBeatsWithoutPause) {
  const SteadyTime since = SteadyTime::Now();
  const auto client = Connect(1);
  ASSERT_NE(client, nullptr);
  ExpectBeatsInMeasure(*client->server, since);
  Respond(*client);
  EXPECT_EQ(client->outcome.Wait(), absl::OkStatus());
}

TEST_P(ClientKeepaliveTest, WhoWaitsForEverGetsNoBeats) {
  std::vector<std::unique_ptr<Client>> clients;
  for (const uint64_t keepalive_ms : kForEver) clients.push_back(Connect(keepalive_ms));
  clients.push_back(Connect(std::nullopt));
  for (const auto& client : clients) ASSERT_NE(client, nullptr);
  // One that gets beats shows that there was time for them.
  const auto other = Connect(1);
  ASSERT_NE(other, nullptr);
  for (int i = 0; i < 10; ++i) other->server->Expect(FrameType::kAlive);
  for (const auto& client : clients) {
    Respond(*client);
    EXPECT_EQ(client->outcome.Wait(), absl::OkStatus());
    Outcome next;
    AsyncUnaryCall(client->channel, TestService::kEcho, nullptr, Text("x"), &client->reply, next.Callback());
    client->call_id = client->server->Expect(FrameType::kRequest).call_id;
    Respond(*client);
    EXPECT_EQ(next.Wait(), absl::OkStatus());
  }
  Respond(*other);
  EXPECT_EQ(other->outcome.Wait(), absl::OkStatus());
}

TEST_P(ClientKeepaliveTest, WhoTakesNoPartIsNotGivenUp) {
  const auto without = Connect(std::nullopt, absl::Milliseconds(100));
  const auto silent = Connect(0, absl::Milliseconds(100));
  ASSERT_NE(without, nullptr);
  ASSERT_NE(silent, nullptr);
  EXPECT_TRUE(silent->server->SeesTheEnd());
  EXPECT_EQ(silent->outcome.Wait().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(without->outcome.IsSet());
  Respond(*without);
  EXPECT_EQ(without->outcome.Wait(), absl::OkStatus());
}

// The thread that waits for a call takes frames meanwhile, and is not to forget the time over them.
TEST_P(ClientKeepaliveTest, AFloodOfBeatsKeepsNobodyFromItsDeadline) {
  ClientContext context;
  context.set_timeout(absl::Milliseconds(300));
  const auto client = Connect(0, absl::InfiniteDuration(), &context);
  ASSERT_NE(client, nullptr);
  Flood flood(*client->server);
  StringValue reply;
  ClientContext waiting;
  waiting.set_timeout(absl::Milliseconds(200));
  EXPECT_EQ(UnaryCall(*client->channel, TestService::kEcho, &waiting, Text("x"), &reply).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(client->outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  client->server->StopSending();  // nobody may be there to take it any more
  flood.Stop();
  // The beats are not answered: what comes is the second request, and both ends.
  client->server->Expect(FrameType::kRequest);
  client->server->Expect(FrameType::kReset);
  client->server->Expect(FrameType::kReset);
}

}  // namespace
}  // namespace shmrpc::autoselect
