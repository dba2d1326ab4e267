// One call at a time: that it works, where it went, and what happens to calls that nobody can answer.

#include <unistd.h>

#include "fixture.h"
#include "shmrpc/stub.h"

namespace shmrpc::conformance {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST_P(ConformanceTest, UnaryReturnsTheReply) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_payload("hello");

  const absl::StatusOr<EchoReply> reply = stub.Echo(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->payload(), "hello");
}

TEST_P(ConformanceTest, UnaryWithContextFillsInTheReply) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_payload("hello");

  ClientContext context;
  EchoReply reply;
  reply.set_payload("replaced");
  const absl::Status status = stub.Echo(&context, request, &reply);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(reply.payload(), "hello");
}

TEST_P(ConformanceTest, UnaryEmptyReplyReplacesWhatTheReplyHeld) {
  StartServer();
  Echo::Stub stub(NewChannel());
  ClientContext context;
  EchoReply reply;
  reply.set_payload("stale");
  const absl::Status status = stub.Echo(&context, EchoRequest(), &reply);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(reply.payload(), "");
}

TEST_P(ConformanceTest, UnaryEachCallRunsItsHandlerOnce) {
  StartServer();
  Echo::Stub stub(NewChannel());
  const int calls = 200;
  for (int i = 0; i < calls; ++i) {
    const absl::StatusOr<Empty> reply = stub.Nothing(Empty());
    ASSERT_TRUE(reply.ok()) << reply.status();
  }
  EXPECT_EQ(service_.started().value(), calls);
}

TEST_P(ConformanceTest, UnaryGoesTheWayThatTheCaseNames) {
  StartServer();
  const auto channel = NewChannel();
  EXPECT_THAT(channel->transport(), StartsWith("none: "));
  ExpectEcho(channel);
  EXPECT_EQ(channel->transport(), GetParam().expected);
}

TEST_P(ConformanceTest, UnaryEachSideLearnsWhoTheOtherIs) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_observe(true);
  ClientContext context;
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, request, &reply);
  ASSERT_TRUE(status.ok()) << status;

  EXPECT_EQ(reply.observed().method(), "/shmrpc.conformance.Echo/Echo");
  EXPECT_EQ(reply.observed().peer_transport(), GetParam().transport_name());
  EXPECT_EQ(context.peer().transport, GetParam().transport_name());
  EXPECT_NE(reply.observed().peer_address(), "");
  EXPECT_NE(context.peer().address, "");
  if (GetParam().kernel_credentials) {
    ASSERT_TRUE(context.peer().credentials.has_value());
    EXPECT_EQ(context.peer().credentials->uid, geteuid());
    EXPECT_EQ(context.peer().credentials->gid, getegid());
    EXPECT_EQ(context.peer().credentials->pid, getpid());
    EXPECT_EQ(reply.observed().peer_uid(), geteuid());
    EXPECT_EQ(reply.observed().peer_gid(), getegid());
    EXPECT_EQ(reply.observed().peer_pid(), getpid());
  } else if (GetParam().transport_name() == "tcp") {
    EXPECT_FALSE(context.peer().credentials.has_value());
    EXPECT_FALSE(reply.observed().has_peer_uid());
  }
}

TEST_P(ConformanceTest, UnaryUnknownMethodIsUnimplemented) {
  StartServer();
  const auto channel = NewChannel();
  EchoReply reply;
  const absl::Status status =
      UnaryCall(*channel, "/shmrpc.conformance.Echo/NoSuchMethod", nullptr, EchoRequest(), &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("NoSuchMethod"));
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, UnaryUnknownServiceIsUnimplemented) {
  StartServer();
  const auto channel = NewChannel();
  EchoReply reply;
  const absl::Status status = UnaryCall(*channel, "/no.such.Service/Echo", nullptr, EchoRequest(), &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no.such.Service"));
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, UnaryMalformedRequestIsInternal) {
  StartServer();
  const auto channel = NewChannel();
  // Field 4 is text here and a message in EchoRequest: one that announces 127 bytes, of which there is none.
  Observed request;
  request.set_peer_transport("\x0a\x7f");
  EchoReply reply;
  const absl::Status status = UnaryCall(*channel, "/shmrpc.conformance.Echo/Echo", nullptr, request, &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_NE(status.message(), "");
  EXPECT_EQ(service_.started().value(), 0);
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, UnaryMalformedReplyIsInternal) {
  StartServer();
  const auto channel = NewChannel();
  // Field 1 is bytes in EchoReply and text here, which must be UTF-8.
  EchoRequest request;
  request.set_payload("\xff\xfe");
  Observed reply;
  const absl::Status status = UnaryCall(*channel, "/shmrpc.conformance.Echo/Echo", nullptr, request, &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_NE(status.message(), "");
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, UnaryWaitForConnectedConnects) {
  StartServer();
  const auto channel = NewChannel();
  const absl::Status status = channel->WaitForConnected(absl::Now() + kHangGuard);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(channel->transport(), GetParam().expected);
  EXPECT_EQ(service_.started().value(), 0);
}

TEST_P(ConformanceTest, UnaryWithoutServerIsUnavailable) {
  StartServer();
  const std::string address = server_address();
  server_ = nullptr;

  const auto channel = NewChannelTo(address);
  Echo::Stub stub(channel);
  const absl::StatusOr<EchoReply> reply = stub.Echo(EchoRequest());
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable) << reply.status();
  EXPECT_THAT(channel->transport(), StartsWith("none: "));
  EXPECT_EQ(channel->WaitForConnected(absl::Now() + absl::Seconds(5)).code(), absl::StatusCode::kUnavailable);
}

TEST_P(ConformanceTest, UnaryMalformedTargetFailsEveryCall) {
  const auto channel = NewChannelTo("host:no-such-port");
  EXPECT_EQ(channel->status().code(), absl::StatusCode::kInvalidArgument) << channel->status();
  EXPECT_THAT(std::string(channel->status().message()), HasSubstr("host:no-such-port"));
  Echo::Stub stub(channel);
  EXPECT_EQ(stub.Echo(EchoRequest()).status(), channel->status());
}

TEST_P(ConformanceTest, UnaryWorksInEveryWaitMode) {
  for (const WaitMode mode : {WaitMode::kAdaptive, WaitMode::kLatency, WaitMode::kEfficient}) {
    SCOPED_TRACE(WaitModeName(mode));
    StartServer(NewServerBuilder().SetWaitMode(mode), listen_address());
    ChannelOptions options = NewChannelOptions();
    options.wait_mode = mode;
    const auto channel = NewChannel(options);
    for (int i = 0; i < 100; ++i) ExpectEcho(channel, std::string(i, 'x'));
    server_ = nullptr;
  }
}

}  // namespace
}  // namespace shmrpc::conformance
