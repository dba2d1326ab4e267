// What transports are told of the types of messages before they are there.

#include <memory>
#include <string>
#include <thread>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/stub.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_sync.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc {
namespace {

using google::protobuf::BytesValue;
using google::protobuf::Descriptor;
using google::protobuf::StringValue;
using testing::FakeCall;
using testing::FakeServer;
using testing::Outcome;
using testing::TestService;

// The transport within the process, which lets the test see who handles its calls.
class ListeningTransport final : public Transport {
 public:
  std::string_view name() const override { return "listening"; }
  bool Handles(const Target& target) const override { return inproc_.Handles(target); }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override {
    return inproc_.Connect(target, options);
  }
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                   CallHandler* handler) override {
    handler_ = handler;
    return inproc_.Listen(target, options, handler);
  }
  CallHandler* handler() const { return handler_; }

 private:
  InprocTransport inproc_;
  CallHandler* handler_ = nullptr;
};

TEST(MessageTypeTest, AServerKnowsTheTypeOfItsRequests) {
  const auto transport = std::make_shared<ListeningTransport>();
  TestService service;
  const auto server = ServerBuilder({transport}).Listen("inproc:message-type-test").Register(&service).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(transport->handler()->request_type(TestService::kEcho), StringValue::descriptor());
  EXPECT_EQ(transport->handler()->request_type("/test.Echo/Nothing"), nullptr);
}

class ClientMessageTypeTest : public ::testing::Test {
 protected:
  FakeServer server_;
  std::shared_ptr<Channel> channel_ = server_.NewChannel();
};

// The type of the request is another one, in all of them.
TEST_F(ClientMessageTypeTest, OfACallThatWaits) {
  std::thread server([this] {
    const auto call = server_.NextCall();
    EXPECT_EQ(call->message_type(), StringValue::descriptor());
    call->SendText("reply");
    call->Finish(absl::OkStatus());
  });
  StringValue reply;
  EXPECT_EQ(UnaryCall(*channel_, "/test.Service/Unary", nullptr, BytesValue(), &reply), absl::OkStatus());
  server.join();
}

TEST_F(ClientMessageTypeTest, OfACallThatCallsBack) {
  ClientContext context;
  const BytesValue request;
  StringValue reply;
  Outcome outcome;
  AsyncUnaryCall(channel_, "/test.Service/Unary", &context, request, &reply, outcome.Callback());
  const auto call = server_.NextCall();
  EXPECT_EQ(call->message_type(), StringValue::descriptor());
  call->SendText("reply");
  call->Finish(absl::OkStatus());
  EXPECT_EQ(outcome.Wait(), absl::OkStatus());
}

TEST_F(ClientMessageTypeTest, OfAClientsStream) {
  ClientContext context;
  StringValue reply;
  ClientWriter<BytesValue> writer(
      StartClientStream(channel_, "/test.Service/Up", MethodKind::kClientStreaming, &context, nullptr, &reply));
  const auto call = server_.NextCall();
  EXPECT_EQ(call->message_type(), StringValue::descriptor());
  call->SendText("reply");
  call->Finish(absl::OkStatus());
  EXPECT_EQ(writer.Finish(), absl::OkStatus());
}

// What a stream reads is known with its first read.
TEST_F(ClientMessageTypeTest, OfAServersStream) {
  ClientContext context;
  const BytesValue request;
  ClientReader<StringValue> reader(
      StartClientStream(channel_, "/test.Service/Down", MethodKind::kServerStreaming, &context, &request, nullptr));
  const auto call = server_.NextCall();
  EXPECT_EQ(call->message_type(), nullptr);
  call->SendText("one");
  StringValue message;
  EXPECT_TRUE(reader.Read(&message));
  EXPECT_EQ(call->message_type(), StringValue::descriptor());
  call->Finish(absl::OkStatus());
  EXPECT_FALSE(reader.Read(&message));
  EXPECT_EQ(reader.Finish(), absl::OkStatus());
}

}  // namespace
}  // namespace shmrpc
