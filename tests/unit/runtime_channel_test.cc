// How a channel connects, waits, backs off and gives up, on transports made for the purpose.

#include "shmrpc/channel.h"

#include <poll.h>
#include <stdlib.h>

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc {
namespace {

using testing::Event;
using ::testing::HasSubstr;
using testing::Inproc;
using testing::Outcome;
using testing::StartServer;
using testing::StringValue;
using testing::TestService;
using testing::Text;

// Handles every address; what Connect does is the test's.
class FakeTransport final : public Transport {
 public:
  using ConnectFunction =
      std::function<absl::StatusOr<std::unique_ptr<Connection>>(const Target&, const ConnectOptions&)>;

  explicit FakeTransport(ConnectFunction connect) : connect_(std::move(connect)) {}

  absl::string_view name() const override { return "fake"; }
  bool Handles(const Target&) const override { return true; }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override {
    ++attempts_;
    return connect_(target, options);
  }
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target&, const ListenOptions&, CallHandler*) override {
    return absl::UnimplementedError("the fake does not listen");
  }

  int attempts() const { return attempts_; }

 private:
  const ConnectFunction connect_;
  std::atomic<int> attempts_{0};
};

// Blocks until the channel gives the attempt up.
absl::StatusOr<std::unique_ptr<Connection>> WaitForInterrupt(const ConnectOptions& options) {
  pollfd interrupt = {options.interrupt_fd, POLLIN, 0};
  const int timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(testing::kHang));
  if (poll(&interrupt, 1, timeout_ms) != 1) return absl::UnknownError("the attempt was never interrupted");
  return absl::CancelledError("interrupted");
}

absl::StatusOr<std::unique_ptr<Connection>> ConnectInproc(const std::string& name) {
  Target target;
  target.kind = Target::Kind::kInproc;
  target.name = name;
  return InprocTransport().Connect(target, ConnectOptions());
}

// Back-offs that no test outlasts, so that what happens during one can be tested without a race.
ChannelOptions LongBackoff() {
  ChannelOptions options;
  options.initial_backoff = absl::Hours(1);
  options.max_backoff = absl::Hours(1);
  return options;
}

ChannelOptions ShortBackoff() {
  ChannelOptions options;
  options.initial_backoff = absl::Milliseconds(2);
  options.max_backoff = absl::Milliseconds(10);
  return options;
}

absl::Status Call(Channel& channel, ClientContext* context = nullptr) {
  StringValue reply;
  return UnaryCall(channel, TestService::kEcho, context, Text("x"), &reply);
}

absl::Status CallWhenReady(Channel& channel) {
  ClientContext context;
  context.set_wait_for_ready(true);
  context.set_timeout(testing::kHang);
  return Call(channel, &context);
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// What an error says of the time until the next attempt, which is rounded up to a millisecond.
absl::Duration NextAttemptIn(const absl::Status& status) {
  const std::string message = MessageOf(status);
  static constexpr absl::string_view kBefore = "the next one may start in ";
  const size_t found = message.find(kBefore.data());
  absl::Duration wait;
  if (found == std::string::npos) {
    ADD_FAILURE() << status;
    return wait;
  }
  const std::string rest = message.substr(found + kBefore.size());
  EXPECT_TRUE(absl::ParseDuration(rest.substr(0, rest.find(';')), &wait)) << status;
  return wait;
}

// Sets SHMRPC_TRANSPORT for one scope.
class ScopedTransportVariable {
 public:
  explicit ScopedTransportVariable(const char* value) { setenv("SHMRPC_TRANSPORT", value, 1); }
  ~ScopedTransportVariable() { unsetenv("SHMRPC_TRANSPORT"); }
};

TEST(ChannelStatusTest, TellsWhyItCanNeverWork) {
  struct {
    std::string target;
    std::function<void(ChannelOptions*)> change;
    std::string why;
  } const cases[] = {
      {"localhost", [](ChannelOptions*) {}, "localhost:50051"},
      {"localhost:0", [](ChannelOptions*) {}, "port 0"},
      {"localhost:1", [](ChannelOptions*) {}, "none of the channel's 1 transports"},
      {"localhost:1", [](ChannelOptions* o) { o->transport = TransportPreference::kUnix; }, "\"unix\""},
      {"unix:x", [](ChannelOptions* o) { o->transport = TransportPreference::kTcp; }, "auto, shm, unix or grpc"},
      {"inproc:x", [](ChannelOptions* o) { o->transport = TransportPreference::kShm; }, "\"shm\""},
      {"inproc:x", [](ChannelOptions* o) { o->max_send_message_bytes = size_t{1} << 31; }, "max_send_message_bytes"},
      {"inproc:x", [](ChannelOptions* o) { o->max_receive_message_bytes = size_t{1} << 31; }, "max_receive_message"},
      {"inproc:x", [](ChannelOptions* o) { o->connect_timeout = absl::ZeroDuration(); }, "connect_timeout"},
      {"inproc:x", [](ChannelOptions* o) { o->initial_backoff = absl::ZeroDuration(); }, "initial_backoff"},
      {"inproc:x", [](ChannelOptions* o) { o->max_backoff = absl::Milliseconds(1); }, "max_backoff"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.target + " " + bad.why);
    ChannelOptions options;
    bad.change(&options);
    const std::shared_ptr<Channel> channel = Channel::Create(bad.target, options, Inproc());
    EXPECT_EQ(channel->status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(channel->status()), HasSubstr(bad.why));
    EXPECT_EQ(Call(*channel), channel->status());
    EXPECT_EQ(channel->WaitForConnected(absl::InfiniteFuture()), channel->status());
    StringValue reply;
    Outcome outcome;
    AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &reply, outcome.Callback());
    EXPECT_EQ(outcome.Wait(), channel->status());
    EXPECT_THAT(channel->transport(), HasSubstr("none: "));
  }
}

