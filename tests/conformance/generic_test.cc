// Calls and services whose methods are known at run time only, against generated ones, over every transport.

#include "shmrpc/generic.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

constexpr char kEcho[] = "/shmrpc.conformance.Echo/Echo";
constexpr char kCount[] = "/shmrpc.conformance.Streams/Count";
constexpr char kSum[] = "/shmrpc.conformance.Streams/Sum";
constexpr char kChat[] = "/shmrpc.conformance.Streams/Chat";

RawMessage Encode(const google::protobuf::MessageLite& message) { return RawMessage(message.SerializeAsString()); }

template <typename Message>
Message Decode(const RawMessage& bytes) {
  Message message;
  EXPECT_TRUE(message.ParseFromString(bytes.bytes()));
  return message;
}

EchoRequest RequestOf(std::string payload) {
  EchoRequest request;
  request.set_payload(std::move(payload));
  return request;
}

// Three generic services that do the same: send back every message, and then the method's name, as trailing metadata.
class MirrorService final : public GenericService {
  absl::Status Call(ServerContext* context, ServerReaderWriter<RawMessage, RawMessage>* stream) override {
    RawMessage message;
    while (stream->Read(&message)) {
      if (!stream->Write(message)) break;
    }
    context->AddTrailingMetadata("method", context->method());
    return absl::OkStatus();
  }
};

class CoMirrorService final : public CoGenericService {
  Task<absl::Status> Call(ServerContext* context, CoServerReaderWriter<RawMessage, RawMessage>* stream) override {
    while (auto message = co_await stream->Read()) {
      if (!co_await stream->Write(*message)) break;
    }
    context->AddTrailingMetadata("method", context->method());
    co_return absl::OkStatus();
  }
};

class CallbackMirrorService final : public CallbackGenericService {
  class Reactor final : public ServerBidiReactor<RawMessage, RawMessage> {
   public:
    explicit Reactor(ServerContext* context) : context_(context) { StartRead(&message_); }
    void OnReadDone(bool ok) override {
      if (ok) return StartWrite(&message_);
      context_->AddTrailingMetadata("method", context_->method());
      Finish(absl::OkStatus());
    }
    void OnWriteDone(bool ok) override {
      if (ok) return StartRead(&message_);
      Finish(absl::CancelledError("the client does not wait any more"));
    }
    void OnDone() override { delete this; }

   private:
    ServerContext* const context_;
    RawMessage message_;
  };

  ServerBidiReactor<RawMessage, RawMessage>* Call(ServerContext* context) override { return new Reactor(context); }
};

// Passes every call on to the server at the other end of a channel.
class ProxyService final : public GenericService {
 public:
  explicit ProxyService(std::shared_ptr<Channel> channel) : stub_(std::move(channel)) {}

 private:
  absl::Status Call(ServerContext* context, ServerReaderWriter<RawMessage, RawMessage>* downstream) override {
    const std::unique_ptr<ClientContext> further = ClientContext::FromServerContext(*context);
    const auto upstream = stub_.StreamingCall(further.get(), std::string(context->method()));
    std::thread replies([&] {
      RawMessage reply;
      while (upstream->Read(&reply)) {
        if (!downstream->Write(reply)) break;
      }
    });
    RawMessage request;
    while (downstream->Read(&request) && upstream->Write(request)) {
    }
    upstream->WritesDone();
    replies.join();
    return upstream->Finish();
  }

  GenericStub stub_;
};

