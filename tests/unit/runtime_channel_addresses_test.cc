// A channel whose target lists several addresses: which it tries, when, and what it says of them.

#include <poll.h>
#include <stdlib.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/channel.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc {
namespace {

using ::testing::ElementsAre;
using testing::Event;
using ::testing::HasSubstr;
using testing::Inproc;
using testing::StringValue;
using testing::TestService;
using testing::Text;

using ConnectResult = absl::StatusOr<std::unique_ptr<Connection>>;

// Handles host:port; each host does what the test says. Notes who was asked, and how long each was given.
class FakeHosts final : public Transport {
 public:
  using Connector = std::function<ConnectResult(const ConnectOptions&)>;

  explicit FakeHosts(std::map<std::string, Connector> hosts) : hosts_(std::move(hosts)) {}

  std::string_view name() const override { return "fake"; }
  bool Handles(const Target& target) const override { return target.kind == Target::Kind::kHostPort; }
  ConnectResult Connect(const Target& target, const ConnectOptions& options) override {
    const absl::Duration given = options.deadline - SteadyTime::Now();
    {
      MutexLock lock(&mutex_);
      asked_.push_back(target.host);
      given_.push_back(given);
    }
    return hosts_.at(target.host)(options);
  }
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target&, const ListenOptions&, CallHandler*) override {
    return absl::UnimplementedError("the fake does not listen");
  }

  // Since the last time.
  std::vector<std::string> TakeAsked() {
    MutexLock lock(&mutex_);
    return std::exchange(asked_, {});
  }
  std::vector<absl::Duration> TakeGiven() {
    MutexLock lock(&mutex_);
    return std::exchange(given_, {});
  }

 private:
  const std::map<std::string, Connector> hosts_;
  Mutex mutex_;
  std::vector<std::string> asked_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Duration> given_ ABSL_GUARDED_BY(mutex_);
};

FakeHosts::Connector Fails(absl::Status status) {
  return [status](const ConnectOptions&) { return status; };
}

// To a server within this process.
FakeHosts::Connector Reaches(const std::string& name) {
  return [name](const ConnectOptions& options) {
    Target target;
    target.kind = Target::Kind::kInproc;
    target.name = name;
    return InprocTransport().Connect(target, options);
  };
}

absl::Status Call(Channel& channel) {
  StringValue reply;
  return UnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &reply);
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

ChannelOptions LongBackoff() {
  ChannelOptions options;
  options.initial_backoff = absl::Hours(1);
  options.max_backoff = absl::Hours(1);
  return options;
}

TEST(ChannelAddressesTest, TriesTheAddressesInOrderUntilOneConnects) {
  TestService service;
  const auto server = testing::StartServer("inproc:addresses-order", &service);
  const auto hosts = std::make_shared<FakeHosts>(
      std::map<std::string, FakeHosts::Connector>{{"a", Fails(absl::UnavailableError("a is away"))},
                                                  {"b", Fails(absl::InvalidArgumentError("b is impossible"))},
                                                  {"c", Reaches("addresses-order")},
                                                  {"d", Fails(absl::UnavailableError("never asked"))}});
  const auto channel = Channel::Create("a:1,b:2,c:3,d:4", LongBackoff(), {hosts});
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_THAT(hosts->TakeAsked(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(channel->transport(), "inproc to c:3");
  EXPECT_EQ(channel->target(), "a:1,b:2,c:3,d:4");
}

TEST(ChannelAddressesTest, StaysUntilTheConnectionIsLostAndThenBeginsWithTheFirst) {
  TestService first, second;
  auto first_server = testing::StartServer("inproc:addresses-first", &first);
  auto second_server = testing::StartServer("inproc:addresses-second", &second);
  const auto hosts = std::make_shared<FakeHosts>(std::map<std::string, FakeHosts::Connector>{
      {"a", Reaches("addresses-first")}, {"b", Reaches("addresses-second")}});
  const auto channel = Channel::Create("a:1,b:2", LongBackoff(), {hosts});
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_THAT(hosts->TakeAsked(), ElementsAre("a"));

  first_server = nullptr;
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_THAT(hosts->TakeAsked(), ElementsAre("a", "b"));
  EXPECT_EQ(channel->transport(), "inproc to b:2");

  first_server = testing::StartServer("inproc:addresses-first", &first);
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_THAT(hosts->TakeAsked(), ElementsAre());

  second_server = nullptr;
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_THAT(hosts->TakeAsked(), ElementsAre("a"));
  EXPECT_EQ(channel->transport(), "inproc to a:1");
}

TEST(ChannelAddressesTest, AFailedAttemptTellsOfEachAddress) {
  const auto hosts = std::make_shared<FakeHosts>(
      std::map<std::string, FakeHosts::Connector>{{"a", Fails(absl::UnavailableError("is away"))},
                                                  {"b", Fails(absl::DeadlineExceededError("does not answer"))},
                                                  {"c", Fails(absl::InvalidArgumentError("is impossible"))}});
  ChannelOptions options = LongBackoff();
  options.connect_timeout = absl::Hours(3);
  const auto channel = Channel::Create("a:1,b:2,c:3", options, {hosts});
  const absl::Status status = Call(*channel);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status),
              HasSubstr("not connected to \"a:1,b:2,c:3\": a:1: is away; b:2: no connection within "));
  EXPECT_THAT(MessageOf(status), HasSubstr("(its share of the option connect_timeout): does not answer; c:3: is "
                                           "impossible (1 attempt failed"));
  // Those that fail at once leave their time to the others.
  const std::vector<absl::Duration> given = hosts->TakeGiven();
  ASSERT_EQ(given.size(), 3u);
  const double hours[] = {1, 1.5, 3};
  for (int i = 0; i < 3; ++i) {
    EXPECT_LE(given[i], absl::Hours(1) * hours[i]) << i;
    EXPECT_GT(given[i], absl::Hours(1) * hours[i] * 0.9) << i;
  }
}