TEST(ChannelStatusTest, TheEnvironmentChoosesTheTransport) {
  TransportPreference seen = TransportPreference::kAuto;
  const auto fake = std::make_shared<FakeTransport>([&](const Target&, const ConnectOptions& options) {
    seen = options.transport;
    return absl::UnavailableError("nobody there");
  });
  {
    const ScopedTransportVariable variable("tcp");
    EXPECT_TRUE(absl::IsUnavailable(Call(*Channel::Create("localhost:1", {}, {fake}))));
    EXPECT_EQ(seen, TransportPreference::kTcp);
    ChannelOptions options;
    options.transport = TransportPreference::kShm;  // the program's own choice comes first
    EXPECT_TRUE(absl::IsUnavailable(Call(*Channel::Create("localhost:1", options, {fake}))));
    EXPECT_EQ(seen, TransportPreference::kShm);
    EXPECT_THAT(MessageOf(Channel::Create("unix:x", {}, {fake})->status()), HasSubstr("SHMRPC_TRANSPORT"));
    EXPECT_EQ(Channel::Create("inproc:x", {}, {fake})->status(), absl::OkStatus());
  }
  const ScopedTransportVariable variable("pigeon");
  const absl::Status status = Channel::Create("localhost:1", {}, {fake})->status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("SHMRPC_TRANSPORT"));
  EXPECT_THAT(MessageOf(status), HasSubstr("pigeon"));
  EXPECT_THAT(MessageOf(status), HasSubstr("auto, shm, tcp, unix"));
  EXPECT_EQ(Channel::Create("inproc:x", {}, {fake})->status(), absl::OkStatus());
}

TEST(ChannelConnectTest, ConnectsWithTheFirstCallOnly) {
  TestService service;
  const auto server = StartServer("inproc:lazy", &service);
  const auto fake = std::make_shared<FakeTransport>(
      [](const Target& target, const ConnectOptions&) { return ConnectInproc(target.name); });
  const auto channel = Channel::Create("inproc:lazy", {}, {fake});
  EXPECT_EQ(fake->attempts(), 0);
  EXPECT_EQ(channel->transport(), "none: no call has been made yet");
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_EQ(channel->WaitForConnected(absl::InfiniteFuture()), absl::OkStatus());
  EXPECT_EQ(fake->attempts(), 1);
}

TEST(ChannelConnectTest, ABackoffFailsCallsAtOnceWithTheReason) {
  const auto fake = std::make_shared<FakeTransport>(
      [](const Target&, const ConnectOptions&) { return absl::UnavailableError("nobody there"); });
  const auto channel = Channel::Create("localhost:1", LongBackoff(), {fake});
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = Call(*channel);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("localhost:1"));
    EXPECT_THAT(MessageOf(status), HasSubstr("nobody there"));
    EXPECT_THAT(MessageOf(status), HasSubstr("wait_for_ready"));
    StringValue reply;
    Outcome outcome;
    AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &reply, outcome.Callback());
    EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(fake->attempts(), 1);
  EXPECT_EQ(channel->transport(), "none: nobody there");
  // Who waits for the next attempt has a deadline of his own.
  EXPECT_EQ(channel->WaitForConnected(absl::Now() + absl::Milliseconds(5)).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(fake->attempts(), 1);
}