TEST_P(ConformanceStreamTest, GenericUnaryCallsInThreeStyles) {
  StartServer();
  GenericStub stub(NewChannel());
  for (const size_t size : {size_t{0}, size_t{10}, size_t{3'000'000}}) {
    const std::string payload = RandomBytes(size, size);
    const RawMessage request = Encode(RequestOf(payload));
    {
      ClientContext context;
      RawMessage reply;
      ASSERT_EQ(stub.UnaryCall(&context, kEcho, request, &reply), absl::OkStatus());
      EXPECT_TRUE(Decode<EchoReply>(reply).payload() == payload) << size;
    }
    {
      ClientContext context;
      RawMessage reply;
      Event done;
      absl::Status end;
      stub.AsyncUnaryCall(&context, kEcho, &request, &reply, [&](absl::Status status) {
        end = std::move(status);
        done.Set();
      });
      done.Wait();
      ASSERT_EQ(end, absl::OkStatus());
      EXPECT_TRUE(Decode<EchoReply>(reply).payload() == payload) << size;
    }
    {
      ClientContext context;
      auto call = [&]() -> Task<absl::StatusOr<RawMessage>> {
        co_return co_await stub.CoroutineUnaryCall(&context, kEcho, request);
      };
      const absl::StatusOr<RawMessage> reply = SyncWait(call());
      ASSERT_EQ(reply.status(), absl::OkStatus());
      EXPECT_TRUE(Decode<EchoReply>(*reply).payload() == payload) << size;
    }
  }
}

