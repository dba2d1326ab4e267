#include "transports/tcp/connect_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/tcp_sockets.h"

namespace shmrpc::tcp {
namespace {

using framed::UniqueFd;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ConnectTest, NobodyListens) {
  absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const std::string address = listening->bound().original;
  listening->Close();
  const absl::Status status = Connect(address).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(status), absl::StrCat("nothing listens on ", address,
                                          " (Connection refused): is the server running, and is this its address?"));

  const TemporaryDirectory directory;
  const absl::Status no_file = Connect(absl::StrCat("unix:", directory / "s")).status();
  EXPECT_EQ(no_file.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(no_file), AllOf(HasSubstr(directory / "s"), HasSubstr("No such file or directory")));
  MakeStaleFile(directory / "s");
  EXPECT_THAT(Message(Connect(absl::StrCat("unix:", directory / "s")).status()), HasSubstr("Connection refused"));
  MakeStaleFile(directory / "d", SOCK_DGRAM);
  EXPECT_EQ(Connect(absl::StrCat("unix:", directory / "d")).status().code(), absl::StatusCode::kUnavailable);
}

TEST(ConnectTest, AllAddressesOfANameAreTriedAndNamed) {
  absl::StatusOr<ListeningSocket> listening = Listen("localhost:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const uint16_t port = listening->bound().port;
  listening->Close();
  const absl::Status status = Connect(absl::StrCat("localhost:", port)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(absl::StrCat("ipv4:127.0.0.1:", port)), HasSubstr(absl::StrCat("ipv6:[::1]:", port))));
}

TEST(ConnectTest, AnAddressThatDoesNotAnswerKeepsNobodyFromTheNext) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here, and localhost has one address";
  const FullServer silent(*SocketAddress::FromLiteral("127.0.0.1", 0));
  const uint16_t port = T(silent.address()).port;
  const absl::StatusOr<ListeningSocket> listening = Listen(absl::StrCat("[::1]:", port));
  ASSERT_TRUE(listening.ok()) << listening.status();
  const UniqueFd hangs(eventfd(0, EFD_CLOEXEC));
  Mutex mutex;
  CondVar over;
  bool connected = false;
  std::thread guard([&] {
    MutexLock lock(&mutex);
    const SteadyTime give_up = SteadyTime::Now() + kHangGuard;
    while (!connected && !give_up.HasPassed()) over.WaitUntil(&mutex, give_up);
    eventfd_write(hangs.get(), 1);
  });
  // There is no end to the time that the first one may take.
  const absl::StatusOr<UniqueFd> client =
      ConnectSocket(T(absl::StrCat("localhost:", port)), SteadyTime::InfiniteFuture(), hangs.get());
  {
    MutexLock lock(&mutex);
    connected = true;
    over.SignalAll();
  }
  guard.join();
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(PeerAddress(client->get()), listening->bound().original);
}

class ConnectToFullServerTest : public ::testing::TestWithParam<bool> {
 protected:
  ConnectToFullServerTest()
      : server_(GetParam() ? *SocketAddress::FromUnixPath(directory_ / "s")
                           : *SocketAddress::FromLiteral("127.0.0.1", 0)) {}

  TemporaryDirectory directory_;
  FullServer server_;
};

TEST_P(ConnectToFullServerTest, TimesOut) {
  const absl::Status status = Connect(server_.address(), absl::Milliseconds(50)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(Message(status), HasSubstr(server_.address()));
  EXPECT_EQ(ConnectSocket(T(server_.address()), SteadyTime::InfinitePast()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_P(ConnectToFullServerTest, IsInterrupted) {
  const UniqueFd interrupt(eventfd(0, EFD_CLOEXEC));
  std::thread interrupter([&interrupt] {
    absl::SleepFor(absl::Milliseconds(20));
    const uint64_t one = 1;
    EXPECT_EQ(write(interrupt.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  });
  const absl::Status status =
      ConnectSocket(T(server_.address()), SteadyTime::InfiniteFuture(), interrupt.get()).status();
  interrupter.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_THAT(Message(status), HasSubstr(server_.address()));
}

TEST_P(ConnectToFullServerTest, ConnectsOnceThereIsRoom) {
  std::atomic<bool> stop{false};
  std::thread accepter([this, &stop] {
    std::vector<UniqueFd> accepted;
    while (!stop) {
      pollfd readable = {server_.fd(), POLLIN, 0};
      if (poll(&readable, 1, 10) == 1) accepted.emplace_back(accept4(server_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    }
  });
  const absl::StatusOr<UniqueFd> client = Connect(server_.address());
  stop = true;
  accepter.join();
  EXPECT_TRUE(client.ok()) << client.status();
}

INSTANTIATE_TEST_SUITE_P(TcpAndUnix, ConnectToFullServerTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Unix" : "Tcp"; });

}  // namespace
}  // namespace shmrpc::tcp
