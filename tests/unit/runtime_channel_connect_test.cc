// How a channel connects, waits, backs off and gives up, on transports made for the purpose.

#include "shmrpc/channel.h"

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/runtime_scripted_transport.h"

namespace shmrpc {
namespace {

using testing::Call;
using testing::CallWhenReady;
using testing::ConnectInproc;
using testing::Event;
using ::testing::HasSubstr;
using testing::Inproc;
using testing::LongBackoff;
using testing::MessageOf;
using testing::Outcome;
using testing::ScriptedTransport;
using testing::ShortBackoff;
using testing::StartServer;
using testing::StringValue;
using testing::TestService;
using testing::Text;
using testing::WaitForInterrupt;

// What an error says of the time until the next attempt, which is rounded up to a millisecond.
absl::Duration NextAttemptIn(const absl::Status& status) {
  const std::string message = MessageOf(status);
  static constexpr std::string_view kBefore = "the next one may start in ";
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

TEST(ChannelConnectTest, ConnectsWithTheFirstCallOnly) {
  TestService service;
  const auto server = StartServer("inproc:lazy", &service);
  const auto fake = std::make_shared<ScriptedTransport>(
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
  const auto fake = std::make_shared<ScriptedTransport>(
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
  const auto fake = std::make_shared<ScriptedTransport>(
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
  const auto fake = std::make_shared<ScriptedTransport>(
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
  const auto fake = std::make_shared<ScriptedTransport>(
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
  const auto fake = std::make_shared<ScriptedTransport>(
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
  const auto fake = std::make_shared<ScriptedTransport>([&](const Target&, const ConnectOptions&) {
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
  const auto fake = std::make_shared<ScriptedTransport>([&](const Target&, const ConnectOptions& options) {
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
  // While the connector thread still serves the queue; a second call is in it.
  Event go;
  const auto fake = std::make_shared<ScriptedTransport>([&](const Target&, const ConnectOptions&) {
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
  const auto fake = std::make_shared<ScriptedTransport>(
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
  const auto fake = std::make_shared<ScriptedTransport>([&](const Target&, const ConnectOptions&) {
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

}  // namespace
}  // namespace shmrpc
