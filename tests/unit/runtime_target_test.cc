#include "shmrpc/target.h"

#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc {
namespace {

using ::testing::HasSubstr;

struct GoodAddress {
  std::string text;
  Target::Kind kind;
  std::string host;
  int port;
  std::string name;
  std::string canonical;
};

TEST(TargetTest, ParsesEveryForm) {
  using Kind = Target::Kind;
  const GoodAddress cases[] = {
      {"localhost:50051", Kind::kHostPort, "localhost", 50051, "", "localhost:50051"},
      {"a-b_c.example.:1", Kind::kHostPort, "a-b_c.example.", 1, "", "a-b_c.example.:1"},
      {"0.0.0.0:0", Kind::kHostPort, "0.0.0.0", 0, "", "0.0.0.0:0"},
      {"127.0.0.1:65535", Kind::kHostPort, "127.0.0.1", 65535, "", "127.0.0.1:65535"},
      {"[::1]:50051", Kind::kHostPort, "::1", 50051, "", "[::1]:50051"},
      {"[fe80::1%eth0]:80", Kind::kHostPort, "fe80::1%eth0", 80, "", "[fe80::1%eth0]:80"},
      {"dns:localhost:1", Kind::kHostPort, "localhost", 1, "", "localhost:1"},
      {"dns:///localhost:1", Kind::kHostPort, "localhost", 1, "", "localhost:1"},
      {"dns:///[::]:1", Kind::kHostPort, "::", 1, "", "[::]:1"},
      {"dns:unix:80", Kind::kHostPort, "unix", 80, "", "dns:unix:80"},
      {"ipv4:10.0.0.1:7", Kind::kHostPort, "10.0.0.1", 7, "", "10.0.0.1:7"},
      {"ipv6:[2001:db8::2]:7", Kind::kHostPort, "2001:db8::2", 7, "", "[2001:db8::2]:7"},
      {"unix:relative.sock", Kind::kUnix, "", 0, "relative.sock", "unix:relative.sock"},
      {"unix:/run/a b.sock", Kind::kUnix, "", 0, "/run/a b.sock", "unix:/run/a b.sock"},
      {"unix:///run/x.sock", Kind::kUnix, "", 0, "/run/x.sock", "unix:/run/x.sock"},
      {"unix:////run/x.sock", Kind::kUnix, "", 0, "//run/x.sock", "unix:////run/x.sock"},
      {"unix:" + std::string(107, 'p'), Kind::kUnix, "", 0, std::string(107, 'p'), "unix:" + std::string(107, 'p')},
      {"unix:/run/a%20b%2Csock", Kind::kUnix, "", 0, "/run/a b,sock", "unix:/run/a b%2Csock"},
      {"unix:///run/%41%25%7e", Kind::kUnix, "", 0, "/run/A%~", "unix:/run/A%25~"},
      {"unix:/run/100%", Kind::kUnix, "", 0, "/run/100%", "unix:/run/100%25"},
      {"unix:/run/%4", Kind::kUnix, "", 0, "/run/%4", "unix:/run/%254"},
      {"unix:/run/%zz", Kind::kUnix, "", 0, "/run/%zz", "unix:/run/%25zz"},
      {"unix:/run/%2541", Kind::kUnix, "", 0, "/run/%41", "unix:/run/%2541"},
      {"unix-abstract:a%2fb", Kind::kUnixAbstract, "", 0, "a/b", "unix-abstract:a/b"},
      {"unix-abstract:my:name", Kind::kUnixAbstract, "", 0, "my:name", "unix-abstract:my:name"},
      {"inproc:a/b", Kind::kInproc, "", 0, "a/b", "inproc:a/b"},
      {"grpc:localhost:1", Kind::kGrpc, "", 0, "localhost:1", "grpc:localhost:1"},
      {"grpc:ipv4:10.0.0.1:1,10.0.0.2:1", Kind::kGrpc, "", 0, "ipv4:10.0.0.1:1,10.0.0.2:1",
       "grpc:ipv4:10.0.0.1:1,10.0.0.2:1"},
      {"grpc+unix:/run/x", Kind::kGrpc, "", 0, "unix:/run/x", "grpc:unix:/run/x"},
  };
  for (const GoodAddress& good : cases) {
    SCOPED_TRACE(good.text);
    absl::StatusOr<Target> target = Target::Parse(good.text);
    ASSERT_TRUE(target.ok()) << target.status();
    EXPECT_EQ(target->kind, good.kind);
    EXPECT_EQ(target->host, good.host);
    EXPECT_EQ(target->port, good.port);
    EXPECT_EQ(target->name, good.name);
    EXPECT_EQ(target->original, good.text);
    EXPECT_EQ(target->ToString(), good.canonical);

    absl::StatusOr<Target> again = Target::Parse(target->ToString());
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->kind, good.kind);
    EXPECT_EQ(again->host, good.host);
    EXPECT_EQ(again->port, good.port);
    EXPECT_EQ(again->name, good.name);
  }
}

