// Whether a channel can work, and its state, on transports made for the purpose.

#include "shmrpc/channel.h"

#include <stdlib.h>

#include <functional>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/runtime_scripted_transport.h"

namespace shmrpc {
namespace {

using testing::Call;
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
  const auto fake = std::make_shared<ScriptedTransport>([&](const Target&, const ConnectOptions& options) {
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
  const auto fake = std::make_shared<ScriptedTransport>([&](const Target&, const ConnectOptions&) {
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
