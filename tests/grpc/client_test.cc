// The client: finding a gRPC server by itself, gRPC's targets and load balancing, and what goes into gRPC's headers.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "grpc_caller.h"
#include "gtest/gtest.h"
#include "server_process.h"
#include "shmrpc/grpc.h"
#include "shmrpc/shmrpc.h"
#include "shmrpc/steady_time.h"
#include "sync.h"
#include "transports/framed/unique_fd.h"
#include "transports/tcp/connect_socket.h"
#include "transports/tcp/listening_socket.h"

namespace shmrpc {
namespace {

using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Eventually;
using conformance::kHangGuard;
using testing::HasSubstr;
using testing::StartsWith;

// A server of the gRPC library alone, which answers every call with its request and what its name is,
// or with a status.
class GrpcOnlyServer final : public grpc::CallbackGenericService {
 public:
  explicit GrpcOnlyServer(std::string name, grpc::Status status = grpc::Status::OK)
      : name_(std::move(name)), status_(std::move(status)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
  }
  ~GrpcOnlyServer() override { Stop(); }

  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  int calls() const { return calls_.value(); }

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    class Reactor final : public grpc::ServerGenericBidiReactor {
     public:
      explicit Reactor(const grpc::Status& status) : status_(status) { StartRead(&message_); }
      void OnReadDone(bool ok) override {
        if (!ok) return Finish(grpc::Status(grpc::INVALID_ARGUMENT, "no message"));
        if (!status_.ok()) return Finish(status_);
        StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
      }
      void OnDone() override { delete this; }

     private:
      const grpc::Status status_;
      grpc::ByteBuffer message_;
    };
    calls_.Increment();
    context->AddInitialMetadata("server", name_);
    return new Reactor(status_);
  }

 private:
  const std::string name_;
  const grpc::Status status_;
  int port_ = 0;
  conformance::Counter calls_;
  std::unique_ptr<grpc::Server> server_;
};

EchoRequest Request(const std::string& payload) {
  EchoRequest request;
  request.set_payload(payload);
  return request;
}

TEST(GrpcClientTest, AGrpcServerIsFoundByItself) {
  GrpcOnlyServer server("only");
  const auto channel = Channel::Create(server.address(), {}, TransportsWithGrpc());
  const absl::StatusOr<EchoReply> reply = Echo::Stub(channel).Echo(Request("found"));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->payload(), "found");
  EXPECT_EQ(channel->transport(), "grpc: the server speaks gRPC only");
  EXPECT_EQ(server.calls(), 1);
}

// Listens in front of a server, as multiplexers of connections do: passes on what begins as HTTP/2, and ends what does
// not. A thread for each connection.
class Multiplexer {
 public:
  enum class End { kClose, kReset };

  Multiplexer(int port, End end) : port_(port), end_(end) {
    absl::StatusOr<std::vector<tcp::ListeningSocket>> sockets = tcp::ListenSockets(*Target::Parse("127.0.0.1:0"), 0600);
    EXPECT_TRUE(sockets.ok()) << sockets.status();
    listening_ = std::move(sockets->front());
    thread_ = std::thread([this] { Serve(); });
  }
  ~Multiplexer() {
    shutdown(listening_.fd(), SHUT_RDWR);
    thread_.join();
    for (std::thread& each : connections_) each.join();
  }

  std::string address() const { return listening_.bound().ToString(); }
  const conformance::Counter& ended() const { return ended_; }

 private:
  void Serve() {
    pollfd readable = {listening_.fd(), POLLIN, 0};
    while (poll(&readable, 1, -1) > 0 && (readable.revents & (POLLHUP | POLLERR)) == 0) {
      absl::StatusOr<std::optional<framed::UniqueFd>> accepted = tcp::AcceptSocket(listening_.fd());
      if (!accepted.ok()) return;
      if (!accepted->has_value()) continue;
      connections_.emplace_back([this, client = **std::move(accepted)]() mutable { Serve(std::move(client)); });
    }
  }