TEST(TargetTest, ExplainsWhatIsWrong) {
  struct {
    std::string text;
    std::string quoted;  // how the error shows the text
    std::string why;     // a part of the explanation
  } const cases[] = {
      {"", "\"\"", "it is empty"},
      {"localhost", "localhost", "localhost:50051"},
      {":50051", ":50051", "0.0.0.0:50051"},
      {"grpc:", "grpc:", "what follows"},
      {"grpc:50051", "grpc:50051", "dns:grpc:50051"},
      {"grpc+unix:", "grpc+unix:", "path"},
      {"localhost:", "localhost:", "the port after ':' is missing"},
      {"localhost:65536", "localhost:65536", "0 to 65535"},
      {"localhost:99999999999999999999", "99999999999999999999", "0 to 65535"},
      {"localhost:-1", "localhost:-1", "0 to 65535"},
      {"localhost:+1", "localhost:+1", "0 to 65535"},
      {"localhost: 80", "localhost: 80", "0 to 65535"},
      {"localhost:http", "localhost:http", "0 to 65535"},
      {"xyz:localhost:50051", "xyz:localhost:50051", "\"xyz:\" was meant as a scheme"},
      {"http://example.com:80", "http://example.com:80", "scheme \"http\" is not known"},
      {"http://x", "http://x", "host:port"},
      {"two words:1", "two words:1", "contains ' '"},
      {"a..b:1", "a..b:1", "empty part"},
      {std::string(64, 'a') + ":1", "aaaa", "the limit is 63"},
      {std::string("ab.") + std::string(260, 'a') + ":1", "ab.", "the limit is 253"},
      {"h\xc3\xb6st:1", "h\\xc3\\xb6st:1", "contains '\\xc3'"},
      {std::string("nul\0host:1", 10), "nul\\x00host:1", "contains '\\x00'"},
      {"999.1.1.1:80", "999.1.1.1:80", "not an IPv4 address"},
      {"1.2.3:80", "1.2.3:80", "four numbers"},
      {"::1", "::1", "[::1]:50051"},
      {"fe80::1:50051", "fe80::1:50051", "write [fe80::1]:50051"},
      {"2001:db8:1:2:3:4:5:6:80", "2001:db8", "[2001:db8:1:2:3:4:5:6]:80"},
      {"[::1", "[::1", "not closed"},
      {"[::1]", "[::1]", "[::1]:50051"},
      {"[::1]80", "[::1]80", "only :port may follow"},
      {"[localhost]:80", "[localhost]:80", "not an IPv6 address"},
      {"[fe80::1%]:80", "[fe80::1%]:80", "not an IPv6 address"},
      {"dns://8.8.8.8/example.com:1", "dns://8.8.8.8", "dns:///host:port"},
      {"dns:", "dns:", "missing"},
      {"ipv4:localhost:1", "ipv4:localhost:1", "ipv4:127.0.0.1:50051"},
      {"ipv4:[::1]:1", "ipv4:[::1]:1", "not an IPv4 address"},
      {"ipv6:127.0.0.1:1", "ipv6:127.0.0.1:1", "ipv6:[::1]:50051"},
      {"unix:", "unix:", "path after \"unix:\" is missing"},
      {"unix://run/x", "unix://run/x", "unix:///run/server.sock"},
      {"unix:" + std::string(108, 'p'), "pppp", "limit for a Unix socket is 107"},
      {"unix-abstract:", "unix-abstract:", "name after \"unix-abstract:\" is missing"},
      {"unix-abstract:" + std::string(108, 'n'), "nnnn", "has 108 bytes"},
      {std::string("unix:a\0x", 8), "unix:a\\x00x", "NUL"},
      {"unix:a%00x", "unix:a%00x", "NUL"},
      {"inproc:", "inproc:", "name after \"inproc:\" is missing"},
      {"a:1,b:2", "a:1,b:2", "Listen is called once for each address"},
      {"unix:/run/a,b", "unix:/run/a,b", "path has no comma"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.text);
    absl::StatusOr<Target> target = Target::Parse(bad.text);
    ASSERT_FALSE(target.ok()) << target->ToString();
    EXPECT_EQ(target.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(target.status().message()), HasSubstr(bad.quoted));
    EXPECT_THAT(std::string(target.status().message()), HasSubstr(bad.why));
  }
}