TEST(ChannelConnectTest, BackoffsGrowUntilThereIsAServer) {
  std::vector<absl::Time> attempts;  // on the connector thread, one after the other
  const auto fake = std::make_shared<FakeTransport>(
      [&](const Target&, const ConnectOptions&) -> absl::StatusOr<std::unique_ptr<Connection>> {
        attempts.push_back(absl::Now());
        if (attempts.size() < 6) return absl::UnavailableError("not yet");
        return ConnectInproc("grows");
      });
  TestService service;
  const auto server = StartServer("inproc:grows", &service);
  ChannelOptions options;
  options.initial_backoff = absl::Milliseconds(10);
  options.max_backoff = absl::Milliseconds(20);
  const auto channel = Channel::Create("localhost:1", options, {fake});
  ClientContext context;
  context.set_wait_for_ready(true);
  EXPECT_EQ(Call(*channel, &context), absl::OkStatus());
  ASSERT_EQ(attempts.size(), 6u);
  // The shortest that each may be: 10 ms, 16 ms, then 20 ms, less a fifth.
  const double least[] = {10, 16, 20, 20, 20};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_GE(attempts[i + 1] - attempts[i], absl::Milliseconds(least[i] * 0.8)) << i;
  }
}

TEST(ChannelConnectTest, BackoffsHaveAMaximum) {
  std::atomic<int> attempts{0};
  const auto fake = std::make_shared<FakeTransport>(
      [&](const Target&, const ConnectOptions&) -> absl::StatusOr<std::unique_ptr<Connection>> {
        if (++attempts < 30) return absl::UnavailableError("not yet");
        return ConnectInproc("maximum");
      });
  TestService service;
  const auto server = StartServer("inproc:maximum", &service);
  ChannelOptions options;
  options.initial_backoff = absl::Milliseconds(1);
  options.max_backoff = absl::Milliseconds(2);
  const auto channel = Channel::Create("localhost:1", options, {fake});
  // Growing without bound they would take half an hour.
  EXPECT_EQ(CallWhenReady(*channel), absl::OkStatus());
}

TEST(ChannelConnectTest, BackoffsAreScatteredByAFifth) {
  const auto fake = std::make_shared<FakeTransport>(
      [](const Target&, const ConnectOptions&) { return absl::UnavailableError("nobody there"); });
  std::set<absl::Duration> waits;
  for (int i = 0; i < 20; ++i) {
    const auto channel = Channel::Create("localhost:1", LongBackoff(), {fake});
    const absl::Duration wait = NextAttemptIn(Call(*channel));
    EXPECT_LE(wait, 1.2 * absl::Hours(1) + absl::Milliseconds(1));
    // That much of it may have passed when it is told.
    EXPECT_GE(wait, 0.8 * absl::Hours(1) - testing::kHang);
    waits.insert(wait);
  }
  // Clients that have lost their server at the same time do not all come back at the same time.
  EXPECT_GT(*waits.rbegin() - *waits.begin(), absl::Minutes(2));
}

TEST(ChannelConnectTest, AConnectionThatWorkedBringsTheFirstBackoffBack) {
  std::atomic<int> attempts{0};
  const auto fake = std::make_shared<FakeTransport>(
      [&](const Target&, const ConnectOptions&) -> absl::StatusOr<std::unique_ptr<Connection>> {
        if (++attempts < 12) return absl::UnavailableError("not yet");
        return ConnectInproc("brings-back");
      });
  TestService service;
  auto server = StartServer("inproc:brings-back", &service);
  ChannelOptions options;
  options.initial_backoff = absl::Milliseconds(2);
  options.max_backoff = absl::Hours(1);
  const auto channel = Channel::Create("localhost:1", options, {fake});
  ASSERT_EQ(CallWhenReady(*channel), absl::OkStatus());
  server.reset();
  const absl::Status status = Call(*channel);
  EXPECT_THAT(MessageOf(status), HasSubstr("(1 attempt failed"));
  // The one after eleven failures would be 1.6 ^ 11 times as long: at least 280 ms.
  EXPECT_LE(NextAttemptIn(status), absl::Milliseconds(3));
}