  void Serve(framed::UniqueFd client) {
    char first = 0;
    pollfd readable = {client.get(), POLLIN, 0};
    if (poll(&readable, 1, -1) != 1 || recv(client.get(), &first, 1, MSG_PEEK) != 1) return;
    if (first != 'P') {
      ended_.Increment();
      const linger reset = {1, 0};
      if (end_ == End::kReset) setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      char hello[4096];
      while (end_ == End::kClose && recv(client.get(), hello, sizeof hello, MSG_DONTWAIT) > 0) {
      }
      return;
    }
    const absl::StatusOr<framed::UniqueFd> server = tcp::ConnectSocket(
        *Target::Parse(absl::StrCat("127.0.0.1:", port_)), SteadyTime::Now() + conformance::kHangGuard);
    if (!server.ok()) return;
    pollfd fds[2] = {{client.get(), POLLIN, 0}, {server->get(), POLLIN, 0}};
    for (;;) {
      if (poll(fds, 2, -1) < 1) return;
      for (int i = 0; i < 2; ++i) {
        if (fds[i].revents == 0) continue;
        char buffer[4096];
        const ssize_t size = recv(fds[i].fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (size <= 0 || send(fds[1 - i].fd, buffer, static_cast<size_t>(size), MSG_NOSIGNAL) != size) return;
      }
    }
  }

  const int port_;
  const End end_;
  tcp::ListeningSocket listening_;
  conformance::Counter ended_;
  std::vector<std::thread> connections_;
  std::thread thread_;
};

TEST(GrpcClientTest, AGrpcServerBehindAMultiplexerIsFoundByItself) {
  for (const Multiplexer::End end : {Multiplexer::End::kClose, Multiplexer::End::kReset}) {
    GrpcOnlyServer server("behind");
    const std::string address = server.address();
    int port = 0;
    ASSERT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
    const Multiplexer multiplexer(port, end);
    const auto channel = Channel::Create(multiplexer.address(), {}, TransportsWithGrpc());
    const absl::StatusOr<EchoReply> reply = Echo::Stub(channel).Echo(Request("found"));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(channel->transport(), "grpc: the server speaks gRPC only");
    EXPECT_GT(multiplexer.ended().value(), 0);
  }
}

TEST(GrpcClientTest, AServerOfThisHostIsReachedWithoutTheProxy) {
  GrpcOnlyServer server("here");
  const std::string address = server.address();
  const std::string port = address.substr(address.rfind(':') + 1);
  setenv("http_proxy", "http://127.0.0.1:9", 1);  // where nobody listens
  for (const std::string& target : {"localhost:" + port, "grpc:localhost:" + port, "grpc:127.0.0.1:" + port,
                                    "grpc:dns:///localhost:" + port, "grpc:ipv4:127.0.0.1:" + port}) {
    const absl::Status status =
        Echo::Stub(Channel::Create(target, {}, TransportsWithGrpc())).Echo(Request("")).status();
    EXPECT_TRUE(status.ok()) << target << ": " << status;
  }
  // Who asks for the proxy gets it.
  GrpcOptions options;
  options.client.arguments[GRPC_ARG_ENABLE_HTTP_PROXY] = 1;
  ChannelOptions channel_options;
  channel_options.connect_timeout = absl::Seconds(5);
  ClientContext context;
  context.set_timeout(absl::Seconds(20));
  EchoReply reply;
  const absl::Status status =
      Echo::Stub(Channel::Create("grpc:localhost:" + port, channel_options, TransportsWithGrpc(options)))
          .Echo(&context, Request(""), &reply);
  unsetenv("http_proxy");
  EXPECT_FALSE(status.ok());
}

TEST(GrpcClientTest, APercentSignNamesTheSameSocketToEverybody) {
  conformance::EchoService service;
  const std::string name = absl::StrCat("percent-", getpid());
  const auto server =
      ServerBuilder(TransportsWithGrpc()).Listen("unix-abstract:" + name + "%20%25%2f").Register(&service).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string canonical = (*server)->addresses().front().ToString();
  EXPECT_EQ(canonical, "unix-abstract:" + name + " %25/");
  ChannelOptions through_grpc;
  through_grpc.transport = TransportPreference::kGrpc;
  for (const std::string& target : {canonical, "unix-abstract:" + name + "%20%25%2f"}) {
    for (const ChannelOptions& options : {ChannelOptions(), through_grpc}) {
      const absl::Status status =
          Echo::Stub(Channel::Create(target, options, TransportsWithGrpc())).Echo(Request("")).status();
      EXPECT_TRUE(status.ok()) << target << ": " << status;
    }
  }
  EchoReply reply;
  const grpc::Status status =
      conformance::GrpcEchoCaller("unix-abstract:" + name + "%20%25%2f", grpc::InsecureChannelCredentials())
          .Call(EchoRequest(), &reply);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST(GrpcClientTest, WithoutTheLibraryTheErrorNamesIt) {
  GrpcOnlyServer server("only");
  const absl::Status status = Echo::Stub(Channel::Create(server.address())).Echo(Request("")).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("shmrpc::grpc"));

  const absl::Status target = Channel::Create("grpc:localhost:1")->status();
  EXPECT_TRUE(absl::IsInvalidArgument(target)) << target;
  EXPECT_THAT(std::string(target.message()), HasSubstr("shmrpc::grpc"));

  ChannelOptions options;
  options.transport = TransportPreference::kGrpc;
  const absl::Status asked = Echo::Stub(Channel::Create(server.address(), options)).Echo(Request("")).status();
  EXPECT_TRUE(absl::IsInvalidArgument(asked)) << asked;
  EXPECT_THAT(std::string(asked.message()), HasSubstr("shmrpc::grpc"));
}

TEST(GrpcClientTest, WhoInsistsOnAnotherTransportDoesNotGetThisOne) {
  GrpcOnlyServer server("only");
  for (const TransportPreference preference : {TransportPreference::kTcp, TransportPreference::kShm}) {
    ChannelOptions options;
    options.transport = preference;
    const absl::Status status =
        Echo::Stub(Channel::Create(server.address(), options, TransportsWithGrpc())).Echo(Request("")).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("HTTP/2"));
  }
}

