// Many clients that make a server keep as much as they can, of each kind that there is, and then do
// nothing: the server's process stays within what its budget says, and serves the others.

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conformance.shmrpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "native_peer.h"
#include "native_wire.h"
#include "server_process.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"
#include "tests/sanitizers.h"

namespace shmrpc::fault {
namespace {

using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Eventually;
using conformance::kHangGuard;
using conformance::ServerProcess;
using ::testing::HasSubstr;

constexpr bool kLong = SHMRPC_LONG_TESTS != 0;
constexpr size_t kMiB = size_t{1} << 20;

// How clients make a server keep things.
enum class Kind {
  kUnreadReplies,  // large replies that nobody reads
  kBadPaths,       // small requests for a method of 4095 bytes that there is not, and the refusals unread
  kHalfRequests,   // a message of 16 MiB, of which a part comes
  kUnreadStreams,  // streams with windows without end, and nobody reads
  kMethods,        // as many methods as there may be, with empty names
  kHalfHellos,     // and silence
};
constexpr Kind kKinds[] = {Kind::kUnreadReplies, Kind::kBadPaths, Kind::kHalfRequests,
                           Kind::kUnreadStreams, Kind::kMethods,  Kind::kHalfHellos};
constexpr size_t kKindsCount = std::size(kKinds);

// Private memory of a process, in bytes.
size_t PrivateBytes(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  std::string word;
  size_t kibibytes = 0;
  while (status >> word) {
    if (word == "RssAnon:") status >> kibibytes;
  }
  return kibibytes * 1024;
}

// What such a client sends after its hello.
std::string Attack(Kind kind) {
  std::string bytes;
  const auto add = [&bytes](const NativeFrame& frame) { bytes += EncodeFrame(frame); };
  const std::string bad_path = "/" + std::string(4095, '\xff');
  EchoRequest large;
  large.set_reply_bytes(60 * 1024);
  large.set_payload(std::string(1000, 'x'));  // so that some of it stays unread, too: then a hang-up is seen at once
  conformance::CountRequest count;
  count.set_count(1'000'000);
  count.set_payload_bytes(50'000);
  switch (kind) {
    case Kind::kUnreadReplies:
      add({.type = kMethodFrame, .body = "/shmrpc.conformance.Echo/Echo"});
      for (uint64_t id = 1; id <= 400; ++id) {
        add({.type = kRequestFrame, .call_id = id, .body = large.SerializeAsString()});
      }
      break;
    case Kind::kBadPaths:
      add({.type = kMethodFrame, .body = bad_path});
      for (uint64_t id = 1; id <= 1100; ++id) add({.type = kRequestFrame, .call_id = id});
      break;
    case Kind::kHalfRequests:
      add({.type = kMethodFrame, .body = "/shmrpc.conformance.Echo/Echo"});
      add({.type = kRequestFrame, .flags = kMore, .call_id = 1, .body = U32(16 << 20) + std::string(60'000, 'x')});
      for (int i = 0; i < 32; ++i) {
        add({.type = kFragmentFrame, .flags = kMore, .call_id = 1, .body = std::string(60'000, 'x')});
      }
      break;
    case Kind::kUnreadStreams:
      add({.type = kMethodFrame, .body = "/shmrpc.conformance.Streams/Count"});
      for (uint64_t id = 1; id <= 20; ++id) {
        add({.type = kRequestFrame, .call_id = id, .body = count.SerializeAsString()});
      }
      break;
    case Kind::kMethods:
      for (uint16_t number = 0; number < 32'000; ++number) add({.type = kMethodFrame, .code = number});
      break;
    case Kind::kHalfHellos:
      break;
  }
  return bytes;
}

// A client of that kind, as far as the server takes what it sends.
class Attacker {
 public:
  Attacker(Kind kind, uint16_t port, const std::string* attack) : attack_(attack), socket_(ConnectTcpSocket(port)) {
    Hello hello;
    hello.window->call_bytes = hello.window->connection_bytes = uint64_t{1} << 30;
    hello_ = hello.EncodeAsClient();
    if (kind == Kind::kHalfHellos) hello_.resize(hello_.size() / 2);
    // What waits in the kernel is not the server's.
    const int small = 4096;
    EXPECT_EQ(setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    EXPECT_EQ(fcntl(socket_.get(), F_SETFL, O_NONBLOCK), 0);
  }

  // Sends what there is room for; whether that was anything.
  bool Continue() {
    bool sent_something = false;
    while (sent_ < hello_.size() + attack_->size()) {
      const std::string& from = sent_ < hello_.size() ? hello_ : *attack_;
      const size_t offset = sent_ < hello_.size() ? sent_ : sent_ - hello_.size();
      const ssize_t sent = send(socket_.get(), from.data() + offset, from.size() - offset, MSG_NOSIGNAL);
      if (sent <= 0) return sent_something;
      sent_ += static_cast<size_t>(sent);
      sent_something = true;
    }
    return sent_something;
  }

  // Whether the server has hung up; what it has sent stays unread.
  bool HasEnded() const {
    pollfd hang_up = {socket_.get(), POLLRDHUP, 0};
    return poll(&hang_up, 1, 0) > 0 && (hang_up.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  }

 private:
  std::string hello_;
  const std::string* const attack_;
  const framed::UniqueFd socket_;
  size_t sent_ = 0;
};

// One call, again for as long as the server has no memory to spare or gives way.
absl::Status CallAnyhow(Echo::Stub& stub) {
  absl::Status status;
  const absl::Time give_up = absl::Now() + kHangGuard;
  do {
    ClientContext context;
    context.set_timeout(kHangGuard);
    EchoRequest request;
    EchoReply reply;
    status = stub.Echo(&context, request, &reply);
  } while ((absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) && absl::Now() < give_up);
  return status;
}

class MemoryBudgetTest : public testing::Test {
 protected:
  void SetUp() override {
    if (SHMRPC_ASAN || SHMRPC_TSAN) GTEST_SKIP() << "the sanitizers take memory as they like";
    rlimit limit = {};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;  // the server inherits it
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }

  void StartServer(std::vector<std::string> options) {
    options.insert(options.begin(), {"server", "127.0.0.1:0", "connections=10000"});
    server_ = std::make_unique<ServerProcess>(SHMRPC_LIMITS_PEER, options);
    const absl::StatusOr<Target> target = Target::Parse(server_->address());
    ASSERT_TRUE(target.ok());
    port_ = target->port;
  }
  std::shared_ptr<Channel> NewChannel(TransportPreference transport) {
    ChannelOptions options;
    options.transport = transport;
    options.max_backoff = absl::Milliseconds(100);
    return Channel::Create(server_->address(), options);
  }

  std::unique_ptr<ServerProcess> server_;
  uint16_t port_ = 0;
};

TEST_F(MemoryBudgetTest, HostileClientsOfAllKindsTogetherStayWithinIt) {
  constexpr size_t kBudget = (kLong ? 512 : 64) * kMiB;
  constexpr int kAttackers = kLong ? 5000 : 300;
  // What the process takes beside it: threads' stacks and arenas, what the allocator has not given back yet, the
  // generosity of what is counted in steps.
  constexpr size_t kBeside = kBudget / 4 + 32 * kMiB;
  StartServer({absl::StrCat("memory=", kBudget), "streams=yes", "handshake=2s", "threads=16"});
  std::vector<std::unique_ptr<Echo::Stub>> honest;
  for (const TransportPreference transport : {TransportPreference::kShm, TransportPreference::kTcp}) {
    honest.push_back(std::make_unique<Echo::Stub>(NewChannel(transport)));
    ASSERT_EQ(CallAnyhow(*honest.back()), absl::OkStatus());
  }
  const size_t before = PrivateBytes(server_->process().pid());

  std::string attacks[kKindsCount];
  for (size_t i = 0; i < kKindsCount; ++i) attacks[i] = Attack(kKinds[i]);
  std::vector<std::unique_ptr<Attacker>> attackers;
  size_t most = 0;
  int honest_calls = 0;
  const auto look = [&] {
    for (const auto& stub : honest) ASSERT_EQ(CallAnyhow(*stub), absl::OkStatus());
    honest_calls += 2;
    most = std::max(most, PrivateBytes(server_->process().pid()));
  };
  for (int i = 0; i < kAttackers; ++i) {
    const size_t kind = static_cast<size_t>(i) % kKindsCount;
    attackers.push_back(std::make_unique<Attacker>(kKinds[kind], port_, &attacks[kind]));
    attackers.back()->Continue();
    if (i % 20 == 0) look();
  }
  // Until nothing moves any more: the server takes no more, or has ended the connection.
  for (int quiet = 0; quiet < 20;) {
    bool moved = false;
    for (const auto& attacker : attackers) moved |= attacker->Continue();
    quiet = moved ? 0 : quiet + 1;
    look();
    if (!moved) absl::SleepFor(absl::Milliseconds(20));
  }
  const auto ended =
      std::count_if(attackers.begin(), attackers.end(), [](const auto& each) { return each->HasEnded(); });
  std::cout << kAttackers << " connections, of which " << ended << " were ended; private memory at most " << most / kMiB
            << " MiB, " << before / kMiB << " before; budget " << kBudget / kMiB << "; " << honest_calls
            << " honest calls" << std::endl;
  RecordProperty("most_mib", static_cast<int>(most / kMiB));
  EXPECT_LE(most, before + kBudget + kBeside);
  EXPECT_GT(ended, 0) << "nothing was put to the test";
  // It is over when they go, and the memory is given back.
  attackers.clear();
  for (const auto& stub : honest) EXPECT_EQ(CallAnyhow(*stub), absl::OkStatus());
  EXPECT_TRUE(Eventually([&] { return PrivateBytes(server_->process().pid()) <= before + kBudget / 2; }));
}

// Requests of 16 MiB are announced, each with a few bytes, to a process that has not got the memory for all of them;
// and then what is announced comes.
TEST_F(MemoryBudgetTest, WithoutMemoryConnectionsEndAndTheProcessGoesOn) {
  StartServer({"threads=4", absl::StrCat("memory=", 4096 * kMiB)});
  const auto channel = NewChannel(TransportPreference::kTcp);
  Echo::Stub stub(channel);
  EchoRequest request;
  for (int i = 0; i < 10; ++i) ASSERT_EQ(stub.Echo(request).status(), absl::OkStatus());
  request.set_payload("tight");
  ASSERT_EQ(stub.Echo(request).status(), absl::OkStatus());
  const std::string attack = Attack(Kind::kHalfRequests);
  std::vector<std::unique_ptr<Attacker>> attackers;
  for (int i = 0; i < 200; ++i) {
    attackers.push_back(std::make_unique<Attacker>(Kind::kHalfRequests, port_, &attack));
    attackers.back()->Continue();
  }
  EXPECT_TRUE(Eventually([&] {
    for (const auto& attacker : attackers) attacker->Continue();
    return std::any_of(attackers.begin(), attackers.end(), [](const auto& each) { return each->HasEnded(); });
  }));
  attackers.clear();
  EXPECT_EQ(CallAnyhow(stub), absl::OkStatus());
  request.set_payload("loose");
  EXPECT_TRUE(Eventually([&] { return stub.Echo(request).ok(); }));
}

// With no call in progress it need not say that it lives, and it takes nothing.
TEST_F(MemoryBudgetTest, WhoIsHeldBackAndTakesNothingIsGivenUp) {
  StartServer({"holdback=100000", "keepalive=500ms"});
  const std::string attack = Attack(Kind::kUnreadReplies);
  Attacker attacker(Kind::kUnreadReplies, port_, &attack);
  EXPECT_TRUE(Eventually([&] {
    attacker.Continue();
    return attacker.HasEnded();
  }));
}

TEST_F(MemoryBudgetTest, AnIdleConnectionIsClosedAndTheNextCallFindsAnother) {
  StartServer({"idle=300ms"});
  framed::UniqueFd idle = ConnectTcpSocket(port_);
  ASSERT_TRUE(ExchangeHellos(idle.get(), Hello()).has_value());
  const auto channel = NewChannel(TransportPreference::kAuto);
  Echo::Stub stub(channel);
  ASSERT_EQ(stub.Echo(EchoRequest()).status(), absl::OkStatus());
  EXPECT_TRUE(SocketSeesTheEnd(idle.get()));
  EXPECT_TRUE(Eventually([&] { return channel->GetState(false) != ChannelState::kReady; }));
  EXPECT_EQ(stub.Echo(EchoRequest()).status(), absl::OkStatus());
}

// All addresses of this host are one, and connections that do nothing do not keep others out.
TEST_F(MemoryBudgetTest, WhenThereIsNoPlaceTheIdleGiveWay) {
  StartServer({"connections=40"});
  std::vector<framed::UniqueFd> idle;
  for (int i = 0; i < 40; ++i) {
    idle.push_back(ConnectTcpSocket(port_));
    ASSERT_TRUE(ExchangeHellos(idle.back().get(), Hello()).has_value());
  }
  const auto channel = NewChannel(TransportPreference::kTcp);
  Echo::Stub stub(channel);
  EXPECT_EQ(CallAnyhow(stub), absl::OkStatus());
}

}  // namespace
}  // namespace shmrpc::fault
