// Peers that fall silent without their connection ending, and peers that are only slow.

#include <signal.h>

#include <list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixture.h"
#include "server_process.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kTimeout = absl::Seconds(1);

TEST_P(ConformanceProcessTest, KeepaliveCallsOnAStoppedServerEnd) {
  ServerProcess server(GetParam().name, listen_address());
  ChannelOptions options = NewChannelOptions();
  options.keepalive_timeout = kTimeout;
  const auto channel = Channel::Create(server.address(), options, GetParam().transports());
  ExpectEcho(channel);

  // Nobody has a deadline. One caller waits, the others are called back.
  Echo::Stub stub(channel);
  constexpr int kAsync = 8;
  EchoRequest held;
  held.set_hold(true);
  std::vector<absl::Status> statuses(1 + kAsync);
  std::vector<ClientContext> contexts(kAsync);
  std::vector<EchoReply> replies(kAsync);
  Counter ended;
  for (int i = 0; i < kAsync; ++i) {
    stub.async().Echo(&contexts[i], &held, &replies[i], [&, i](absl::Status status) {
      statuses[1 + i] = std::move(status);
      ended.Increment();
    });
  }
  std::thread caller([&] { statuses[0] = stub.Echo(held).status(); });
  ASSERT_EQ(kill(server.process().pid(), SIGSTOP), 0);
  caller.join();
  EXPECT_TRUE(ended.WaitFor(kAsync));
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("nothing was heard of the server for 1s"));
  }

  ASSERT_EQ(kill(server.process().pid(), SIGCONT), 0);
  ExpectEchoWhenReady(channel);
  EXPECT_EQ(server.process().Stop(), 0);
}

TEST_P(ConformanceProcessTest, KeepaliveAStoppedClientsCallsAreCancelled) {
  StartServer(NewServerBuilder().SetKeepaliveTimeout(kTimeout), listen_address());
  constexpr int kCalls = 8;
  ChildProcess client({SHMRPC_CONFORMANCE_PEER, "client", GetParam().name, server_address(), absl::StrCat(kCalls)});
  ASSERT_TRUE(service_.held().WaitFor(kCalls));
  ASSERT_EQ(kill(client.pid(), SIGSTOP), 0);
  EXPECT_TRUE(service_.cancelled().WaitFor(kCalls));
  // The others are served, then and meanwhile.
  ExpectEcho(NewChannel());
  ASSERT_EQ(kill(client.pid(), SIGCONT), 0);
  EXPECT_EQ(client.Stop(), 0);
}

// Several ways to be slow, all at once because the time goes by waiting.
TEST_P(ConformanceStreamTest, KeepaliveWhoIsSlowIsNotSilent) {
  StartStreams(ServerStyle::kSynchronous, [](ServerBuilder& builder) {
    builder.SetKeepaliveTimeout(kTimeout);
    builder.SetMaxThreads(3);
  });
  ChannelOptions options = NewChannelOptions();
  options.keepalive_timeout = kTimeout;
  const auto new_channel = [&] { return NewChannel(options); };

  // A reader that does not read, on a connection where nobody receives meanwhile.
  const auto stalled = new_channel();
  Streams::Stub streams(stalled);
  ClientContext context;
  CountRequest count;
  constexpr int kItems = 400;
  count.set_count(kItems);
  count.set_payload_bytes(10000);
  const auto reader = streams.Count(&context, count);
  Item item;
  ASSERT_TRUE(reader->Read(&item));

  // Handlers that run for longer than that, as many as there are threads, and requests that therefore wait in their
  // rings and sockets: small ones on a connection of their own, and more large ones than there is room for.
  const auto busy = new_channel();
  const auto waiting = new_channel();
  const auto full = new_channel();
  for (const auto& channel : {busy, waiting, full}) ExpectEcho(channel);  // later nobody accepts connections
  std::list<std::pair<EchoReply, absl::Status>> calls;
  std::vector<std::thread> threads;
  const auto call = [&](const std::shared_ptr<Channel>& channel, size_t bytes) {
    auto& result = calls.emplace_back();
    threads.emplace_back([channel, bytes, &result] {
      EchoRequest request;
      request.set_hold(true);
      request.set_payload(RandomBytes(bytes, bytes));
      ClientContext call_context;
      result.second = Echo::Stub(channel).Echo(&call_context, request, &result.first);
    });
  };
  for (int i = 0; i < 3; ++i) call(busy, 10);
  ASSERT_TRUE(service_.held().WaitFor(2));
  for (int i = 0; i < 2; ++i) call(waiting, 10);
  for (int i = 0; i < 3; ++i) call(full, 2000000);

  absl::SleepFor(3 * kTimeout);
  service_.Release();
  for (std::thread& thread : threads) thread.join();
  for (const auto& [reply, status] : calls) EXPECT_TRUE(status.ok()) << status;
  int read = 1;
  while (reader->Read(&item)) ++read;
  EXPECT_EQ(read, kItems);
  const absl::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status;
  // No connection was lost.
  for (const auto& channel : {stalled, busy, waiting, full}) EXPECT_EQ(channel->GetState(false), ChannelState::kReady);
}

TEST_P(ConformanceTest, KeepaliveHasALeast) {
  ChannelOptions options = NewChannelOptions();
  options.keepalive_timeout = absl::Milliseconds(99);
  EXPECT_THAT(std::string(Channel::Create(listen_address(), options, GetParam().transports())->status().message()),
              HasSubstr("keepalive_timeout is 99ms; it must be at least 100ms"));
  EXPECT_THAT(std::string(NewServerBuilder()
                              .Listen(listen_address())
                              .SetKeepaliveTimeout(absl::ZeroDuration())
                              .Start()
                              .status()
                              .message()),
              HasSubstr("keepalive_timeout is 0; it must be at least 100ms"));
}

}  // namespace
}  // namespace shmrpc::conformance