TEST(GrpcClientTest, TheEnvironmentCanInsistOnGrpc) {
  conformance::EchoService service;
  const auto server = ServerBuilder(TransportsWithGrpc()).Listen("127.0.0.1:0").Register(&service).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  setenv("SHMRPC_TRANSPORT", "grpc", 1);
  const auto channel = Channel::Create((*server)->addresses().front().ToString(), {}, TransportsWithGrpc());
  unsetenv("SHMRPC_TRANSPORT");
  ASSERT_TRUE(Echo::Stub(channel).Echo(Request("")).ok());
  EXPECT_EQ(channel->transport(), "grpc: asked for");
}

// A server of this library that hangs up is not taken for one of gRPC.
TEST(GrpcClientTest, AServerThatComesBackIsReachedAsBefore) {
  conformance::EchoService service;
  std::string address = "127.0.0.1:0";
  std::shared_ptr<Channel> channel;
  for (int round = 0; round < 5; ++round) {
    const auto server = ServerBuilder(TransportsWithGrpc()).Listen(address).Register(&service).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    address = (*server)->addresses().front().ToString();
    if (channel == nullptr) channel = Channel::Create(address, {}, TransportsWithGrpc());
    ClientContext context;
    context.set_wait_for_ready(true);
    context.set_timeout(kHangGuard);
    EchoReply reply;
    const absl::Status status = Echo::Stub(channel).Echo(&context, Request(""), &reply);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(channel->transport(), "shm");
  }
}