TEST(ChannelAddressesTest, ItIsHopelessOnlyIfEachAddressIs) {
  const auto hosts = std::make_shared<FakeHosts>(std::map<std::string, FakeHosts::Connector>{
      {"a", Fails(absl::InvalidArgumentError("no"))}, {"b", Fails(absl::InvalidArgumentError("never"))}});
  const absl::Status status = Call(*Channel::Create("a:1,b:2", LongBackoff(), {hosts}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("a:1: no; b:2: never"));
}

TEST(ChannelAddressesTest, DestroyingTheChannelEndsTheWholeAttempt) {
  Event connecting;
  const auto hosts = std::make_shared<FakeHosts>(std::map<std::string, FakeHosts::Connector>{
      {"a",
       [&](const ConnectOptions& options) -> ConnectResult {
         connecting.Set();
         pollfd interrupt = {options.interrupt_fd, POLLIN, 0};
         poll(&interrupt, 1, static_cast<int>(absl::ToInt64Milliseconds(testing::kHang)));
         return absl::CancelledError("interrupted");
       }},
      {"b", Fails(absl::UnavailableError("not to be asked"))}});
  auto channel = Channel::Create("a:1,b:2", LongBackoff(), {hosts});
  EXPECT_EQ(channel->GetState(/*try_to_connect=*/true), ChannelState::kConnecting);
  connecting.Wait();
  channel = nullptr;
  EXPECT_THAT(hosts->TakeAsked(), ElementsAre("a"));
}

TEST(ChannelAddressesTest, EachAddressHasItsOwnTransport) {
  TestService service;
  const auto server = testing::StartServer("inproc:addresses-mixed", &service);
  const auto hosts = std::make_shared<FakeHosts>(
      std::map<std::string, FakeHosts::Connector>{{"a", Fails(absl::UnavailableError("is away"))}});
  const auto channel =
      Channel::Create("a:1,inproc:addresses-mixed", LongBackoff(), {hosts, std::make_shared<InprocTransport>()});
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_EQ(channel->transport(), "inproc to inproc:addresses-mixed");
}

TEST(ChannelAddressesTest, EveryAddressHasToBePossible) {
  struct {
    std::string target;
    TransportPreference transport;
    std::string why;
  } const cases[] = {
      {"inproc:a,", TransportPreference::kAuto, "(number 2 of 2 in \"inproc:a,\")"},
      {"inproc:a,b:0", TransportPreference::kAuto, "address \"b:0\": port 0"},
      {"inproc:a,b:1", TransportPreference::kAuto, "handles the address \"b:1\""},
      {"unix:a,b:1", TransportPreference::kTcp, "does not go to \"unix:a\""},
      {"b:1,unix:a", TransportPreference::kUnix, "does not go to \"b:1\""},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.target);
    ChannelOptions options;
    options.transport = bad.transport;
    const absl::Status status = Channel::Create(bad.target, options, Inproc())->status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr(bad.why));
  }
}

TEST(ChannelAddressesTest, TheEnvironmentHasNoSayWithinTheProcess) {
  setenv("SHMRPC_TRANSPORT", "tcp", 1);
  const auto hosts = std::make_shared<FakeHosts>(std::map<std::string, FakeHosts::Connector>{});
  const TransportSet transports = {hosts, std::make_shared<InprocTransport>()};
  EXPECT_EQ(Channel::Create("inproc:a,b:1", {}, transports)->status(), absl::OkStatus());
  EXPECT_THAT(MessageOf(Channel::Create("inproc:a,b:1,unix:c", {}, transports)->status()),
              HasSubstr("does not go to \"unix:c\""));
  unsetenv("SHMRPC_TRANSPORT");
}

TEST(ChannelAddressesTest, AServerDoesNotListenOnAList) {
  TestService service;
  const absl::Status status = ServerBuilder(Inproc()).Listen("inproc:a,inproc:b").Register(&service).Start().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("Listen is called once for each address"));
}

}  // namespace
}  // namespace shmrpc
