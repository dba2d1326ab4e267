// What a server does when there are more connections, calls or bytes than its limits allow: who is too many is told
// which limit it has met, and everybody else goes on.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/shmrpc.h"
#include "shmrpc/wire.pb.h"
#include "sync.h"
#include "transports/auto/hello.h"
#include "transports/framed/unique_fd.h"
#include "transports/shm/shm_link.h"

namespace shmrpc::conformance {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kPlenty = 1000;

class ConnectionLimitTest : public testing::Test {
 protected:
  ~ConnectionLimitTest() override {
    service_.Release();
    server_ = nullptr;
  }

  // Listens on TCP and on a Unix socket, so that limits of the whole server can be told from those of an address.
  void StartServer(const ConnectionLimits& limits) {
    absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder()
                                                         .Listen("127.0.0.1:0")
                                                         .Listen("unix-abstract:limits-" + std::to_string(getpid()))
                                                         .Register(&service_)
                                                         .SetConnectionLimits(limits)
                                                         .Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::string tcp_address() const { return server_->addresses()[0].ToString(); }
  std::string unix_address() const { return server_->addresses()[1].ToString(); }

  std::shared_ptr<Channel> NewChannel(const std::string& address,
                                      TransportPreference transport = TransportPreference::kAuto) {
    ChannelOptions options;
    options.transport = transport;
    options.max_backoff = absl::Milliseconds(200);  // of those that wait for a place
    return Channel::Create(address, options);
  }
  std::shared_ptr<Channel> NewTcpChannel() { return NewChannel(tcp_address(), TransportPreference::kTcp); }

  static absl::Status CallOn(const std::shared_ptr<Channel>& channel, size_t payload_bytes = 1) {
    EchoRequest request;
    request.set_payload(std::string(payload_bytes, 'x'));
    return Echo::Stub(channel).Echo(request).status();
  }

  // A call whose handler waits for service_.Release(). Calls belong to the test and end with it at the latest.
  struct HeldCall {
    ClientContext context;
    EchoRequest request;
    EchoReply reply;
    absl::Status status;
    Event done;
  };
  HeldCall& Hold(const std::shared_ptr<Channel>& channel, bool regardless = false, size_t reply_bytes = 1) {
    HeldCall& call = held_.emplace_back();
    call.request.set_hold(true);
    call.request.set_hold_regardless(regardless);
    call.request.set_reply_bytes(reply_bytes);
    Echo::Stub(channel).async().Echo(&call.context, &call.request, &call.reply, [&call](absl::Status status) {
      call.status = status;
      call.done.Set();
    });
    return call;
  }

  static std::string Refusal(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    return std::string(status.message());
  }

  EchoService service_;
  std::deque<HeldCall> held_;
  std::unique_ptr<Server> server_;
};

TEST_F(ConnectionLimitTest, OneConnectionMoreThanTheServerMayHaveIsToldWhy) {
  StartServer({.max_connections = 3, .max_connections_per_user = kPlenty, .max_connections_per_address = kPlenty});
  std::vector<std::shared_ptr<Channel>> channels = {NewTcpChannel(), NewTcpChannel(), NewChannel(unix_address())};
  for (const auto& channel : channels) ASSERT_EQ(CallOn(channel), absl::OkStatus());
  for (const std::string& address : {tcp_address(), unix_address()}) {
    const auto one_more = NewChannel(address);
    EXPECT_THAT(Refusal(CallOn(one_more)),
                AllOf(HasSubstr("refused the connection"), HasSubstr("the option max_connections (3)"),
                      HasSubstr("the option connection_limits")));
    EXPECT_THAT(one_more->transport(), HasSubstr("max_connections (3)"));
  }
  for (const auto& channel : channels) EXPECT_EQ(CallOn(channel), absl::OkStatus());

  // A place that becomes free is had by the next who asks.
  channels.pop_back();
  const auto next = NewTcpChannel();
  EXPECT_TRUE(Eventually([&] { return CallOn(next).ok(); }));
}

TEST_F(ConnectionLimitTest, AUserMayHaveOnlySoManyConnections) {
  StartServer({.max_connections = kPlenty, .max_connections_per_user = 2, .max_connections_per_address = kPlenty});
  const std::vector<std::shared_ptr<Channel>> channels = {NewChannel(unix_address(), TransportPreference::kShm),
                                                          NewChannel(unix_address(), TransportPreference::kUnix)};
  for (const auto& channel : channels) ASSERT_EQ(CallOn(channel), absl::OkStatus());
  EXPECT_THAT(Refusal(CallOn(NewChannel(unix_address()))),
              AllOf(HasSubstr("connections of uid " + std::to_string(geteuid())),
                    HasSubstr("the option max_connections_per_user (2)")));
  // Over TCP nobody is anybody's.
  const auto tcp = NewChannel(tcp_address());
  EXPECT_EQ(CallOn(tcp), absl::OkStatus());
  EXPECT_THAT(tcp->transport(), AllOf(StartsWith("tcp: "), HasSubstr("max_connections_per_user (2)")));
}

// A connection from another address of this host, whose hello has been sent. Its answer, if one comes.
struct Visitor {
  framed::UniqueFd socket;
  wire::ServerHello answer;
  absl::Status status;
};
Visitor VisitFrom(const char* own_address, uint16_t port, bool wait_for_refusal = false) {
  Visitor visitor;
  visitor.socket.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  EXPECT_EQ(inet_pton(AF_INET, own_address, &address.sin_addr), 1);
  EXPECT_EQ(bind(visitor.socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  address.sin_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET, "127.0.0.1", &address.sin_addr), 1);
  EXPECT_EQ(connect(visitor.socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  if (wait_for_refusal) {
    // Until the server has hung up: then the hello cannot be sent any more, and the refusal is there all the same.
    pollfd hung_up = {visitor.socket.get(), POLLRDHUP, 0};
    EXPECT_EQ(poll(&hung_up, 1, static_cast<int>(absl::ToInt64Milliseconds(kHangGuard))), 1);
    EXPECT_EQ(send(visitor.socket.get(), "x", 1, MSG_NOSIGNAL), 1);  // is answered with a reset
    hung_up.events = 0;
    EXPECT_EQ(poll(&hung_up, 1, static_cast<int>(absl::ToInt64Milliseconds(kHangGuard))), 1);
  }
  wire::ClientHello hello;
  hello.set_version(autoselect::kProtocolVersion);
  hello.mutable_window()->set_call_bytes(64 * 1024);
  hello.mutable_window()->set_connection_bytes(1024 * 1024);
  std::vector<framed::UniqueFd> fds;
  autoselect::Foreign foreign;
  visitor.status = autoselect::ExchangeHellos(visitor.socket.get(), hello, -1, SteadyTime::Now() + kHangGuard, -1,
                                              &visitor.answer, &fds, &foreign);
  return visitor;
}

TEST_F(ConnectionLimitTest, AnAddressMayHaveOnlySoManyConnections) {
  StartServer({.max_connections = kPlenty, .max_connections_per_user = kPlenty, .max_connections_per_address = 2});
  const uint16_t port = server_->addresses()[0].port;
  std::vector<Visitor> visitors;
  for (const char* address : {"127.0.0.2", "127.0.0.2", "127.0.0.3"}) {
    visitors.push_back(VisitFrom(address, port));
    EXPECT_EQ(visitors.back().status, absl::OkStatus());
    EXPECT_EQ(visitors.back().answer.refused(), "");
  }
  const Visitor one_more = VisitFrom("127.0.0.2", port);
  EXPECT_THAT(one_more.answer.refused(),
              AllOf(HasSubstr("connections from 127.0.0.2"), HasSubstr("the option max_connections_per_address (2)")));
  visitors.erase(visitors.begin());
  EXPECT_TRUE(Eventually([&] { return VisitFrom("127.0.0.2", port).answer.refused().empty(); }));
}

TEST_F(ConnectionLimitTest, ARefusalIsReadByAClientThatCannotSendItsHelloAnyMore) {
  StartServer({.max_connections = 1});
  const auto client = NewTcpChannel();
  ASSERT_EQ(CallOn(client), absl::OkStatus());
  const Visitor late = VisitFrom("127.0.0.1", server_->addresses()[0].port, /*wait_for_refusal=*/true);
  EXPECT_EQ(late.status, absl::OkStatus());
  EXPECT_THAT(late.answer.refused(), HasSubstr("max_connections (1)"));
}

TEST_F(ConnectionLimitTest, HalfAHelloHoldsAPlaceNoLongerThanTheHandshakeTimeout) {
  StartServer({.max_connections = 2, .max_connections_per_address = 2, .handshake_timeout = absl::Seconds(4)});
  std::vector<framed::UniqueFd> silent;
  for (const std::string_view part : {std::string_view("S"), autoselect::kHelloMagic}) {
    silent.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->addresses()[0].port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(silent.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(send(silent.back().get(), part.data(), part.size(), 0), static_cast<ssize_t>(part.size()));
  }
  EXPECT_THAT(Refusal(CallOn(NewTcpChannel())), HasSubstr("max_connections (2)"));
  const auto patient = NewTcpChannel();
  EXPECT_TRUE(Eventually([&] { return CallOn(patient).ok(); }));
  for (const framed::UniqueFd& socket : silent) {
    char byte;
    EXPECT_LE(recv(socket.get(), &byte, 1, 0), 0) << "it was not closed";
  }
}

TEST_F(ConnectionLimitTest, TheLastPlaceLeadsToSharedMemoryToo) {
  StartServer({.max_connections = 1});
  const auto channel = NewChannel(tcp_address());
  ASSERT_EQ(CallOn(channel), absl::OkStatus());
  EXPECT_EQ(channel->transport(), "shm");
  EXPECT_THAT(Refusal(CallOn(NewChannel(tcp_address()))), HasSubstr("max_connections (1)"));
}

TEST_F(ConnectionLimitTest, AConnectionWhoseHandlersRunHoldsItsPlaceUntilTheyReturn) {
  StartServer({.max_connections = 1});
  auto channel = NewTcpChannel();
  HeldCall& call = Hold(channel, /*regardless=*/true);
  ASSERT_TRUE(service_.held().WaitFor(1));
  channel = nullptr;
  ASSERT_TRUE(call.done.Wait());
  const auto next = NewTcpChannel();
  for (int i = 0; i < 5; ++i) EXPECT_THAT(Refusal(CallOn(next)), HasSubstr("max_connections (1)"));
  service_.Release();
  EXPECT_TRUE(Eventually([&] { return CallOn(next).ok(); }));
}

TEST_F(ConnectionLimitTest, ManyRefusalsLeaveNothingBehind) {
  StartServer({.max_connections = 1});
  const auto client = NewTcpChannel();
  ASSERT_EQ(CallOn(client), absl::OkStatus());
  for (int i = 0; i < 500; ++i) {
    EXPECT_THAT(VisitFrom("127.0.0.1", server_->addresses()[0].port).answer.refused(),
                HasSubstr("max_connections (1)"));
  }
  ASSERT_EQ(CallOn(client), absl::OkStatus());
  // Descriptors of what was refused would be above those of the test by now.
  const framed::UniqueFd next(dup(STDERR_FILENO));
  EXPECT_LT(next.get(), 200);
}

TEST_F(ConnectionLimitTest, WithoutSharedMemoryLeftAClientStaysWithItsSocket) {
  StartServer({.max_connections = kPlenty, .max_shared_memory_bytes = shm::kSegmentBytes + 1});
  auto first = NewChannel(tcp_address());
  ASSERT_EQ(CallOn(first), absl::OkStatus());
  EXPECT_EQ(first->transport(), "shm");
  const auto over_tcp = NewChannel(tcp_address());
  const auto over_unix = NewChannel(unix_address());
  ASSERT_EQ(CallOn(over_tcp), absl::OkStatus());
  ASSERT_EQ(CallOn(over_unix), absl::OkStatus());
  EXPECT_THAT(over_tcp->transport(), AllOf(StartsWith("tcp: "), HasSubstr("the option max_shared_memory_bytes")));
  EXPECT_THAT(over_unix->transport(), AllOf(StartsWith("unix: "), HasSubstr("max_shared_memory_bytes")));
  const auto insisting = NewChannel(tcp_address(), TransportPreference::kShm);
  EXPECT_THAT(Refusal(CallOn(insisting)), HasSubstr("max_shared_memory_bytes"));
  first = nullptr;
  EXPECT_TRUE(Eventually([&] { return CallOn(insisting).ok(); }));
  EXPECT_EQ(insisting->transport(), "shm");
}

// Over each of the ways that a connection to one address can go.
class CallLimitTest : public ConnectionLimitTest, public testing::WithParamInterface<std::string> {
 protected:
  std::shared_ptr<Channel> NewChannelThatWay() {
    return NewChannel(tcp_address(), *ParseTransportPreference(GetParam()));
  }
};
INSTANTIATE_TEST_SUITE_P(Ways, CallLimitTest, testing::Values("shm", "tcp"),
                         [](const auto& info) { return info.param; });

TEST_P(CallLimitTest, OneCallMoreThanAConnectionMayHaveIsToldWhy) {
  StartServer({.max_calls_per_connection = 4});
  const auto channel = NewChannelThatWay();
  std::vector<HeldCall*> held;
  for (int i = 0; i < 4; ++i) held.push_back(&Hold(channel));
  ASSERT_TRUE(service_.held().WaitFor(4));
  const int started = service_.started().value();
  for (const size_t bytes : {size_t{1}, size_t{1} << 20, size_t{1}}) {
    const absl::Status status = CallOn(channel, bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("4 calls"), HasSubstr("the option max_calls_per_connection"),
                      HasSubstr("the option connection_limits")));
  }
  EXPECT_EQ(service_.started().value(), started);
  // It is a limit of this connection only.
  EXPECT_EQ(CallOn(NewChannelThatWay()), absl::OkStatus());
  service_.Release();
  for (HeldCall* call : held) {
    EXPECT_TRUE(call->done.Wait());
    EXPECT_EQ(call->status, absl::OkStatus());
  }
  EXPECT_EQ(CallOn(channel, size_t{1} << 20), absl::OkStatus());
}

// What its own previous call still does when the client has the reply already is no reason to refuse the next one.
TEST_P(CallLimitTest, WhoCallsAgainAtOnceIsNotInItsOwnWay) {
  StartServer({.max_calls_per_connection = 1});
  const auto channel = NewChannelThatWay();
  for (int i = 0; i < 5000; ++i) ASSERT_EQ(CallOn(channel), absl::OkStatus()) << i;
}

// A client that cancels and calls again, without pause, does not get more handlers than that.
TEST_P(CallLimitTest, CancelledCallsCountUntilTheirHandlersReturn) {
  StartServer({.max_calls_per_connection = 3});
  const auto channel = NewChannelThatWay();
  for (int i = 0; i < 3; ++i) {
    HeldCall& call = Hold(channel, /*regardless=*/true);
    ASSERT_TRUE(service_.held().WaitFor(i + 1));
    call.context.TryCancel();
    ASSERT_TRUE(call.done.Wait());
    EXPECT_EQ(call.status.code(), absl::StatusCode::kCancelled);
  }
  EXPECT_EQ(CallOn(channel).code(), absl::StatusCode::kResourceExhausted);
  service_.Release();
  EXPECT_TRUE(Eventually([&] { return CallOn(channel).ok(); }));
}

// The handler did not run, so another attempt may be made; it is, when the client asks for that.
TEST_P(CallLimitTest, ARefusedCallMayBeAttemptedAgain) {
  StartServer({.max_calls_per_connection = 1});
  const auto channel = NewChannelThatWay();
  Hold(channel);
  ASSERT_TRUE(service_.held().WaitFor(1));
  ClientContext context;
  RetryPolicy policy;
  policy.max_attempts = 1000;
  policy.initial_backoff = policy.max_backoff = absl::Milliseconds(20);
  policy.codes = {absl::StatusCode::kResourceExhausted};
  context.set_retry_policy(policy);
  EchoRequest request;
  EchoReply reply;
  absl::Status status;
  Event done;
  Echo::Stub(channel).async().Echo(&context, &request, &reply, [&](absl::Status its) {
    status = its;
    done.Set();
  });
  service_.Release();
  ASSERT_TRUE(done.Wait());
  EXPECT_EQ(status, absl::OkStatus());
}

// Calls that take no thread, and end when the test says so.
class HoldingEcho final : public Echo::CallbackService {
 public:
  ServerUnaryReactor* Echo(ServerContext* context, const EchoRequest*, EchoReply*) override {
    ServerUnaryReactor* const reactor = context->DefaultReactor();
    MutexLock lock(&mutex_);
    reactors_.push_back(reactor);
    return reactor;
  }
  int held() const {
    MutexLock lock(&mutex_);
    return static_cast<int>(reactors_.size());
  }
  void FinishAll() {
    std::vector<ServerUnaryReactor*> reactors;
    {
      MutexLock lock(&mutex_);
      reactors.swap(reactors_);
    }
    for (ServerUnaryReactor* const reactor : reactors) reactor->Finish(absl::OkStatus());
  }

 private:
  mutable Mutex mutex_;
  std::vector<ServerUnaryReactor*> reactors_ ABSL_GUARDED_BY(mutex_);
};

// Connections that each keep to their own limit, but are many.
TEST(ServerCallLimitTest, AServerHasALimitThatNobodyHasSet) {
  HoldingEcho holding;
  const auto server = ServerBuilder().Listen("127.0.0.1:0").Register(&holding).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const auto new_channel = [&] { return Channel::Create((*server)->addresses()[0].ToString()); };
  constexpr int kCallsOfAConnection = ConnectionLimits().max_calls_per_connection;
  constexpr int kConnections = kDefaultMaxConcurrentCalls / kCallsOfAConnection;
  const EchoRequest request;
  std::vector<EchoReply> replies(kDefaultMaxConcurrentCalls);
  Mutex mutex;
  absl::Status first_error;
  int ended = 0;
  std::vector<std::shared_ptr<Channel>> channels;  // end before what their calls report to
  for (int i = 0; i < kConnections; ++i) {
    channels.push_back(new_channel());
    Echo::Stub stub(channels.back());
    for (int j = 0; j < kCallsOfAConnection; ++j) {
      stub.async().Echo(nullptr, &request, &replies[i * kCallsOfAConnection + j], [&](absl::Status status) {
        MutexLock lock(&mutex);
        ++ended;
        first_error.Update(status);
      });
    }
    // Those that have begun wait for nobody.
    ASSERT_TRUE(Eventually([&] { return holding.held() == (i + 1) * kCallsOfAConnection; })) << holding.held();
  }
  const absl::Status refused = Echo::Stub(new_channel()).Echo(request).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("131072 calls"), HasSubstr("the option max_concurrent_calls")));
  holding.FinishAll();
  EXPECT_TRUE(Eventually([&] {
    MutexLock lock(&mutex);
    return ended == kDefaultMaxConcurrentCalls;
  }));
  MutexLock lock(&mutex);
  EXPECT_EQ(first_error, absl::OkStatus());
}

}  // namespace
}  // namespace shmrpc::conformance