// Otherwise one would wait for the back-off of another.
TEST(GrpcClientTest, ChannelsDoNotShareConnections) {
  conformance::EchoService service;
  const auto server = ServerBuilder(TransportsWithGrpc()).Listen("grpc:127.0.0.1:0").Register(&service).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  EchoRequest request;
  request.set_observe(true);
  std::set<std::string> clients;
  std::vector<std::shared_ptr<Channel>> channels;
  for (int i = 0; i < 3; ++i) {
    channels.push_back(Channel::Create((*server)->addresses().front().ToString(), {}, TransportsWithGrpc()));
    const absl::StatusOr<EchoReply> reply = Echo::Stub(channels.back()).Echo(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    clients.insert(reply->observed().peer_address());
  }
  EXPECT_EQ(clients.size(), 3u);
}

TEST(GrpcClientTest, RoundRobinUsesAllServersAndThoseThatAreLeft) {
  GrpcOnlyServer a("a"), b("b");
  GrpcOptions options;
  options.client.load_balancing_policy = "round_robin";
  const auto channel =
      Channel::Create(absl::StrCat("grpc:ipv4:", a.address(), ",", b.address()), {}, TransportsWithGrpc(options));
  Echo::Stub stub(channel);
  // Both are used once both are connected.
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(stub.Echo(Request("x")).ok());
    return a.calls() > 0 && b.calls() > 0;
  }));
  const int calls_of_a = a.calls(), calls_of_b = b.calls();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(stub.Echo(Request("x")).ok());
  EXPECT_EQ(a.calls(), calls_of_a + 50);
  EXPECT_EQ(b.calls(), calls_of_b + 50);

  a.Stop();
  const int after = b.calls();
  // A call may still have been on its way to the server that went.
  ASSERT_TRUE(Eventually([&] { return stub.Echo(Request("x")).ok(); }));
  for (int i = 0; i < 50; ++i) {
    const absl::Status status = stub.Echo(Request("x")).status();
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_GE(b.calls(), after + 50);
  EXPECT_EQ(channel->GetState(false), ChannelState::kReady) << "one server is left";
}

// The same with servers of this library, of which one is killed.
TEST(GrpcClientTest, RoundRobinGoesOnWithoutAServerThatIsKilled) {
  conformance::ServerProcess other("grpc", "grpc:127.0.0.1:0");
  conformance::EchoService service;
  const auto server = ServerBuilder(TransportsWithGrpc()).Listen("127.0.0.1:0").Register(&service).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  GrpcOptions options;
  options.client.load_balancing_policy = "round_robin";
  const auto channel = Channel::Create(absl::StrCat("grpc:ipv4:", absl::StripPrefix(other.address(), "grpc:"), ",",
                                                    (*server)->addresses().front().ToString()),
                                       {}, TransportsWithGrpc(options));
  Echo::Stub stub(channel);
  int calls = 0;
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(stub.Echo(Request("x")).ok());
    ++calls;
    return service.started().value() > 0 && service.started().value() < calls;
  }));
  const int before = service.started().value();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(stub.Echo(Request("x")).ok());
  EXPECT_EQ(service.started().value(), before + 50);

  other.process().Kill();
  // The first may be told of the connection's end only after a call was sent there.
  ASSERT_TRUE(Eventually([&] {
    const int here = service.started().value();
    return stub.Echo(Request("x")).ok() && stub.Echo(Request("x")).ok() && service.started().value() == here + 2;
  }));
  const int after = service.started().value();
  for (int i = 0; i < 100; ++i) {
    const absl::Status status = stub.Echo(Request("x")).status();
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(service.started().value(), after + 100);
}

