#include "transports/tcp/listening_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/tcp_sockets.h"

namespace shmrpc::tcp {
namespace {

using framed::UniqueFd;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// ---- TCP

TEST(ListenTcpTest, ThePortIsTheRealOne) {
  const absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_EQ(listening->bound().host, "127.0.0.1");
  EXPECT_GT(listening->bound().port, 0);
  EXPECT_EQ(listening->bound().original, absl::StrCat("ipv4:127.0.0.1:", listening->bound().port));
  EXPECT_NE(fcntl(listening->fd(), F_GETFL) & O_NONBLOCK, 0);
  ExpectConnects(*listening, listening->bound().original, /*tcp=*/true);
}

TEST(ListenTcpTest, LocalhostIsTheLoopbackOfIpv4AndOfIpv6) {
  const absl::StatusOr<std::vector<ListeningSocket>> listening = ListenSockets(T("localhost:0"), 0600);
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_EQ((*listening)[0].bound().host, "127.0.0.1");
  const uint16_t port = (*listening)[0].bound().port;
  ExpectConnects((*listening)[0], absl::StrCat("localhost:", port), /*tcp=*/true);
  ASSERT_EQ(listening->size(), HasIpv6() ? 2u : 1u);
  if (listening->size() == 1) return;
  EXPECT_EQ((*listening)[1].bound().host, "::1");
  EXPECT_EQ((*listening)[1].bound().port, port);
  ExpectConnects((*listening)[1], absl::StrCat("[::1]:", port), /*tcp=*/true);
}

TEST(ListenTcpTest, APortThatIsInUseAtOneAddressOfANameIsNamed) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here, and localhost has one address";
  const absl::StatusOr<ListeningSocket> other = Listen("[::1]:0");
  ASSERT_TRUE(other.ok()) << other.status();
  const absl::Status status = Listen(absl::StrCat("localhost:", other->bound().port)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
  EXPECT_THAT(Message(status), HasSubstr(other->bound().original));
}

TEST(ListenTcpTest, AllInterfaces) {
  const absl::StatusOr<ListeningSocket> listening = Listen("0.0.0.0:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  ExpectConnects(*listening, absl::StrCat("127.0.0.1:", listening->bound().port), /*tcp=*/true);
}

TEST(ListenTcpTest, Ipv6AndIpv4OnAllInterfaces) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  const absl::StatusOr<ListeningSocket> loopback = Listen("[::1]:0");
  ASSERT_TRUE(loopback.ok()) << loopback.status();
  EXPECT_THAT(loopback->bound().original, StartsWith("ipv6:[::1]:"));
  ExpectConnects(*loopback, loopback->bound().original, /*tcp=*/true);
  // localhost has two addresses, and only the second one is served.
  ExpectConnects(*loopback, absl::StrCat("localhost:", loopback->bound().port), /*tcp=*/true);

  const absl::StatusOr<ListeningSocket> all = Listen("[::]:0");
  ASSERT_TRUE(all.ok()) << all.status();
  ExpectConnects(*all, absl::StrCat("[::1]:", all->bound().port), /*tcp=*/true);
  ExpectConnects(*all, absl::StrCat("127.0.0.1:", all->bound().port), /*tcp=*/true);
}

TEST(ListenTcpTest, APortInUseIsNamed) {
  const absl::StatusOr<ListeningSocket> first = Listen("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status status = Listen(first->bound().original).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(status), HasSubstr(first->bound().original));
}

TEST(ListenTcpTest, ThePortIsFreeAgainAtOnce) {
  absl::StatusOr<ListeningSocket> first = Listen("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = first->bound().original;
  const absl::StatusOr<UniqueFd> client = Connect(address);
  ASSERT_TRUE(client.ok()) << client.status();
  Accept(*first);  // closes its end first, which leaves the port in TIME_WAIT
  first->Close();
  const absl::StatusOr<ListeningSocket> second = Listen(address);
  EXPECT_TRUE(second.ok()) << second.status();
}

TEST(ListenTcpTest, AForeignAddressIsRefused) {
  // TEST-NET-1 (RFC 5737) belongs to no host.
  const absl::Status status = Listen("192.0.2.1:0").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Message(status), AllOf(HasSubstr("ipv4:192.0.2.1:0"), HasSubstr("EADDRNOTAVAIL")));
}

TEST(ListenTcpTest, InprocHasNoSocket) {
  EXPECT_EQ(Listen("inproc:name").status().code(), absl::StatusCode::kInvalidArgument);
}

// ---- Accepting

TEST(AcceptTest, NoneIsNotAnError) {
  const absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const absl::StatusOr<std::optional<UniqueFd>> accepted = AcceptSocket(listening->fd());
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_FALSE(accepted->has_value());
}

// Who shares the socket may clear O_NONBLOCK: it belongs to what is shared.
TEST(AcceptTest, NoneIsNotWaitedForOnASocketThatOthersHaveMadeABlockingOne) {
  const TemporaryDirectory directory;
  for (const std::string& address : {std::string("127.0.0.1:0"), absl::StrCat("unix:", directory / "s")}) {
    const absl::StatusOr<ListeningSocket> listening = Listen(address);
    ASSERT_TRUE(listening.ok()) << listening.status();
    const UniqueFd shared(dup(listening->fd()));
    ASSERT_EQ(fcntl(shared.get(), F_SETFL, fcntl(shared.get(), F_GETFL) & ~O_NONBLOCK), 0);
    ASSERT_EQ(fcntl(listening->fd(), F_GETFL) & O_NONBLOCK, 0);
    const absl::StatusOr<std::optional<UniqueFd>> none = AcceptSocket(listening->fd());
    ASSERT_TRUE(none.ok()) << none.status();
    EXPECT_FALSE(none->has_value());
    ExpectConnects(*listening, listening->bound().original, listening->bound().kind == Target::Kind::kHostPort);
  }
}

TEST(AcceptTest, WithoutDescriptorsConnectionsWaitUntilThereAreSome) {
  const absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const absl::StatusOr<UniqueFd> client = Connect(listening->bound().original);
  ASSERT_TRUE(client.ok()) << client.status();
  pollfd readable = {listening->fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 30'000), 1);

  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old_limit), 0);
  const UniqueFd lowest_free(dup(0));
  const rlimit none_left = {static_cast<rlim_t>(lowest_free.get()), old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none_left), 0);
  const absl::Status accepted = AcceptSocket(listening->fd()).status();
  const absl::Status connected = Connect(listening->bound().original).status();
  const absl::Status listened = Listen("127.0.0.1:0").status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old_limit), 0);

  EXPECT_EQ(accepted.code(), absl::StatusCode::kResourceExhausted) << accepted;
  EXPECT_EQ(connected.code(), absl::StatusCode::kUnavailable) << connected;
  EXPECT_EQ(listened.code(), absl::StatusCode::kResourceExhausted) << listened;
  for (const absl::Status& status : {accepted, connected, listened}) {
    EXPECT_THAT(Message(status), AllOf(HasSubstr("EMFILE"), HasSubstr("127.0.0.1"), HasSubstr("ulimit -n")));
  }
  EXPECT_TRUE(Accept(*listening).valid());
}

TEST(AcceptTest, ASocketThatDoesNotListenIsFatal) {
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  EXPECT_EQ(AcceptSocket(socket.get()).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(AcceptSocket(-1).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace shmrpc::tcp
