// A channel that knows several addresses.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::AnyOf;

// What Channel::transport() says of a channel with several addresses that is connected to `address`.
std::string ExpectedTransport(const TransportCase& transport_case, const std::string& address) {
  const std::string name = transport_case.transport_name();
  return absl::StrCat(name, " to ", address, transport_case.expected.substr(name.size()));
}

TEST_P(ConformanceTest, AddressesTheNextServerTakesOverWhenOneIsDrained) {
  EchoService other_service;
  auto other_server =
      ServerBuilder(GetParam().transports()).Register(&other_service).Listen(NewListenAddress()).Start();
  ASSERT_TRUE(other_server.ok()) << other_server.status();
  const std::string other_address = (*other_server)->addresses().front().ToString();
  StartServer();
  const std::string address = server_address();
  const auto channel = NewChannelTo(absl::StrCat(address, ",", other_address));
  ExpectEcho(channel);
  EXPECT_EQ(channel->transport(), ExpectedTransport(GetParam(), address));

  std::atomic<bool> stop{false};
  std::atomic<int> replies{1};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      Echo::Stub stub(channel);
      while (!stop) {
        ClientContext context;
        context.set_wait_for_ready(true);
        context.set_timeout(kHangGuard);
        EchoReply reply;
        const absl::Status status = stub.Echo(&context, EchoRequest(), &reply);
        if (status.ok()) ++replies;
        // One that comes to a server on its way out may be sent away, and has not run then.
        EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kOk, absl::StatusCode::kUnavailable)) << status;
      }
    });
  }
  const auto more_replies = [&] {
    const int before = replies;
    return Eventually([&] { return replies > before + 20; });
  };
  EXPECT_TRUE(more_replies());
  EXPECT_EQ(other_service.started().value(), 0);

  server_->Shutdown(absl::Now() + kHangGuard);
  server_ = nullptr;
  const int at_the_first = service_.started().value();
  EXPECT_TRUE(more_replies());
  EXPECT_GT(other_service.started().value(), 0);
  EXPECT_EQ(channel->transport(), ExpectedTransport(GetParam(), other_address));

  // It stays there when the first is back, and returns to it when the second goes.
  StartServer(NewServerBuilder(), address);
  EXPECT_TRUE(more_replies());
  EXPECT_EQ(service_.started().value(), at_the_first);
  (*other_server)->Shutdown(absl::Now() + kHangGuard);
  EXPECT_TRUE(more_replies());
  EXPECT_GT(service_.started().value(), at_the_first);
  EXPECT_EQ(channel->transport(), ExpectedTransport(GetParam(), address));

  stop = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(service_.started().value() + other_service.started().value(), replies);
}

// The server says that it goes: new calls do not wait for those that hold it up.
TEST_P(ConformanceTest, AddressesNewCallsGoToTheNextServerWhileOneDrains) {
  EchoService other_service;
  auto other_server =
      ServerBuilder(GetParam().transports()).Register(&other_service).Listen(NewListenAddress()).Start();
  ASSERT_TRUE(other_server.ok()) << other_server.status();
  StartServer();
  const auto channel =
      NewChannelTo(absl::StrCat(server_address(), ",", (*other_server)->addresses().front().ToString()));
  Echo::Stub stub(channel);
  EchoRequest held;
  held.set_hold(true);
  EchoReply reply;
  absl::Status status;
  Event done;
  stub.async().Echo(nullptr, &held, &reply, [&](absl::Status result) {
    status = std::move(result);
    done.Set();
  });
  ASSERT_TRUE(service_.held().WaitFor(1));

  std::thread shutdown([this] { server_->Shutdown(absl::Now() + kHangGuard); });
  EXPECT_TRUE(Eventually([&] {
    ClientContext context;
    context.set_wait_for_ready(true);
    context.set_timeout(kHangGuard);
    EchoReply other_reply;
    (void)stub.Echo(&context, EchoRequest(), &other_reply);
    return other_service.started().value() > 0;
  }));
  EXPECT_FALSE(done.IsSet());
  service_.Release();
  shutdown.join();
  ASSERT_TRUE(done.Wait());
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(ConformanceTest, AddressesTheFailureNamesEachOfThem) {
  StartServer();
  const std::string address = server_address();
  auto other_server = ServerBuilder(GetParam().transports()).Register(&service_).Listen(NewListenAddress()).Start();
  ASSERT_TRUE(other_server.ok()) << other_server.status();
  const std::string other_address = (*other_server)->addresses().front().ToString();
  server_ = nullptr;
  other_server->reset();

  const absl::Status status =
      NewChannelTo(absl::StrCat(address, ",", other_address))->WaitForConnected(absl::InfiniteFuture());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(absl::StrCat(": ", address, ": ")));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(absl::StrCat("; ", other_address, ": ")));
}

}  // namespace
}  // namespace shmrpc::conformance