TEST(GrpcClientTest, TheServiceConfigIsPassedOn) {
  GrpcOnlyServer server("only");
  GrpcOptions options;
  options.client.service_config_json = R"({"methodConfig": [{"name": [{}], "maxRequestMessageBytes": 10}]})";
  const auto channel = Channel::Create("grpc:" + server.address(), {}, TransportsWithGrpc(options));
  EXPECT_TRUE(Echo::Stub(channel).Echo(Request("1234")).ok());
  const absl::Status status = Echo::Stub(channel).Echo(Request("12345678901")).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST(GrpcClientTest, ChannelArgumentsArePassedOn) {
  GrpcOnlyServer server("only");
  GrpcOptions options;
  options.client.arguments["grpc.max_send_message_length"] = 10;
  const auto channel = Channel::Create("grpc:" + server.address(), {}, TransportsWithGrpc(options));
  EXPECT_TRUE(Echo::Stub(channel).Echo(Request("1234")).ok());
  const absl::Status status = Echo::Stub(channel).Echo(Request("12345678901")).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST(GrpcClientTest, NobodyThereIsSaidWithTheReason) {
  const absl::Status status =
      Echo::Stub(Channel::Create("grpc:127.0.0.1:1", {}, TransportsWithGrpc())).Echo(Request("")).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused"));
}

TEST(GrpcClientTest, XdsIsLeftToTheLibrary) {
  unsetenv("GRPC_XDS_BOOTSTRAP");
  unsetenv("GRPC_XDS_BOOTSTRAP_CONFIG");
  const absl::Status status =
      Echo::Stub(Channel::Create("grpc:xds:///service", {}, TransportsWithGrpc())).Echo(Request("")).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("Environment variables GRPC_XDS_BOOTSTRAP"));
}

// What the other side of the limit sees; the conformance suite looks at both sides of this library's own.
TEST(GrpcClientTest, MessagesOfOtherClientsHaveTheServersLimit) {
  conformance::EchoService service;
  const auto server = ServerBuilder(TransportsWithGrpc())
                          .SetMaxReceiveMessageBytes(1000)
                          .Listen("127.0.0.1:0")
                          .Register(&service)
                          .Start();
  ASSERT_TRUE(server.ok()) << server.status();
  conformance::GrpcEchoCaller caller((*server)->addresses().front().ToString());
  EchoReply reply;
  EXPECT_TRUE(caller.Call(Request(std::string(900, 'x')), &reply).ok());
  grpc::Status status = caller.Call(Request(std::string(1001, 'x')), &reply);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("max_receive_message_bytes"));
  // One that does not come in at all.
  status = caller.Call(Request(std::string(2 << 20, 'x')), &reply);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("larger than max"));
  EXPECT_TRUE(caller.Call(Request(""), &reply).ok());
  EXPECT_EQ(service.started().value(), 2);
}

