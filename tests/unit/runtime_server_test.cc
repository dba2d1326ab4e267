// What a server says to calls that it cannot serve, and how it starts and stops.

#include "shmrpc/server.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc {
namespace {

using testing::Event;
using ::testing::HasSubstr;
using testing::Inproc;
using testing::Outcome;
using testing::StartServer;
using testing::StringValue;
using testing::TestService;
using testing::Text;

constexpr const char* kAddress = "inproc:server-test";

absl::Status CallMethod(const char* method, const google::protobuf::MessageLite& request = Text("x")) {
  StringValue reply;
  return UnaryCall(*Channel::Create(kAddress, {}, Inproc()), method, nullptr, request, &reply);
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(ServerTest, NamesWhatIsRegisteredWhenAskedForSomethingElse) {
  TestService service;
  const auto server = StartServer(kAddress, &service);
  absl::Status status = CallMethod("/test.Ecko/Echo");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(status.message(), "unknown service \"test.Ecko\"; this server has: grpc.health.v1.Health, test.Echo");
  status = CallMethod("/test.Echo/Ecko");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(status.message(), "service \"test.Echo\" has no method \"Ecko\"; it has: Echo, Other");
  for (const char* malformed : {"", "/", "/x", "test.Echo/Echo", "\x01"}) {
    status = CallMethod(malformed);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << malformed;
    EXPECT_THAT(MessageOf(status), HasSubstr("/package.Service/Method"));
  }
}

TEST(ServerTest, ARequestThatDoesNotParseIsAnInternalError) {
  TestService service;
  const auto server = StartServer(kAddress, &service);
  google::protobuf::BytesValue bytes;
  bytes.set_value("\xff");  // not UTF-8, which a string field has to be
  const absl::Status status = CallMethod(TestService::kEcho, bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("google.protobuf.StringValue"));
}

TEST(ServerTest, ExceptionsBecomeUnknown) {
  TestService service([](ServerContext*, const StringValue& request, StringValue*) -> absl::Status {
    if (request.value() == "std") throw std::runtime_error("out of cheese");
    throw 42;
  });
  const auto server = StartServer(kAddress, &service);
  absl::Status status = CallMethod(TestService::kEcho, Text("std"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(MessageOf(status), HasSubstr("out of cheese"));
  status = CallMethod(TestService::kEcho, Text("int"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(MessageOf(status), HasSubstr(TestService::kEcho));
}

TEST(ServerTest, AStatusCodeOutOfRangeBecomesUnknown) {
  TestService service([](ServerContext*, const StringValue&, StringValue*) {
    absl::Status status(static_cast<absl::StatusCode>(4711), "strange");
    status.SetPayload("type", absl::Cord("kept"));
    return status;
  });
  const auto server = StartServer(kAddress, &service);
  const absl::Status status = CallMethod(TestService::kEcho);
  EXPECT_EQ(status.raw_code(), static_cast<int>(absl::StatusCode::kUnknown));
  EXPECT_THAT(MessageOf(status), HasSubstr("4711"));
  EXPECT_THAT(MessageOf(status), HasSubstr("strange"));
  EXPECT_EQ(status.GetPayload("type"), absl::Cord("kept"));
}

TEST(ServerTest, EveryCodeArrives) {
  TestService service([](ServerContext*, const StringValue& request, StringValue*) {
    return absl::Status(static_cast<absl::StatusCode>(std::stoi(request.value())), "m");
  });
  const auto server = StartServer(kAddress, &service);
  for (int code = 1; code <= 16; ++code) {
    EXPECT_EQ(CallMethod(TestService::kEcho, Text(std::to_string(code))).raw_code(), code);
  }
}

TEST(ServerTest, LimitsRequestsAndReplies) {
  TestService service;
  auto server =
      ServerBuilder(Inproc()).Listen(kAddress).Register(&service).SetMaxReceiveMessageBytes(10).Start().value();
  EXPECT_EQ(CallMethod(TestService::kEcho, Text("12345678")), absl::OkStatus());
  absl::Status status = CallMethod(TestService::kEcho, Text("123456789"));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("max_receive_message_bytes"));
  server.reset();
  server = ServerBuilder(Inproc()).Listen(kAddress).Register(&service).SetMaxSendMessageBytes(10).Start().value();
  EXPECT_EQ(CallMethod(TestService::kEcho, Text("12345678")), absl::OkStatus());
  status = CallMethod(TestService::kEcho, Text("123456789"));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("has 11 bytes, the server's limit is 10"));
}

TEST(ServerTest, BadMetadataOfAHandlerIsAnInternalError) {
  TestService service([](ServerContext* context, const StringValue&, StringValue*) {
    context->AddTrailingMetadata("Bad", "x");
    return absl::OkStatus();
  });
  const auto server = StartServer(kAddress, &service);
  const absl::Status status = CallMethod(TestService::kEcho);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("Bad"));
}

// A service whose name and methods a test chooses.
class OddService final : public Service {
 public:
  OddService(std::string name, std::vector<ServiceMethod> methods)
      : name_(std::move(name)), methods_(std::move(methods)) {}
  std::string_view ShmrpcServiceName() const override { return name_; }
  std::span<const ServiceMethod> ShmrpcMethods() const override { return methods_; }

 private:
  const std::string name_;
  const std::vector<ServiceMethod> methods_;
};

TEST(ServerBuilderTest, ExplainsMistakes) {
  TestService service;
  TestService same_name;
  const auto builder = [] { return ServerBuilder(Inproc()); };
  const auto invoke = [](Service*, ServerContext*, const google::protobuf::MessageLite*, google::protobuf::MessageLite*,
                         ServerStream*) { return absl::OkStatus(); };
  const auto react = [](Service*, ServerContext*, const google::protobuf::MessageLite*,
                        google::protobuf::MessageLite*) -> ServerReactor* { return nullptr; };
  OddService misnamed("test.Odd", {{"/test.Other/Method", MethodKind::kUnary, nullptr, nullptr, invoke}});
  OddService doubled("test.Odd", {{"/test.Odd/M", MethodKind::kUnary, nullptr, nullptr, invoke},
                                  {"/test.Odd/M", MethodKind::kUnary, nullptr, nullptr, invoke}});
  OddService no_style("test.Odd", {{"/test.Odd/M", MethodKind::kUnary, nullptr, nullptr}});
  OddService two_styles("test.Odd", {{"/test.Odd/M", MethodKind::kUnary, nullptr, nullptr, invoke, react}});
  const auto flow_control = [&](size_t stream_bytes, size_t connection_bytes) {
    FlowControlOptions options;
    options.stream_bytes = stream_bytes;
    options.connection_bytes = connection_bytes;
    return builder().Listen(kAddress).Register(&service).SetFlowControl(options).Start().status();
  };
  struct {
    absl::Status status;
    std::string why;
  } const cases[] = {
      {builder().Register(&service).Start().status(), "Listen"},
      {builder().Listen(kAddress).Start().status(), "Register"},
      {builder().Listen(kAddress).Register(nullptr).Start().status(), "null"},
      {builder().Listen("localhost").Register(&service).Start().status(), "localhost:50051"},
      {builder().Listen("localhost:1").Register(&service).Start().status(), "none of the server's 1 transports"},
      {builder().Listen(kAddress).Register(&service).Register(&same_name).Start().status(), "registered twice"},
      {builder().Listen(kAddress).Register(&misnamed).Start().status(), "/test.Other/Method"},
      {builder().Listen(kAddress).Register(&doubled).Start().status(), "twice"},
      {builder().Listen(kAddress).Register(&no_style).Start().status(), "exactly one of invoke"},
      {builder().Listen(kAddress).Register(&two_styles).Start().status(), "exactly one of invoke"},
      {builder().Listen(kAddress).Register(&service).SetMaxConcurrentCalls(0).Start().status(),
       "max_concurrent_calls is 0"},
      {flow_control(FlowControlOptions::kMinStreamBytes - 1, 1 << 20), "stream_bytes is 16383"},
      {flow_control(FlowControlOptions::kMaxBytes + 1, FlowControlOptions::kMaxBytes), "stream_bytes is 1073741825"},
      {flow_control(1 << 20, (1 << 20) - 1), "connection_bytes is 1048575"},
      {flow_control(1 << 20, FlowControlOptions::kMaxBytes + 1), "connection_bytes is 1073741825"},
      {builder().Listen(kAddress).Register(&service).SetMaxThreads(0).Start().status(), "max_threads is 0"},
      {builder().Listen(kAddress).Register(&service).SetMaxSendMessageBytes(size_t{1} << 31).Start().status(),
       "max_send_message_bytes"},
      {builder().Listen(kAddress).Register(&service).SetMaxReceiveMessageBytes(size_t{1} << 31).Start().status(),
       "max_receive_message_bytes"},
  };
  for (const auto& mistake : cases) {
    EXPECT_EQ(mistake.status.code(), absl::StatusCode::kInvalidArgument) << mistake.why;
    EXPECT_THAT(MessageOf(mistake.status), HasSubstr(mistake.why));
  }
}

TEST(ServerBuilderTest, OneFailingAddressStopsTheOthers) {
  TestService service;
  const auto first = StartServer("inproc:taken", &service);
  const absl::Status status =
      ServerBuilder(Inproc()).Listen(kAddress).Listen("inproc:taken").Register(&service).Start().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(MessageOf(status), HasSubstr("cannot listen on \"inproc:taken\""));
  StartServer(kAddress, &service);  // the name is free again
}

TEST(ServerShutdownTest, ServesSeveralAddressesAndWaits) {
  TestService service;
  const auto server = ServerBuilder(Inproc())
                          .Listen("inproc:a")
                          .Listen("inproc:b")
                          .Listen("inproc:c")
                          .Register(&service)
                          .Start()
                          .value();
  ASSERT_EQ(server->addresses().size(), 3u);
  EXPECT_EQ(server->addresses()[1].ToString(), "inproc:b");
  StringValue reply;
  for (const char* address : {"inproc:a", "inproc:b", "inproc:c"}) {
    const auto channel = Channel::Create(address, {}, Inproc());
    EXPECT_EQ(UnaryCall(*channel, TestService::kEcho, nullptr, Text("x"), &reply), absl::OkStatus());
  }
  std::atomic<bool> shut_down{false};
  std::thread waiter([&] {
    server->Wait();
    EXPECT_TRUE(shut_down);
  });
  shut_down = true;
  server->Shutdown(absl::InfiniteFuture());
  waiter.join();
  server->Shutdown(absl::InfinitePast());  // idempotent
  server->Wait();
}

TEST(ServerShutdownTest, FinishesAcceptedCallsAndRefusesLateOnes) {
  Event handler_runs;
  Event go;
  TestService service([&](ServerContext* context, const StringValue&, StringValue* reply) {
    handler_runs.Set();
    go.Wait();
    EXPECT_FALSE(context->IsCancelled());
    reply->set_value("done");
    return absl::OkStatus();
  });
  const auto server = StartServer(kAddress, &service);
  const auto channel = Channel::Create(kAddress, {}, Inproc());
  StringValue reply;
  absl::Status status;
  std::thread caller([&] { status = UnaryCall(*channel, TestService::kEcho, nullptr, Text("x"), &reply); });
  handler_runs.Wait();
  std::thread shutdown([&] { server->Shutdown(absl::InfiniteFuture()); });
  while (channel->transport() == "inproc") std::this_thread::yield();
  EXPECT_EQ(CallMethod(TestService::kEcho).code(), absl::StatusCode::kUnavailable);
  go.Set();
  shutdown.join();
  caller.join();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_EQ(reply.value(), "done");
}

TEST(ServerShutdownTest, CancelsWhatIsLeftAtTheDeadline) {
  Event handler_runs;
  TestService service([&](ServerContext* context, const StringValue&, StringValue*) {
    handler_runs.Set();
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    return absl::OkStatus();
  });
  const auto server = StartServer(kAddress, &service);
  const auto channel = Channel::Create(kAddress, {}, Inproc());
  StringValue reply;
  Outcome outcome;
  AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &reply, outcome.Callback());
  handler_runs.Wait();
  server->Shutdown(absl::Now() + absl::Milliseconds(10));
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kUnavailable);
}

TEST(ServerShutdownTest, NoCallIsLostUnderLoad) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> handled{0};
    TestService service([&](ServerContext*, const StringValue&, StringValue*) {
      ++handled;
      return absl::OkStatus();
    });
    const auto server = StartServer(kAddress, &service);
    std::atomic<int> succeeded{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) {
      callers.emplace_back([&] {
        const auto channel = Channel::Create(kAddress, {}, Inproc());
        for (;;) {
          StringValue reply;
          const absl::Status status = UnaryCall(*channel, TestService::kEcho, nullptr, Text("x"), &reply);
          if (!status.ok()) {
            EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
            return;
          }
          ++succeeded;
        }
      });
    }
    while (succeeded < 50) std::this_thread::yield();
    server->Shutdown(absl::InfiniteFuture());
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(handled, succeeded);
  }
}

}  // namespace
}  // namespace shmrpc