TEST(ChannelConnectTest, WaitForReadyWaitsForAServer) {
  const auto channel = Channel::Create("inproc:later", ShortBackoff(), Inproc());
  EXPECT_EQ(Call(*channel).code(), absl::StatusCode::kUnavailable);
  struct OneCall {
    ClientContext context;
    StringValue reply;
    Outcome outcome;
  };
  std::vector<std::unique_ptr<OneCall>> calls;
  for (int i = 0; i < 10; ++i) {
    calls.push_back(std::make_unique<OneCall>());
    OneCall& call = *calls.back();
    call.context.set_wait_for_ready(true);
    // The request is gone before the call is sent.
    AsyncUnaryCall(channel, TestService::kEcho, &call.context, Text(std::to_string(i)), &call.reply,
                   call.outcome.Callback());
  }
  absl::Status synchronous = absl::UnknownError("");
  std::thread caller([&] {
    ClientContext context;
    context.set_wait_for_ready(true);
    synchronous = Call(*channel, &context);
  });
  for (auto& call : calls) EXPECT_FALSE(call->outcome.IsSet());
  TestService service;
  const auto server = StartServer("inproc:later", &service);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(calls[i]->outcome.Wait(), absl::OkStatus());
    EXPECT_EQ(calls[i]->reply.value(), std::to_string(i));
    EXPECT_EQ(calls[i]->context.peer().transport, "inproc");
  }
  caller.join();
  EXPECT_EQ(synchronous, absl::OkStatus());
}

TEST(ChannelConnectTest, ACallThatWaitsEndsByDeadlineOrCancel) {
  const auto channel = Channel::Create("inproc:nobody", LongBackoff(), Inproc());
  EXPECT_EQ(Call(*channel).code(), absl::StatusCode::kUnavailable);
  {
    ClientContext context;
    context.set_wait_for_ready(true);
    context.set_timeout(absl::Milliseconds(10));
    const absl::Status status = Call(*channel, &context);
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(MessageOf(status), HasSubstr("no server in this process listens"));
  }
  {
    ClientContext context;
    context.set_wait_for_ready(true);
    std::thread canceller([&] { context.TryCancel(); });
    EXPECT_EQ(Call(*channel, &context).code(), absl::StatusCode::kCancelled);
    canceller.join();
  }
  StringValue reply;
  {
    ClientContext context;
    context.set_wait_for_ready(true);
    context.set_timeout(absl::Milliseconds(10));
    Outcome outcome;
    AsyncUnaryCall(channel, TestService::kEcho, &context, Text("x"), &reply, outcome.Callback());
    EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  }
  {
    ClientContext context;
    context.set_wait_for_ready(true);
    Outcome outcome;
    AsyncUnaryCall(channel, TestService::kEcho, &context, Text("x"), &reply, outcome.Callback());
    EXPECT_FALSE(outcome.IsSet());
    context.TryCancel();
    EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(outcome.count(), 1);
  }
}

TEST(ChannelConnectTest, CallsDuringAnAttemptShareItsOutcome) {
  Event connecting;
  Event go;
  const auto fake = std::make_shared<FakeTransport>([&](const Target&, const ConnectOptions&) {
    connecting.Set();
    go.Wait();
    return absl::UnavailableError("after all no");
  });
  const auto channel = Channel::Create("localhost:1", LongBackoff(), {fake});
  StringValue replies[2];
  Outcome outcomes[2];
  AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &replies[0], outcomes[0].Callback());
  connecting.Wait();
  EXPECT_EQ(channel->transport(), "none: connecting");
  AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &replies[1], outcomes[1].Callback());
  ClientContext context;
  context.set_timeout(absl::Milliseconds(5));
  EXPECT_EQ(Call(*channel, &context).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(outcomes[0].IsSet());
  EXPECT_FALSE(outcomes[1].IsSet());
  go.Set();
  for (Outcome& outcome : outcomes) {
    const absl::Status status = outcome.Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("after all no"));
  }
  EXPECT_EQ(fake->attempts(), 1);
}

TEST(ChannelConnectTest, DestroyingTheChannelInterruptsTheAttempt) {
  Event connecting;
  const auto fake = std::make_shared<FakeTransport>([&](const Target&, const ConnectOptions& options) {
    connecting.Set();
    return WaitForInterrupt(options);
  });
  auto channel = Channel::Create("localhost:1", {}, {fake});
  StringValue reply;
  Outcome outcome;
  AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &reply, outcome.Callback());
  connecting.Wait();
  channel.reset();
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(outcome.count(), 1);
}

