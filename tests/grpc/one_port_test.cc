// One port for everybody: clients of gRPC and of this library at the same address, with the same handlers.

#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "grpc_caller.h"
#include "gtest/gtest.h"
#include "shmrpc/grpc.h"
#include "shmrpc/mutex.h"
#include "shmrpc/shmrpc.h"
#include "shmrpc/steady_time.h"
#include "sync.h"
#include "transports/tcp/connect_socket.h"

namespace shmrpc {
namespace {

using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Eventually;
using conformance::GrpcEchoCaller;
using conformance::kHangGuard;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const std::string kEmptySettings("\0\0\0\4\0\0\0\0\0", 9);

int CountDescriptors() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<int>(std::distance(begin(entries), end(entries)));
}

class OnePortTest : public testing::Test {
 protected:
  void StartServer(const TransportSet& transports = TransportsWithGrpc(), const std::string& address = "127.0.0.1:0") {
    absl::StatusOr<std::unique_ptr<Server>> server =
        ServerBuilder(transports).Listen(address).Register(&service_).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::string address() const { return server_->addresses().front().ToString(); }

  framed::UniqueFd Connect() const {
    absl::StatusOr<framed::UniqueFd> socket =
        tcp::ConnectSocket(*Target::Parse(address()), SteadyTime::Now() + kHangGuard, -1);
    EXPECT_TRUE(socket.ok()) << socket.status();
    return socket.ok() ? *std::move(socket) : framed::UniqueFd();
  }

  // What comes within the patience, or until the server hangs up.
  static std::string ReadSome(int socket, size_t wanted) {
    std::string received;
    while (received.size() < wanted) {
      pollfd readable = {socket, POLLIN, 0};
      if (poll(&readable, 1, 20'000) <= 0) break;
      char buffer[256];
      const ssize_t size = recv(socket, buffer, sizeof buffer, MSG_DONTWAIT);
      if (size <= 0) break;
      received.append(buffer, static_cast<size_t>(size));
    }
    return received;
  }

  conformance::EchoService service_;
  std::unique_ptr<Server> server_;
};

TEST_F(OnePortTest, AGrpcClientIsServedWhereOthersAre) {
  StartServer();
  Echo::Stub stub(Channel::Create(address()));
  ASSERT_TRUE(stub.Echo(EchoRequest()).ok());
  GrpcEchoCaller caller(address());
  EchoRequest request;
  request.set_observe(true);
  EchoReply reply;
  const grpc::Status status = caller.Call(request, &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.observed().method(), "/shmrpc.conformance.Echo/Echo");
  EXPECT_EQ(reply.observed().peer_transport(), "grpc");
  EXPECT_THAT(reply.observed().peer_address(), StartsWith("ipv4:127.0.0.1:"));
}

// Whom its handler has seen.
class VisitorsBook final : public Echo::Service {
 public:
  absl::Status Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) override {
    {
      MutexLock lock(&mutex_);
      const auto& credentials = context->peer_credentials();
      ++calls_[credentials.has_value() ? std::make_optional(credentials->uid) : std::nullopt];
    }
    reply->set_payload(request->payload());
    return absl::OkStatus();
  }
  std::map<std::optional<uid_t>, int> calls() const {
    MutexLock lock(&mutex_);
    return calls_;
  }

 private:
  mutable Mutex mutex_;
  std::map<std::optional<uid_t>, int> calls_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(OnePortTest, AHandlerKnowsTheUserBehindAUnixSocket) {
  VisitorsBook book;
  const std::string address = absl::StrCat("unix-abstract:shmrpc-one-port-", getpid());
  constexpr uid_t kOther = 65534;
  const auto server = ServerBuilder(TransportsWithGrpc())
                          .Listen(address)
                          .SetUnixSocketAccess(AccessPolicy::Users({kOther}))
                          .Register(&book)
                          .Start();
  ASSERT_TRUE(server.ok()) << server.status();
  GrpcEchoCaller caller(address);
  EchoReply reply;
  const grpc::Status status = caller.Call(EchoRequest(), &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::map<std::optional<uid_t>, int> expected = {{geteuid(), 1}};
  EXPECT_EQ(book.calls(), expected);
  if (geteuid() != 0) return;  // who cannot become somebody else
  const std::string command =
      absl::StrCat(SHMRPC_TEST_PYTHON, " ", SHMRPC_TEST_PYTHON_CALLS, " ", address, " 3 ", kOther);
  EXPECT_EQ(system(command.c_str()), 0);
  expected[kOther] = 3;
  EXPECT_EQ(book.calls(), expected);
  // One who is not listed does not get that far.
  const std::string stranger =
      absl::StrCat(SHMRPC_TEST_PYTHON, " ", SHMRPC_TEST_PYTHON_CALLS, " ", address, " 1 ", kOther - 1, " 2>/dev/null");
  EXPECT_NE(system(stranger.c_str()), 0);
  EXPECT_EQ(book.calls(), expected);
}

TEST_F(OnePortTest, ConnectionsOfGrpcClientsCountUntilTheyAreClosed) {
  for (const std::string where : {"127.0.0.1:0", "grpc:127.0.0.1:0"}) {
    server_ = nullptr;
    absl::StatusOr<std::unique_ptr<Server>> server =
        ServerBuilder(TransportsWithGrpc())
            .Listen(where)
            .Listen("127.0.0.1:0")
            .Register(&service_)
            .SetConnectionLimits(
                {.max_connections = 2, .max_connections_per_user = 2, .max_connections_per_address = 2})
            .Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const std::string host_port(absl::StripPrefix(address(), "grpc:"));
    std::vector<std::unique_ptr<GrpcEchoCaller>> callers;
    for (int i = 0; i < 2; ++i) {
      callers.push_back(std::make_unique<GrpcEchoCaller>(host_port));
      EchoReply reply;
      const grpc::Status status = callers.back()->Call(EchoRequest(), &reply);
      ASSERT_TRUE(status.ok()) << status.error_message();
    }
    // The limit is that of the server, whichever its address.
    Echo::Stub stub(Channel::Create(server_->addresses()[1].ToString()));
    const absl::Status refused = stub.Echo(EchoRequest()).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("the option max_connections (2)"));
    callers.pop_back();
    EXPECT_TRUE(Eventually([&] { return stub.Echo(EchoRequest()).ok(); }));
  }
}

TEST_F(OnePortTest, ThePrefaceMayComeInPieces) {
  StartServer();
  const std::string hello = kPreface + kEmptySettings;
  for (const size_t cut : {1u, 3u, 12u, 23u, 24u, 30u}) {
    const framed::UniqueFd socket = Connect();
    ASSERT_EQ(send(socket.get(), hello.data(), cut, MSG_NOSIGNAL), static_cast<ssize_t>(cut));
    absl::SleepFor(absl::Milliseconds(20));
    ASSERT_EQ(send(socket.get(), hello.data() + cut, hello.size() - cut, MSG_NOSIGNAL),
              static_cast<ssize_t>(hello.size() - cut));
    // The server's SETTINGS, and that it has taken the client's.
    const std::string answer = ReadSome(socket.get(), 9);
    ASSERT_GE(answer.size(), 9u) << "cut after " << cut;
    EXPECT_EQ(answer[3], 4) << "cut after " << cut;
  }
}

// A gRPC server would speak first.
TEST_F(OnePortTest, WhatOnlyBeginsAsThePrefaceIsNotHandedOver) {
  StartServer();
  for (const size_t wrong : {3u, 15u, 16u, 23u}) {
    std::string sent = kPreface;
    sent[wrong] = '!';
    const framed::UniqueFd socket = Connect();
    ASSERT_EQ(send(socket.get(), sent.data(), sent.size(), MSG_NOSIGNAL), static_cast<ssize_t>(sent.size()));
    EXPECT_EQ(ReadSome(socket.get(), 1), "") << "wrong at " << wrong;
  }
}

TEST_F(OnePortTest, WithoutTheLibraryAnHttp2ClientIsHungUpOnAndTheLogSaysWhy) {
  StartServer(DefaultTransports());
  testing::internal::CaptureStderr();
  const framed::UniqueFd socket = Connect();
  ASSERT_GT(send(socket.get(), kPreface, sizeof kPreface - 1, MSG_NOSIGNAL), 0);
  EXPECT_EQ(ReadSome(socket.get(), 1), "");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("link shmrpc::grpc"));
  Echo::Stub stub(Channel::Create(address()));
  EXPECT_TRUE(stub.Echo(EchoRequest()).ok());
}

TEST_F(OnePortTest, AShutdownDrainsCallsOfGrpcClients) {
  StartServer();
  GrpcEchoCaller caller(address());
  EchoRequest held;
  held.set_hold(true);
  held.set_payload("drained");
  EchoReply reply;
  grpc::Status status;
  std::thread call([&] { status = caller.Call(held, &reply); });
  ASSERT_TRUE(service_.held().WaitFor(1));
  std::thread shutdown([&] { server_->Shutdown(absl::Now() + kHangGuard); });
  // Nobody new is served.
  EXPECT_TRUE(Eventually([&] {
    EchoReply none;
    return GrpcEchoCaller(address()).Call(EchoRequest(), &none).error_code() == grpc::UNAVAILABLE;
  }));
  service_.Release();
  call.join();
  shutdown.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.payload(), "drained");
}

TEST_F(OnePortTest, AShutdownAtItsDeadlineCancelsCallsOfGrpcClients) {
  StartServer();
  GrpcEchoCaller caller(address());
  EchoRequest held;
  held.set_hold(true);
  EchoReply reply;
  grpc::Status status;
  std::thread call([&] { status = caller.Call(held, &reply); });
  ASSERT_TRUE(service_.held().WaitFor(1));
  server_->Shutdown(absl::Now() + absl::Milliseconds(50));
  EXPECT_EQ(service_.cancelled().value(), 1) << "Shutdown waits for handlers";
  call.join();
  EXPECT_FALSE(status.ok());
}

TEST_F(OnePortTest, DescriptorsDoNotLeakAroundStartAndShutdown) {
  const auto round = [this](int i) {
    StartServer();
    std::vector<framed::UniqueFd> sockets;
    for (int k = 0; k < 5; ++k) {
      sockets.push_back(Connect());
      (void)send(sockets.back().get(), kPreface, static_cast<size_t>(5 * k), MSG_NOSIGNAL);  // some whole, some not
    }
    std::thread late([&] {
      for (int k = 0; k < 5; ++k) {
        absl::StatusOr<framed::UniqueFd> socket =
            tcp::ConnectSocket(*Target::Parse(address()), SteadyTime::Now() + absl::Seconds(5), -1);
        if (!socket.ok()) continue;
        (void)send(socket->get(), kPreface, sizeof kPreface - 1, MSG_NOSIGNAL);
        sockets.push_back(*std::move(socket));
      }
    });
    if (i % 2 == 0) absl::SleepFor(absl::Milliseconds(i % 7));
    server_->Shutdown(absl::InfinitePast());
    late.join();
    server_ = nullptr;
  };
  for (int i = 0; i < 5; ++i) round(i);
  const int before = CountDescriptors();
  for (int i = 0; i < 40; ++i) round(i);
  // The gRPC library has some of its own from the first connection on that reaches it, which may come late.
  EXPECT_TRUE(Eventually([&] { return CountDescriptors() <= before + 4; }))
      << CountDescriptors() << " descriptors, " << before << " before";
}

// Everybody at once: three kinds of clients while strangers send garbage.
TEST_F(OnePortTest, ManyCallsOfEveryKindWhileGarbageComes) {
  StartServer();
  constexpr int kCalls = 10'000;
  std::atomic<int> wrong{0};
  const auto native = [&](TransportPreference preference, const char* expected) {
    ChannelOptions options;
    options.transport = preference;
    const auto channel = Channel::Create(address(), options);
    Echo::Stub stub(channel);
    for (int i = 0; i < kCalls; ++i) {
      EchoRequest request;
      request.set_payload(std::to_string(i));
      const absl::StatusOr<EchoReply> reply = stub.Echo(request);
      if (!reply.ok() || reply->payload() != request.payload()) ++wrong;
    }
    EXPECT_THAT(channel->transport(), StartsWith(expected));
  };
  std::vector<std::thread> threads;
  threads.emplace_back([&] { native(TransportPreference::kShm, "shm"); });
  threads.emplace_back([&] { native(TransportPreference::kTcp, "tcp"); });
  threads.emplace_back([&] {
    GrpcEchoCaller caller(address());
    for (int i = 0; i < kCalls; ++i) {
      EchoRequest request;
      request.set_payload(std::to_string(i));
      EchoReply reply;
      if (!caller.Call(request, &reply).ok() || reply.payload() != request.payload()) ++wrong;
    }
  });
  threads.emplace_back([&] {
    const std::string command =
        absl::StrCat(SHMRPC_TEST_PYTHON, " ", SHMRPC_TEST_PYTHON_CALLS, " ", address(), " ", kCalls);
    if (system(command.c_str()) != 0) ++wrong;
  });
  std::mt19937 random(1);
  const std::string beginnings[] = {"", "PRI * ", kPreface, "SHMRPC1\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01"};
  for (int i = 0; i < 1000; ++i) {
    const framed::UniqueFd socket = Connect();
    std::string garbage = beginnings[i % std::size(beginnings)];
    for (int size = static_cast<int>(random() % 200); size > 0; --size) garbage.push_back(static_cast<char>(random()));
    (void)send(socket.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(service_.started().value(), 4 * kCalls);
}

}  // namespace
}  // namespace shmrpc