TEST_P(ConformanceStreamTest, GenericStreamingCallsAreForMethodsOfEveryKind) {
  StartStreams(ServerStyle::kSynchronous);
  GenericStub stub(NewChannel());
  RawMessage message;
  {
    ClientContext context;
    CountRequest request;
    request.set_count(3);
    auto stream = stub.StreamingCall(&context, kCount);
    ASSERT_TRUE(stream->WriteLast(Encode(request)));
    for (uint64_t number = 0; number < 3; ++number) {
      ASSERT_TRUE(stream->Read(&message));
      EXPECT_EQ(Decode<Item>(message).number(), number);
    }
    EXPECT_FALSE(stream->Read(&message));
    EXPECT_EQ(stream->Finish(), absl::OkStatus());
  }
  {
    ClientContext context;
    auto stream = stub.StreamingCall(&context, kSum);
    for (uint64_t number = 1; number <= 4; ++number) ASSERT_TRUE(stream->Write(Encode(MakeItem(number))));
    ASSERT_TRUE(stream->WritesDone());
    ASSERT_TRUE(stream->Read(&message));
    EXPECT_EQ(Decode<SumReply>(message).sum(), 10u);
    EXPECT_FALSE(stream->Read(&message));
    EXPECT_EQ(stream->Finish(), absl::OkStatus());
  }
  {
    ClientContext context;
    auto stream = stub.StreamingCall(&context, kChat);
    for (uint64_t number = 1; number <= 4; ++number) {
      const RawMessage sent = Encode(MakeItem(number, 100'000));
      ASSERT_TRUE(stream->Write(sent));
      ASSERT_TRUE(stream->Read(&message));
      EXPECT_TRUE(message.bytes() == sent.bytes());
    }
    EXPECT_EQ(stream->Finish(), absl::OkStatus());
  }
  {
    ClientContext context;
    auto stream = stub.StreamingCall(&context, kEcho);
    ASSERT_TRUE(stream->WriteLast(Encode(RequestOf("unary"))));
    ASSERT_TRUE(stream->Read(&message));
    EXPECT_EQ(Decode<EchoReply>(message).payload(), "unary");
    EXPECT_EQ(stream->Finish(), absl::OkStatus());
  }
}

TEST_P(ConformanceStreamTest, GenericServicesInThreeStylesServeGeneratedStubs) {
  MirrorService synchronous;
  CallbackMirrorService callback;
  CoMirrorService coroutine;
  GenericServiceBase* const styles[] = {&synchronous, &callback, &coroutine};
  for (int style = 0; style < 3; ++style) {
    ServerBuilder builder = NewServerBuilder();
    builder.RegisterGeneric(styles[style]);
    StartServer(std::move(builder), NewListenAddress());
    const std::shared_ptr<Channel> channel = NewChannel();
    Streams::Stub streams(channel);
    {
      ClientContext context;
      auto chat = streams.Chat(&context);
      Item item;
      for (uint64_t number = 1; number <= 3; ++number) {
        ASSERT_TRUE(chat->Write(MakeItem(number, 50'000)));
        ASSERT_TRUE(chat->Read(&item));
        EXPECT_EQ(item.SerializeAsString(), MakeItem(number, 50'000).SerializeAsString());
      }
      EXPECT_EQ(chat->Finish(), absl::OkStatus());
      EXPECT_EQ(context.GetServerTrailingMetadata().Find("method"), kChat);
    }
    {
      // A request comes back as the reply: a message of both types.
      Relay::Stub relay(channel);
      ClientContext context;
      PassRequest request;
      request.set_further(7);
      PassReply reply;
      EXPECT_EQ(relay.Pass(&context, request, &reply), absl::OkStatus());
      EXPECT_EQ(reply.passed(), 7u);
    }
    // What is registered comes first.
    ExpectEcho(channel);
    EXPECT_EQ(service_.started().value(), style + 1);
    server_.reset();
  }
}

TEST_P(ConformanceStreamTest, GenericProxyPassesCallsOnAndCancelsThem) {
  StartStreams(ServerStyle::kSynchronous);
  ProxyService proxy(NewChannel());
  absl::StatusOr<std::unique_ptr<Server>> server =
      ServerBuilder(GetParam().transports()).Listen(NewListenAddress()).RegisterGeneric(&proxy).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const std::shared_ptr<Channel> channel = NewChannelTo((*server)->addresses().front().ToString());
  ExpectEcho(channel, RandomBytes(1'000'000, 5));
  Streams::Stub streams(channel);
  {
    ClientContext context;
    SumReply sum;
    auto writer = streams.Sum(&context, &sum);
    for (uint64_t number = 1; number <= 100; ++number) ASSERT_TRUE(writer->Write(MakeItem(number, 1000)));
    EXPECT_EQ(writer->Finish(), absl::OkStatus());
    EXPECT_EQ(sum.sum(), 5050u);
  }
  {
    ClientContext context;
    CountRequest request;
    request.set_count(1);
    request.set_wait_for_cancellation(true);
    auto reader = streams.Count(&context, request);
    Item item;
    ASSERT_TRUE(reader->Read(&item));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kCancelled);
  }
  (*server)->Shutdown(absl::InfiniteFuture());  // returns: the proxied handler was cancelled, too
}

TEST(GenericServiceTest, AServerHasOneAtMost) {
  MirrorService service;
  const auto start = [](ServerBuilder builder) { return builder.Listen("inproc:generic").Start().status(); };
  EXPECT_EQ(start(std::move(ServerBuilder().RegisterGeneric(&service))), absl::OkStatus());
  EXPECT_EQ(start(std::move(ServerBuilder().RegisterGeneric(&service).RegisterGeneric(&service))).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(start(std::move(ServerBuilder().RegisterGeneric(nullptr))).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(ConformanceStreamTest, GenericCallsHaveErrorsThatNameTheMethod) {
  StartServer();
  GenericStub stub(NewChannel());
  RawMessage request, reply;
  {
    ClientContext context;
    const absl::Status status = stub.UnaryCall(&context, "/no.Such/Method", request, &reply);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  }
  for (const std::string& bad : {std::string(), std::string("x"), std::string("no.Slash/Before"), std::string("/only"),
                                 std::string("/a/"), std::string("//b"), std::string("/a b/c"), std::string("/a/\n"),
                                 std::string("/a/\0b", 5), "/a/" + std::string(5000, 'b')}) {
    ClientContext context;
    const absl::Status status = stub.UnaryCall(&context, bad, request, &reply);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_LT(status.message().size(), 1000u);
    ClientContext stream_context;
    EXPECT_EQ(stub.StreamingCall(&stream_context, bad)->Finish().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(service_.started().value(), 0);
}

}  // namespace
}  // namespace shmrpc::conformance