TEST(GrpcClientTest, CompressedMessagesOfOtherClientsAreUnderstoodAndHaveTheSameLimit) {
  conformance::EchoService service;
  const auto server = ServerBuilder(TransportsWithGrpc())
                          .SetMaxReceiveMessageBytes(100'000)
                          .Listen("127.0.0.1:0")
                          .Register(&service)
                          .Start();
  ASSERT_TRUE(server.ok()) << server.status();
  conformance::GrpcEchoCaller caller((*server)->addresses().front().ToString());
  EchoReply reply;
  const std::string payload(90'000, 'x');
  ASSERT_TRUE(caller.Call(Request(payload), &reply, GRPC_COMPRESS_GZIP).ok());
  EXPECT_TRUE(reply.payload() == payload);
  // Less than the limit on its way.
  const grpc::Status status = caller.Call(Request(std::string(110'000, 'x')), &reply, GRPC_COMPRESS_GZIP);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(service.started().value(), 1);
}

// The details of a status are gRPC's: a google.rpc.Status with an Any for each.
TEST(GrpcClientTest, StatusDetailsAreWhatOtherGrpcClientsExpect) {
  conformance::EchoService service;
  const auto server = ServerBuilder(TransportsWithGrpc()).Listen("127.0.0.1:0").Register(&service).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  absl::Status sent = absl::AbortedError("with details");
  sent.SetPayload("type.googleapis.com/google.rpc.ErrorInfo", absl::Cord("12345"));
  EchoRequest request;
  *request.mutable_status() = conformance::ToProto(sent);
  EchoReply reply;
  const grpc::Status status =
      conformance::GrpcEchoCaller((*server)->addresses().front().ToString()).Call(request, &reply);
  EXPECT_EQ(status.error_code(), grpc::ABORTED);
  EXPECT_EQ(status.error_message(), "with details");
  // Field 1: 10. Field 2: the message. Field 3: the Any, with fields 1 and 2.
  const std::string any = absl::StrCat("\x0a\x28", "type.googleapis.com/google.rpc.ErrorInfo", "\x12\x05", "12345");
  EXPECT_EQ(status.error_details(), absl::StrCat("\x08\x0a\x12\x0c", "with details", "\x1a",
                                                 std::string(1, static_cast<char>(any.size())), any));
}

// Otherwise the client would have to refuse the headers, and with them the whole status.
TEST(GrpcClientTest, StatusDetailsThatAreTooLargeAreLeftOut) {
  conformance::EchoService service;
  const auto server = ServerBuilder(TransportsWithGrpc()).Listen("127.0.0.1:0").Register(&service).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  absl::Status sent = absl::AbortedError("with details");
  sent.SetPayload("type.googleapis.com/large", absl::Cord(std::string(13'000, 'x')));
  EchoRequest request;
  *request.mutable_status() = conformance::ToProto(sent);
  EchoReply reply;
  const grpc::Status status =
      conformance::GrpcEchoCaller((*server)->addresses().front().ToString()).Call(request, &reply);
  EXPECT_EQ(status.error_code(), grpc::ABORTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("with details [its details are too large and were left out]"));
}

TEST(GrpcClientTest, StatusDetailsOfOtherGrpcServersAreUnderstood) {
  // As above.
  const std::string details =
      absl::StrCat("\x08\x0a\x12\x0c", "with details", "\x1a\x06", "\x0a\x01", "u", "\x12\x01", "v");
  GrpcOnlyServer server("only", grpc::Status(grpc::ABORTED, "with details", details));
  absl::Status expected = absl::AbortedError("with details");
  expected.SetPayload("u", absl::Cord("v"));
  const auto channel = Channel::Create(server.address(), {}, TransportsWithGrpc());
  EXPECT_EQ(Echo::Stub(channel).Echo(Request("")).status(), expected);

  // Details that are none of this kind are left out.
  GrpcOnlyServer strange("strange", grpc::Status(grpc::ABORTED, "with details", "\xff\xff"));
  EXPECT_EQ(Echo::Stub(Channel::Create(strange.address(), {}, TransportsWithGrpc())).Echo(Request("")).status(),
            absl::AbortedError("with details"));
}

TEST(GrpcClientTest, AStatusThatIsNoneOfTheSixteenIsUnknown) {
  GrpcOnlyServer server("only", grpc::Status(static_cast<grpc::StatusCode>(30), "odd"));
  const absl::Status status =
      Echo::Stub(Channel::Create(server.address(), {}, TransportsWithGrpc())).Echo(Request("")).status();
  EXPECT_EQ(status, absl::UnknownError("odd"));
  EXPECT_EQ(status.raw_code(), static_cast<int>(absl::StatusCode::kUnknown));
}

TEST(GrpcClientTest, InTheChildOfAForkANewChannelFailsCleanly) {
  GrpcOnlyServer server("only");
  ASSERT_TRUE(Echo::Stub(Channel::Create("grpc:" + server.address(), {}, TransportsWithGrpc())).Echo(Request("")).ok());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(30);
    const absl::Status status =
        Echo::Stub(Channel::Create("grpc:" + server.address(), {}, TransportsWithGrpc())).Echo(Request("")).status();
    _exit(!status.ok() && status.message().find("fork") != std::string_view::npos ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace shmrpc