TEST(ChannelConnectTest, AQueuedCallsCallbackMayDestroyTheChannel) {
  // The callback runs on the connector thread, which thereby destroys its own channel; a second call is queued.
  Event go;
  const auto fake = std::make_shared<FakeTransport>([&](const Target&, const ConnectOptions&) {
    go.Wait();
    return absl::UnavailableError("no");
  });
  auto channel = Channel::Create("localhost:1", LongBackoff(), {fake});
  StringValue replies[2];
  Outcome first;
  Outcome second;
  AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &replies[0], [&](absl::Status status) {
    channel.reset();
    first.Set(std::move(status));
  });
  ClientContext context;
  context.set_wait_for_ready(true);
  AsyncUnaryCall(channel, TestService::kEcho, &context, Text("x"), &replies[1], second.Callback());
  go.Set();
  EXPECT_EQ(first.Wait().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.Wait().code(), absl::StatusCode::kCancelled);
}

TEST(ChannelConnectTest, InvalidArgumentFailsEvenThoseWhoWait) {
  const auto fake = std::make_shared<FakeTransport>(
      [](const Target&, const ConnectOptions&) { return absl::InvalidArgumentError("never"); });
  const auto channel = Channel::Create("localhost:1", ShortBackoff(), {fake});
  for (bool wait_for_ready : {false, true}) {
    ClientContext context;
    context.set_wait_for_ready(wait_for_ready);
    EXPECT_EQ(Call(*channel, &context).code(), absl::StatusCode::kInvalidArgument);
    ClientContext async_context;
    async_context.set_wait_for_ready(wait_for_ready);
    StringValue reply;
    Outcome outcome;
    AsyncUnaryCall(channel, TestService::kEcho, &async_context, Text("x"), &reply, outcome.Callback());
    EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ChannelConnectTest, ReconnectsAtOnceAfterAConnectionThatWorked) {
  TestService service;
  auto server = StartServer("inproc:restarts", &service);
  const auto channel = Channel::Create("inproc:restarts", LongBackoff(), Inproc());
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Call(*channel), absl::OkStatus());
    server.reset();
    server = StartServer("inproc:restarts", &service);
  }
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  server.reset();
  EXPECT_TRUE(channel->WaitForStateChange(ChannelState::kReady, absl::Now() + testing::kHang));
  EXPECT_THAT(channel->transport(), HasSubstr("shutting down"));
  const absl::Status status = Call(*channel);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status), HasSubstr("no server in this process"));
}

TEST(ChannelConnectTest, AConnectionLostAtOnceCountsAsAFailedAttempt) {
  TestService service;
  const auto fake = std::make_shared<FakeTransport>([&](const Target&, const ConnectOptions&) {
    const auto server = StartServer("inproc:hangs-up", &service);
    auto connection = ConnectInproc("hangs-up");
    return connection;  // the server goes now
  });
  const auto channel = Channel::Create("localhost:1", LongBackoff(), {fake});
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = Call(*channel);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("lost at once"));
  }
  EXPECT_EQ(fake->attempts(), 1);
}

TEST(ChannelConnectTest, AServerThatDrainsFinishesAsynchronousCalls) {
  Event handler_runs;
  Event go;
  TestService slow([&](ServerContext*, const StringValue&, StringValue* reply) {
    handler_runs.Set();
    go.Wait();
    reply->set_value("finished");
    return absl::OkStatus();
  });
  TestService fast;
  auto draining = StartServer("inproc:drains", &slow);
  const auto channel = Channel::Create("inproc:drains", {}, Inproc());
  StringValue reply;
  Outcome outcome;
  AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &reply, outcome.Callback());
  handler_runs.Wait();
  std::thread shutdown([&] { draining->Shutdown(absl::InfiniteFuture()); });
  // The name is free as soon as the drain begins. The channel moves to the new server; the old call goes on.
  absl::StatusOr<std::unique_ptr<Server>> server = absl::UnknownError("");
  while (!server.ok()) server = ServerBuilder(Inproc()).Listen("inproc:drains").Register(&fast).Start();
  while (!absl::StrContains(channel->transport(), "none")) std::this_thread::yield();
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_FALSE(outcome.IsSet());
  go.Set();
  EXPECT_EQ(outcome.Wait(), absl::OkStatus());
  EXPECT_EQ(reply.value(), "finished");
  shutdown.join();
}

// Waits until the channel is ready, connecting if need be.
bool WaitForReady(Channel& channel) {
  const absl::Time deadline = absl::Now() + testing::kHang;
  ChannelState state;
  while ((state = channel.GetState(/*try_to_connect=*/true)) != ChannelState::kReady) {
    if (!channel.WaitForStateChange(state, deadline)) return false;
  }
  return true;
}

