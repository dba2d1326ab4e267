// Interceptors of both sides at work together, over every transport and in every style.

#include <string>
#include <thread>

#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

// What one side's interceptor has counted.
struct Seen {
  Counter calls;
  Counter sent;
  Counter received;
  Counter initial_metadata;
  Counter ends;
  Counter failures;
};

ClientInterceptor CountingClient(Seen* seen) {
  return [seen](InterceptedClientCall* call) {
    seen->calls.Increment();
    call->OnSend([=](const google::protobuf::MessageLite&) { seen->sent.Increment(); });
    call->OnReceive([=](const google::protobuf::MessageLite&) { seen->received.Increment(); });
    call->OnInitialMetadata([=](const Metadata&) { seen->initial_metadata.Increment(); });
    call->OnEnd(
        [=](absl::Status* status, const Metadata&) { (status->ok() ? seen->ends : seen->failures).Increment(); });
    return absl::OkStatus();
  };
}

ServerInterceptor CountingServer(Seen* seen) {
  return [seen](InterceptedServerCall* call) {
    seen->calls.Increment();
    call->OnSend([=](const google::protobuf::MessageLite&) { seen->sent.Increment(); });
    call->OnReceive([=](const google::protobuf::MessageLite&) { seen->received.Increment(); });
    call->OnEnd([=](absl::Status* status) { (status->ok() ? seen->ends : seen->failures).Increment(); });
    return absl::OkStatus();
  };
}

constexpr std::string_view kToken = "Bearer 1234";

ClientInterceptor SendToken() {
  return [](InterceptedClientCall* call) {
    call->metadata().Add("authorization", kToken);
    return absl::OkStatus();
  };
}

ServerInterceptor RequireToken() {
  return [](InterceptedServerCall* call) {
    if (call->context()->client_metadata().Find("authorization") == kToken) return absl::OkStatus();
    return absl::UnauthenticatedError("no token, or a wrong one");
  };
}

// Sends `count` items and gets them back.
absl::Status SynchronousChat(const std::shared_ptr<Channel>& channel, int count) {
  Streams::Stub stub(channel);
  ClientContext context;
  const auto chat = stub.Chat(&context);
  Item item;
  for (int i = 0; i < count; ++i) {
    if (!chat->Write(MakeItem(i)) || !chat->Read(&item)) break;
  }
  chat->WritesDone();
  while (chat->Read(&item)) {
  }
  return chat->Finish();
}

class Chatter final : public ClientBidiReactor<Item, Item> {
 public:
  Chatter(const std::shared_ptr<Channel>& channel, int count) : stub_(channel), left_(count) {
    stub_.async().Chat(&context_, this);
    Next();
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (ok) StartRead(&received_);
  }
  void OnReadDone(bool ok) override {
    if (ok) Next();
  }
  void OnDone(const absl::Status& status) override {
    result = status;
    done.Set();
  }

  absl::Status result;
  Event done;

 private:
  void Next() {
    if (left_ == 0) return StartWritesDone();
    item_ = MakeItem(left_--);
    StartWrite(&item_);
  }

  Streams::Stub stub_;
  ClientContext context_;
  int left_;
  Item item_;
  Item received_;
};

absl::Status CallbackChat(const std::shared_ptr<Channel>& channel, int count) {
  Chatter chatter(channel, count);
  return chatter.done.Wait() ? chatter.result : absl::UnknownError("it never ended");
}

Task<absl::Status> RunCoroutineChat(const std::shared_ptr<Channel>& channel, int count) {
  Streams::Stub stub(channel);
  ClientContext context;
  auto chat = stub.co().Chat(&context);
  for (int i = 0; i < count; ++i) {
    const Item item = MakeItem(i);
    if (!co_await chat.Write(item)) break;
    const std::optional<Item> received = co_await chat.Read();
    if (!received.has_value()) break;
  }
  co_return co_await chat.Finish();
}

