// Servers that take turns, or want the same address, and clients that all come at once.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "case_selection.h"
#include "fixture.h"
#include "server_process.h"

namespace shmrpc::conformance {
namespace {

using testing::HasSubstr;

class TwoServersTest : public ConformanceTest {};

TEST_P(TwoServersTest, TheSecondOfTwoProcessesIsRefusedAndTheFirstGoesOn) {
  ServerProcess first(GetParam().name, listen_address());
  const auto channel = NewChannelTo(first.address());
  ExpectEcho(channel);
  const absl::StatusOr<std::unique_ptr<Server>> second = NewServerBuilder().Listen(first.address()).Start();
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(first.address()));
  ExpectEcho(channel);
  ExpectEcho(NewChannelTo(first.address()));
  EXPECT_EQ(service_.started().value(), 0);
}

TEST_P(TwoServersTest, OfManyThatStartAtOnceOneWins) {
  // An address that is free, and left behind by a server that was killed: of a Unix socket the file is there.
  std::string address;
  {
    ServerProcess before(GetParam().name, listen_address());
    address = before.address();
  }
  constexpr int kServers = 8;
  std::vector<absl::StatusOr<std::unique_ptr<Server>>> servers(kServers);
  std::vector<std::thread> threads;
  for (int i = 0; i < kServers; ++i) {
    threads.emplace_back([&, i] { servers[i] = NewServerBuilder().Listen(address).Start(); });
  }
  for (std::thread& thread : threads) thread.join();
  int running = 0;
  for (const auto& server : servers) {
    if (server.ok()) {
      ++running;
    } else {
      EXPECT_EQ(server.status().code(), absl::StatusCode::kAlreadyExists) << server.status();
    }
  }
  EXPECT_EQ(running, 1);
  ExpectEcho(NewChannelTo(address));
  EXPECT_EQ(service_.started().value(), 1);
}

INSTANTIATE_TEST_SUITE_P(Transport, TwoServersTest, testing::ValuesIn(TransportCasesAcrossProcesses()), CaseName);

// A port whose connections are all ended at once, as by a server that has no room, and counted.
class PortThatSendsAway {
 public:
  explicit PortThatSendsAway(uint16_t port) : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0) << strerror(errno);
    EXPECT_EQ(listen(listener_, SOMAXCONN), 0);
    thread_ = std::thread([this] {
      while (!stop_) {
        pollfd readable = {listener_, POLLIN, 0};
        if (poll(&readable, 1, 10) <= 0) continue;
        const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (client < 0) continue;
        close(client);
        sent_away_.Increment();
      }
    });
  }
  ~PortThatSendsAway() {
    stop_ = true;
    thread_.join();
    close(listener_);
  }

  const Counter& sent_away() const { return sent_away_; }

 private:
  const int listener_;
  std::atomic<bool> stop_{false};
  Counter sent_away_;
  std::thread thread_;
};

class ReconnectTest : public ConformanceTest {};

TEST_P(ReconnectTest, AHundredClientsBackOffAndAreServedWhenThereIsAServer) {
  StartServer();
  const std::string address = server_address();
  uint32_t port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port)) << address;
  constexpr int kClients = 100;
  ChannelOptions options = NewChannelOptions();
  options.initial_backoff = absl::Milliseconds(100);
  options.max_backoff = absl::Seconds(1);
  std::vector<std::shared_ptr<Channel>> channels(kClients);
  for (auto& channel : channels) {
    channel = NewChannel(options);
    ExpectEcho(channel);
  }
  server_ = nullptr;

  std::vector<std::thread> callers;
  {
    PortThatSendsAway away(static_cast<uint16_t>(port));
    for (const auto& channel : channels) callers.emplace_back([&] { ExpectEchoWhenReady(channel); });
    const SteadyTime begin = SteadyTime::Now();
    EXPECT_TRUE(away.sent_away().WaitFor(3 * kClients));
    // Had each waited no longer than it must, 80 ms and then 1.6 times as long each time up to 800 ms, it could not
    // have come more often than this. A client that does not back off comes thousands of times.
    const absl::Duration elapsed = SteadyTime::Now() - begin;
    int possible = 1;
    absl::Duration pause = absl::Milliseconds(80);
    for (absl::Duration at = pause; at < elapsed; at += pause) {
      ++possible;
      pause = std::min(1.6 * pause, absl::Milliseconds(800));
    }
    // The first attempt may follow a loss; and the kernel takes connections before they are counted.
    EXPECT_LE(away.sent_away().value(), (possible + 2) * kClients) << "in " << elapsed;
  }
  StartServer(NewServerBuilder(), address);
  for (std::thread& caller : callers) caller.join();
  for (const auto& channel : channels) EXPECT_EQ(channel->transport(), GetParam().expected);
  EXPECT_EQ(service_.started().value(), 2 * kClients);
}

INSTANTIATE_TEST_SUITE_P(Transport, ReconnectTest, testing::ValuesIn(CasesNamed({"shm", "auto", "tcp"})), CaseName);

}  // namespace
}  // namespace shmrpc::conformance
