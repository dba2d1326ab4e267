#include "transports/tcp/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::tcp {
namespace {

using framed::UniqueFd;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> ResolvedStrings(std::string_view text) {
  const absl::StatusOr<Target> target = Target::Parse(text);
  EXPECT_TRUE(target.ok()) << target.status();
  const absl::StatusOr<std::vector<SocketAddress>> addresses = Resolve(*target);
  EXPECT_TRUE(addresses.ok()) << addresses.status();
  std::vector<std::string> result;
  if (!addresses.ok()) return result;
  for (const SocketAddress& address : *addresses) result.push_back(address.ToString());
  return result;
}

TEST(SocketAddressTest, CanonicalForms) {
  EXPECT_THAT(ResolvedStrings("127.0.0.1:5"), ElementsAre("ipv4:127.0.0.1:5"));
  EXPECT_THAT(ResolvedStrings("ipv4:10.20.30.40:65535"), ElementsAre("ipv4:10.20.30.40:65535"));
  EXPECT_THAT(ResolvedStrings("[::1]:5"), ElementsAre("ipv6:[::1]:5"));
  EXPECT_THAT(ResolvedStrings("ipv6:[2001:DB8::0:1]:0"), ElementsAre("ipv6:[2001:db8::1]:0"));
  EXPECT_THAT(ResolvedStrings("[fe80::1%lo]:5"), ElementsAre("ipv6:[fe80::1%lo]:5"));
  EXPECT_THAT(ResolvedStrings("unix:relative/path"), ElementsAre("unix:relative/path"));
  EXPECT_THAT(ResolvedStrings("unix:///run/a.sock"), ElementsAre("unix:/run/a.sock"));
  EXPECT_THAT(ResolvedStrings("unix-abstract:some name"), ElementsAre("unix-abstract:some name"));
}

TEST(SocketAddressTest, CanonicalFormsParseAgain) {
  for (const char* text : {"ipv4:127.0.0.1:5", "ipv6:[::1]:5", "ipv6:[fe80::1%lo]:5", "unix:/p", "unix-abstract:n"}) {
    EXPECT_THAT(ResolvedStrings(text), ElementsAre(text));
  }
}

TEST(SocketAddressTest, ToTargetKeepsAllParts) {
  const Target v6 = SocketAddress::FromLiteral("::1", 77)->ToTarget();
  EXPECT_EQ(v6.kind, Target::Kind::kHostPort);
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.port, 77);
  EXPECT_EQ(v6.original, "ipv6:[::1]:77");
  const Target abstract = SocketAddress::FromUnixAbstractName("n")->ToTarget();
  EXPECT_EQ(abstract.kind, Target::Kind::kUnixAbstract);
  EXPECT_EQ(abstract.name, "n");
}

TEST(SocketAddressTest, AnIpv4AddressMappedIntoIpv6IsShownAsIpv4) {
  EXPECT_EQ(SocketAddress::FromLiteral("::ffff:10.0.0.1", 5)->ToString(), "ipv4:10.0.0.1:5");
}

TEST(SocketAddressTest, OnlyLiteralsAreLiterals) {
  for (const char* text : {"", "localhost", "1.2.3", "1.2.3.256", "::g", "%lo", "1.2.3.4%lo", "fe80::1%"}) {
    EXPECT_FALSE(SocketAddress::FromLiteral(text, 5).has_value()) << text;
  }
}

TEST(SocketAddressTest, UnixNamesUpToTheKernelsLimit) {
  const size_t limit = sizeof(sockaddr_un::sun_path) - 1;
  const std::string longest(limit, 'x');
  ASSERT_TRUE(SocketAddress::FromUnixPath(longest).ok());
  EXPECT_EQ(SocketAddress::FromUnixPath(longest)->ToString(), "unix:" + longest);
  ASSERT_TRUE(SocketAddress::FromUnixAbstractName(longest).ok());
  EXPECT_EQ(SocketAddress::FromUnixAbstractName(longest)->ToString(), "unix-abstract:" + longest);

  const absl::Status too_long = SocketAddress::FromUnixPath(longest + "x").status();
  EXPECT_EQ(too_long.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_long.message()), HasSubstr("has 108 bytes"));
  EXPECT_THAT(std::string(too_long.message()), HasSubstr("107"));
  EXPECT_FALSE(SocketAddress::FromUnixAbstractName(longest + "x").ok());
  EXPECT_FALSE(SocketAddress::FromUnixPath("").ok());
  EXPECT_FALSE(SocketAddress::FromUnixAbstractName("").ok());
}

TEST(ResolveTest, LocalhostIsTheLoopbackInterface) {
  EXPECT_THAT(ResolvedStrings("localhost:5"), ElementsAre("ipv4:127.0.0.1:5", "ipv6:[::1]:5"));
  EXPECT_THAT(ResolvedStrings("LocalHost:5"), ElementsAre("ipv4:127.0.0.1:5", "ipv6:[::1]:5"));
}

TEST(ResolveTest, AnUnknownNameIsNamed) {
  // RFC 6761 reserves .invalid: no name server knows it, nor is there a need for one.
  const absl::Status status = Resolve(*Target::Parse("no-such-host.invalid:5")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no-such-host.invalid"));
}

TEST(ResolveTest, ALookupCanBeInterruptedAndTimesOut) {
  const UniqueFd interrupt(eventfd(1, EFD_CLOEXEC));
  const Target target = *Target::Parse("no-such-host.invalid:5");
  EXPECT_EQ(Resolve(target, SteadyTime::InfiniteFuture(), interrupt.get()).status().code(),
            absl::StatusCode::kCancelled);
  const absl::StatusCode late = Resolve(target, SteadyTime::InfinitePast()).status().code();
  // The look-up may have been quicker.
  EXPECT_TRUE(late == absl::StatusCode::kDeadlineExceeded || late == absl::StatusCode::kUnavailable) << late;
}

TEST(ResolveTest, InprocHasNoSocket) {
  EXPECT_EQ(Resolve(*Target::Parse("inproc:name")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PeerTest, CredentialsOfAUnixSocketAreThisProcess) {
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  const UniqueFd a(sockets[0]);
  const UniqueFd b(sockets[1]);
  const std::optional<PeerCredentials> credentials = GetPeerCredentials(a.get());
  ASSERT_TRUE(credentials.has_value());
  EXPECT_EQ(credentials->pid, getpid());
  EXPECT_EQ(credentials->uid, geteuid());
  EXPECT_EQ(credentials->gid, getegid());
  std::vector<gid_t> groups(static_cast<size_t>(getgroups(0, nullptr)));
  ASSERT_EQ(getgroups(static_cast<int>(groups.size()), groups.data()), static_cast<int>(groups.size()));
  EXPECT_EQ(credentials->groups, groups);
  EXPECT_EQ(PeerHost(a.get()), "");
  EXPECT_EQ(PeerAddress(a.get()), "unix:");
}

TEST(PeerTest, NoCredentialsWithoutAConnectedUnixSocket) {
  const UniqueFd tcp(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_FALSE(GetPeerCredentials(tcp.get()).has_value());
  const UniqueFd lonely(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_FALSE(GetPeerCredentials(lonely.get()).has_value());
  EXPECT_FALSE(GetPeerCredentials(-1).has_value());
  EXPECT_EQ(PeerAddress(tcp.get()), "unknown");
  EXPECT_EQ(LocalAddress(-1), "unknown");
}

}  // namespace
}  // namespace shmrpc::tcp