absl::Status CoroutineChat(const std::shared_ptr<Channel>& channel, int count) {
  return SyncWait(RunCoroutineChat(channel, count));
}

constexpr absl::Status (*kChats[])(const std::shared_ptr<Channel>&, int) = {&SynchronousChat, &CallbackChat,
                                                                            &CoroutineChat};

TEST_P(ConformanceStreamTest, InterceptorsSeeEveryMessageOfAStreamOnce) {
  constexpr int kItems = 20;
  for (const ServerStyle style : kServerStyles) {
    Seen server_seen;
    StartStreams(style, [&](ServerBuilder& builder) { builder.AddInterceptor(CountingServer(&server_seen)); });
    int calls = 0;
    Seen seen;
    ChannelOptions options = NewChannelOptions();
    options.interceptors = {CountingClient(&seen)};
    for (const auto chat : kChats) {
      const absl::Status status = chat(NewChannel(options), kItems);
      EXPECT_TRUE(status.ok()) << status;
      ++calls;
      EXPECT_TRUE(server_seen.ends.WaitFor(calls));
    }
    server_.reset();
    for (const Seen* side : {&seen, &server_seen}) {
      EXPECT_EQ(side->calls.value(), calls);
      EXPECT_EQ(side->sent.value(), calls * kItems);
      EXPECT_EQ(side->received.value(), calls * kItems);
      EXPECT_EQ(side->ends.value(), calls);
      EXPECT_EQ(side->failures.value(), 0);
    }
    EXPECT_EQ(seen.initial_metadata.value(), calls);
  }
}

TEST_P(ConformanceStreamTest, OneRequestOrOneReplyIsSeenOnceToo) {
  for (const ServerStyle style : kServerStyles) {
    Seen server_seen;
    StartStreams(style, [&](ServerBuilder& builder) { builder.AddInterceptor(CountingServer(&server_seen)); });
    Seen seen;
    ChannelOptions options = NewChannelOptions();
    options.interceptors = {CountingClient(&seen)};
    Streams::Stub stub(NewChannel(options));
    {
      ClientContext context;
      SumReply reply;
      const auto writer = stub.Sum(&context, &reply);
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(writer->Write(MakeItem(i)));
      EXPECT_TRUE(writer->Finish().ok());
    }
    {
      ClientContext context;
      CountRequest request;
      request.set_count(5);
      const auto reader = stub.Count(&context, request);
      Item item;
      while (reader->Read(&item)) {
      }
      EXPECT_TRUE(reader->Finish().ok());
    }
    server_.reset();
    EXPECT_EQ(seen.sent.value(), 3 + 1);
    EXPECT_EQ(seen.received.value(), 1 + 5);
    EXPECT_EQ(server_seen.received.value(), 3 + 1);
    EXPECT_EQ(server_seen.sent.value(), 1 + 5);
  }
}

TEST_P(ConformanceStreamTest, ABearerTokenOpensTheDoorAndNothingElseDoes) {
  for (const ServerStyle style : kServerStyles) {
    Seen server_seen;
    StartStreams(style, [&](ServerBuilder& builder) {
      builder.AddInterceptor(CountingServer(&server_seen)).AddInterceptor(RequireToken());
    });
    ChannelOptions options = NewChannelOptions();
    const auto stranger = NewChannel(options);
    options.interceptors = {SendToken()};
    const auto friendly = NewChannel(options);
    for (const auto chat : kChats) {
      absl::Status status = chat(friendly, 3);
      EXPECT_TRUE(status.ok()) << status;
      status = chat(stranger, 3);
      EXPECT_EQ(status, absl::UnauthenticatedError("no token, or a wrong one"));
    }
    const int started = service_.started().value();
    ExpectEcho(friendly);
    EXPECT_EQ(Echo::Stub(stranger).Echo(EchoRequest()).status().code(), absl::StatusCode::kUnauthenticated);
    EXPECT_EQ(service_.started().value(), started + 1);
    server_.reset();
    EXPECT_EQ(counters_->started.value(), 3);
    EXPECT_EQ(server_seen.ends.value(), 4);
    EXPECT_EQ(server_seen.failures.value(), 4);
  }
}