TEST(ChannelStateTest, FollowsAnAttempt) {
  Event go;
  const auto fake = std::make_shared<FakeTransport>([&](const Target&, const ConnectOptions&) {
    go.Wait();
    return absl::UnavailableError("after all no");
  });
  const auto channel = Channel::Create("localhost:1", LongBackoff(), {fake});
  EXPECT_EQ(channel->GetState(false), ChannelState::kIdle);
  EXPECT_EQ(fake->attempts(), 0);
  EXPECT_FALSE(channel->WaitForStateChange(ChannelState::kIdle, absl::Now() + absl::Milliseconds(5)));
  EXPECT_TRUE(channel->WaitForStateChange(ChannelState::kReady, absl::InfinitePast()));

  bool changed = false;
  std::thread waiter([&] { changed = channel->WaitForStateChange(ChannelState::kIdle, absl::Now() + testing::kHang); });
  EXPECT_EQ(channel->GetState(true), ChannelState::kConnecting);
  waiter.join();
  EXPECT_TRUE(changed);
  EXPECT_EQ(channel->GetState(true), ChannelState::kConnecting);
  EXPECT_FALSE(channel->WaitForStateChange(ChannelState::kConnecting, absl::Now() + absl::Milliseconds(5)));

  go.Set();
  EXPECT_TRUE(channel->WaitForStateChange(ChannelState::kConnecting, absl::Now() + testing::kHang));
  EXPECT_EQ(channel->GetState(true), ChannelState::kTransientFailure);
  EXPECT_FALSE(channel->WaitForStateChange(ChannelState::kTransientFailure, absl::Now() + absl::Milliseconds(5)));
  EXPECT_EQ(fake->attempts(), 1);
}

TEST(ChannelStateTest, ABackoffEndsByItself) {
  const auto channel = Channel::Create("inproc:state-backoff", ShortBackoff(), Inproc());
  EXPECT_EQ(Call(*channel).code(), absl::StatusCode::kUnavailable);
  if (channel->GetState(false) == ChannelState::kTransientFailure) {
    EXPECT_TRUE(channel->WaitForStateChange(ChannelState::kTransientFailure, absl::Now() + testing::kHang));
  }
  EXPECT_EQ(channel->GetState(false), ChannelState::kIdle);
  TestService service;
  const auto server = StartServer("inproc:state-backoff", &service);
  EXPECT_TRUE(WaitForReady(*channel));
  EXPECT_EQ(Call(*channel), absl::OkStatus());
}

TEST(ChannelStateTest, NoticesALossWithoutACall) {
  TestService service;
  auto server = StartServer("inproc:state-loss", &service);
  const auto channel = Channel::Create("inproc:state-loss", LongBackoff(), Inproc());
  EXPECT_EQ(Call(*channel), absl::OkStatus());
  EXPECT_EQ(channel->GetState(false), ChannelState::kReady);
  bool changed = false;
  std::thread waiter(
      [&] { changed = channel->WaitForStateChange(ChannelState::kReady, absl::Now() + testing::kHang); });
  server.reset();
  waiter.join();
  EXPECT_TRUE(changed);
  EXPECT_EQ(channel->GetState(false), ChannelState::kIdle);
  server = StartServer("inproc:state-loss", &service);
  EXPECT_TRUE(WaitForReady(*channel));
}

TEST(ChannelStateTest, ALossAfterAWhileIsNoFailure) {
  TestService service;
  auto server = StartServer("inproc:state-unused", &service);
  const auto channel = Channel::Create("inproc:state-unused", ShortBackoff(), Inproc());
  EXPECT_TRUE(WaitForReady(*channel));
  absl::SleepFor(absl::Milliseconds(5));  // longer than the back-off, which would be of no use
  server.reset();
  EXPECT_EQ(channel->GetState(false), ChannelState::kIdle);
}

TEST(ChannelStateTest, AChannelThatCanNeverWorkIsShutDown) {
  const auto channel = Channel::Create("localhost", {}, Inproc());
  EXPECT_EQ(channel->GetState(true), ChannelState::kShutdown);
  EXPECT_TRUE(channel->WaitForStateChange(ChannelState::kIdle, absl::InfiniteFuture()));
  EXPECT_FALSE(channel->WaitForStateChange(ChannelState::kShutdown, absl::InfiniteFuture()));
  EXPECT_EQ(ChannelStateName(ChannelState::kShutdown), "shutdown");
}

}  // namespace
}  // namespace shmrpc