TEST(TargetListTest, ParsesLists) {
  struct {
    std::string text;
    std::vector<std::string> canonical;
  } const cases[] = {
      {"a:1", {"a:1"}},
      {"a:1,b:2,a:1", {"a:1", "b:2", "a:1"}},
      {"dns:///a:1,b:2", {"a:1", "b:2"}},
      {"ipv4:127.0.0.1:1,127.0.0.2:2", {"127.0.0.1:1", "127.0.0.2:2"}},
      {"ipv6:[::1]:1,[::2]:2", {"[::1]:1", "[::2]:2"}},
      {"ipv4:127.0.0.1:1,dns:b:2,c:3", {"127.0.0.1:1", "b:2", "c:3"}},
      {"ipv4:127.0.0.1:1,ipv6:[::1]:2,[::2]:3", {"127.0.0.1:1", "[::1]:2", "[::2]:3"}},
      {"unix:/a,unix:/b", {"unix:/a", "unix:/b"}},
      {"grpc:ipv4:10.0.0.1:1,10.0.0.2:2,grpc:b:2,dns:c:3,d:4",
       {"grpc:ipv4:10.0.0.1:1,10.0.0.2:2", "grpc:b:2", "c:3", "d:4"}},
      {"a:1,unix:b c,unix-abstract:d,inproc:e,[::1]:5", {"a:1", "unix:b c", "unix-abstract:d", "inproc:e", "[::1]:5"}},
  };
  for (const auto& good : cases) {
    SCOPED_TRACE(good.text);
    const absl::StatusOr<std::vector<Target>> targets = Target::ParseList(good.text);
    ASSERT_TRUE(targets.ok()) << targets.status();
    std::vector<std::string> canonical, original;
    for (const Target& target : *targets) {
      canonical.push_back(target.ToString());
      original.push_back(target.original);
    }
    EXPECT_EQ(canonical, good.canonical);
    EXPECT_EQ(absl::StrJoin(original, ","), good.text);
  }
}

TEST(TargetListTest, NamesTheAddressThatIsWrong) {
  struct {
    std::string text;
    std::string quoted;  // the address and its place
    std::string why;
  } const cases[] = {
      {"localhost", "address \"localhost\"", "localhost:50051"},
      {",", "(number 1 of 2 in \",\")", "before the first"},
      {"a:1,", "(number 2 of 2 in \"a:1,\")", "after the last"},
      {",a:1", "(number 1 of 2", "before the first"},
      {"a:1,,b:2", "address \"\": between two commas", "(number 2 of 3"},
      {"a:1, b:2", "address \" b:2\"", "no white space"},
      {"a:1,b,c:3", "address \"b\": the port is missing", "(number 2 of 3 in \"a:1,b,c:3\")"},
      {"a:1,b:x", "address \"b:x\"", "is not a number"},
      {"ipv4:127.0.0.1:1,localhost:2", "address \"localhost:2\"", "write dns:host:port to end that"},
      {"ipv4:127.0.0.1:1,[::1]:2", "address \"[::1]:2\"", "not an IPv4 address"},
      {"ipv6:[::1]:1,127.0.0.1:2", "address \"127.0.0.1:2\"", "the scheme of an address before it"},
      {"unix:/a,/b", "address \"/b\"", "each with its own \"unix:\""},
      {"inproc:a,b", "address \"b\"", "each with its own \"inproc:\""},
      {"unix:/a,unix:", "address \"unix:\"", "path after \"unix:\" is missing"},
      {std::string("a:1,b\0:2", 8), "address \"b\\x00:2\"", "in \"a:1,b\\x00:2\""},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.text);
    const absl::Status status = Target::ParseList(bad.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.quoted));
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.why));
  }
}

}  // namespace
}  // namespace shmrpc