TEST_P(ConformanceTest, InterceptorsReplaceTheStatusOnBothSides) {
  ServerBuilder builder = NewServerBuilder();
  builder.AddInterceptor([](InterceptedServerCall* call) {
    call->OnEnd([call](absl::Status* status) {
      call->context()->AddTrailingMetadata("code", absl::StatusCodeToString(status->code()));
      if (absl::IsAborted(*status)) *status = absl::UnavailableError("replaced by the server");
    });
    return absl::OkStatus();
  });
  StartServer(std::move(builder), listen_address());
  ChannelOptions options = NewChannelOptions();
  options.interceptors = {[](InterceptedClientCall* call) {
    call->OnEnd([](absl::Status* status, const Metadata& metadata) {
      EXPECT_EQ(metadata.Find("code"), "ABORTED");
      EXPECT_EQ(*status, absl::UnavailableError("replaced by the server"));
      *status = absl::ResourceExhaustedError("replaced by the client");
    });
    return absl::OkStatus();
  }};
  Echo::Stub stub(NewChannel(options));
  EchoRequest request;
  *request.mutable_status() = ToProto(absl::AbortedError("from the handler"));
  EXPECT_EQ(stub.Echo(request).status(), absl::ResourceExhaustedError("replaced by the client"));
}

// Passes a call on to another server, with what belongs to it.
class Relay final : public Echo::Service {
 public:
  void set_next(std::shared_ptr<Channel> channel) { next_ = std::make_unique<Echo::Stub>(std::move(channel)); }

  absl::Status Echo(ServerContext* server_context, const EchoRequest* request, EchoReply* reply) override {
    const std::unique_ptr<ClientContext> context = ClientContext::FromServerContext(*server_context);
    if (const auto parent = server_context->client_metadata().Find("traceparent")) {
      context->AddMetadata("traceparent", *parent);
    }
    const absl::Status status = next_->Echo(context.get(), *request, reply);
    ended.Increment();
    return status;
  }

  Counter ended;

 private:
  std::unique_ptr<Echo::Stub> next_;
};

TEST_P(ConformanceTest, ANestedCallHasTheDeadlineTheTraceAndTheCancellationOfItsOwn) {
  StartServer();
  Relay relay;
  absl::StatusOr<std::unique_ptr<Server>> relay_server =
      ServerBuilder(GetParam().transports()).Listen(NewListenAddress()).Register(&relay).Start();
  ASSERT_TRUE(relay_server.ok()) << relay_server.status();
  relay.set_next(NewChannel());
  const std::shared_ptr<Channel> channel = NewChannelTo((*relay_server)->addresses()[0].ToString());
  Echo::Stub stub(channel);
  EchoRequest request;
  EchoReply reply;
  {
    ClientContext context;
    context.set_timeout(kHangGuard);
    context.AddMetadata("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    request.set_observe(true);
    const absl::Status status = stub.Echo(&context, request, &reply);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_LE(reply.observed().time_left_us(),
              absl::ToInt64Microseconds(kHangGuard * (1 + GetParam().deadline_rounding)));
    ASSERT_EQ(reply.observed().client_metadata_size(), 1);
    EXPECT_EQ(reply.observed().client_metadata(0).value(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  }
  ClientContext context;
  request.set_hold(true);
  std::thread caller([&] { EXPECT_EQ(stub.Echo(&context, request, &reply).code(), absl::StatusCode::kCancelled); });
  EXPECT_TRUE(service_.held().WaitFor(1));
  context.TryCancel();
  caller.join();
  EXPECT_TRUE(service_.cancelled().WaitFor(1));
  EXPECT_TRUE(relay.ended.WaitFor(2));
}

}  // namespace
}  // namespace shmrpc::conformance
