// Interceptors of clients. The server is in this process, or the test plays it.

#include "runtime/src/absl_strings.h"
#include "shmrpc/client_interceptor.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_reactor.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/mutex.h"
#include "shmrpc/task.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_interceptor_notes.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc {
namespace {

using google::protobuf::MessageLite;
using ::testing::ElementsAre;
using testing::FakeCall;
using testing::FakeServer;
using ::testing::HasSubstr;
using testing::Notes;
using testing::Outcome;
using testing::StringValue;
using testing::TestService;
using testing::Text;
using testing::TextOf;

// Notes everything, with its name.
ClientInterceptor NotingClient(const std::string& name, Notes* notes) {
  return [name, notes](InterceptedClientCall* call) {
    notes->Add(absl::StrCat(name, " begin"));
    call->OnSend([=](const MessageLite& message) { notes->Add(absl::StrCat(name, " send ", TextOf(message))); });
    call->OnReceive([=](const MessageLite& message) { notes->Add(absl::StrCat(name, " receive ", TextOf(message))); });
    call->OnInitialMetadata([=](const Metadata& metadata) {
      notes->Add(absl::StrCat(name, " headers ", ToAbsl(metadata.Find("first").value_or("none"))));
    });
    call->OnEnd([=](absl::Status* status, const Metadata& metadata) {
      notes->Add(absl::StrCat(name, " end ", absl::StatusCodeToString(status->code()), " ",
                              ToAbsl(metadata.Find("last").value_or("none"))));
    });
    return absl::OkStatus();
  };
}

// ---- Clients. Unary calls go to a TestService in this process.

Task<absl::Status> CoCall(std::shared_ptr<Channel> channel, ClientContext* context, const StringValue* request,
                          StringValue* reply) {
  absl::StatusOr<StringValue> result =
      co_await CoUnaryCall<StringValue>(channel, TestService::kEcho, context, *request);
  if (result.ok()) *reply = *result;
  co_return result.status();
}

using UnaryStyle = absl::Status (*)(const std::shared_ptr<Channel>&, ClientContext*, const StringValue&, StringValue*);
constexpr UnaryStyle kUnaryStyles[] = {
    [](const std::shared_ptr<Channel>& channel, ClientContext* context, const StringValue& request,
       StringValue* reply) { return UnaryCall(*channel, TestService::kEcho, context, request, reply); },
    [](const std::shared_ptr<Channel>& channel, ClientContext* context, const StringValue& request,
       StringValue* reply) {
      Outcome outcome;
      AsyncUnaryCall(channel, TestService::kEcho, context, request, reply, outcome.Callback());
      return outcome.Wait();
    },
    [](const std::shared_ptr<Channel>& channel, ClientContext* context, const StringValue& request,
       StringValue* reply) { return SyncWait(CoCall(channel, context, &request, reply)); }};

class ClientInterceptorTest : public ::testing::Test {
 protected:
  std::shared_ptr<Channel> NewChannel(std::vector<ClientInterceptor> interceptors) {
    ChannelOptions options;
    options.interceptors = std::move(interceptors);
    return Channel::Create("inproc:interceptors", options, testing::Inproc());
  }

  int handled() {
    MutexLock lock(&mutex_);
    return handled_;
  }
  Metadata client_metadata() {
    MutexLock lock(&mutex_);
    return client_metadata_;
  }

  Mutex mutex_;
  int handled_ ABSL_GUARDED_BY(mutex_) = 0;
  Metadata client_metadata_ ABSL_GUARDED_BY(mutex_);
  TestService service_{[this](ServerContext* context, const StringValue& request, StringValue* reply) {
    {
      MutexLock lock(&mutex_);
      ++handled_;
      client_metadata_ = context->client_metadata();
    }
    context->AddInitialMetadata("first", "one");
    context->AddTrailingMetadata("last", "two");
    if (request.value() == "fail") return absl::AbortedError("as asked for");
    reply->set_value(absl::StrCat(request.value(), "!"));
    return absl::OkStatus();
  }};
  std::unique_ptr<Server> server_ = testing::StartServer("inproc:interceptors", &service_);
  Notes notes_;
};

TEST_F(ClientInterceptorTest, WrapUnaryCallsOfEveryStyleLikeTheLayersOfAnOnion) {
  const auto channel = NewChannel({NotingClient("a", &notes_), NotingClient("b", &notes_)});
  for (const UnaryStyle call : kUnaryStyles) {
    for (const bool with_context : {true, false}) {
      ClientContext context;
      StringValue reply;
      EXPECT_EQ(call(channel, with_context ? &context : nullptr, Text("x"), &reply), absl::OkStatus());
      EXPECT_EQ(reply.value(), "x!");
      EXPECT_THAT(notes_.Take(),
                  ElementsAre("a begin", "b begin", "a send x", "b send x", "b headers one", "a headers one",
                              "b receive x!", "a receive x!", "b end OK two", "a end OK two"));
      if (!with_context) continue;
      EXPECT_EQ(context.GetServerTrailingMetadata().Find("last"), "two");
    }
  }
}

TEST_F(ClientInterceptorTest, SeeFailures) {
  const auto channel = NewChannel({NotingClient("a", &notes_)});
  const auto nowhere =
      Channel::Create("inproc:nobody", {.interceptors = {NotingClient("a", &notes_)}}, testing::Inproc());
  for (const UnaryStyle call : kUnaryStyles) {
    StringValue reply;
    EXPECT_EQ(call(channel, nullptr, Text("fail"), &reply).code(), absl::StatusCode::kAborted);
    EXPECT_THAT(notes_.Take(), ElementsAre("a begin", "a send fail", "a headers one", "a end ABORTED two"));
    EXPECT_EQ(call(nowhere, nullptr, Text("x"), &reply).code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(notes_.Take(), ElementsAre("a begin", "a send x", "a end UNAVAILABLE none"));
  }
}

TEST_F(ClientInterceptorTest, ChangeMetadata) {
  const auto channel = NewChannel({[](InterceptedClientCall* call) {
    EXPECT_EQ(call->method(), TestService::kEcho);
    EXPECT_EQ(call->kind(), MethodKind::kUnary);
    EXPECT_NE(call->deadline(), absl::InfiniteFuture());
    call->metadata().Add("authorization", "Bearer 1234");
    return absl::OkStatus();
  }});
  for (const UnaryStyle call : kUnaryStyles) {
    ClientContext context;
    context.set_timeout(testing::kHang);
    context.AddMetadata("mine", "too");
    StringValue reply;
    EXPECT_EQ(call(channel, &context, Text("x"), &reply), absl::OkStatus());
    EXPECT_EQ(client_metadata(), (Metadata{{"mine", "too"}, {"authorization", "Bearer 1234"}}));
    EXPECT_EQ(context.metadata().size(), 1u);
  }
  const auto wrong = NewChannel({[](InterceptedClientCall* call) {
    call->metadata().Add("grpc-reserved", "x");
    return absl::OkStatus();
  }});
  for (const UnaryStyle call : kUnaryStyles) {
    StringValue reply;
    EXPECT_EQ(call(wrong, nullptr, Text("x"), &reply).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(ClientInterceptorTest, AnswerWithAStatus) {
  const auto channel = NewChannel({NotingClient("a", &notes_),
                                   [](InterceptedClientCall*) { return absl::PermissionDeniedError("not you"); },
                                   NotingClient("c", &notes_)});
  for (const UnaryStyle call : kUnaryStyles) {
    StringValue reply;
    EXPECT_EQ(call(channel, nullptr, Text("x"), &reply), absl::PermissionDeniedError("not you"));
    EXPECT_THAT(notes_.Take(), ElementsAre("a begin", "a end PERMISSION_DENIED none"));
  }
  EXPECT_EQ(handled(), 0);
}

TEST_F(ClientInterceptorTest, AnswerWithAReply) {
  const auto channel = NewChannel({NotingClient("a", &notes_), [](InterceptedClientCall* call) {
                                     call->Reply(Text("from the cache"));
                                     return absl::OkStatus();
                                   }});
  for (const UnaryStyle call : kUnaryStyles) {
    StringValue reply = Text("what was there");
    EXPECT_EQ(call(channel, nullptr, Text("x"), &reply), absl::OkStatus());
    EXPECT_EQ(reply.value(), "from the cache");
    EXPECT_THAT(notes_.Take(), ElementsAre("a begin", "a receive from the cache", "a end OK none"));
  }
  EXPECT_EQ(handled(), 0);
}

TEST_F(ClientInterceptorTest, AReplyOfAnotherTypeIsAnError) {
  const auto channel = NewChannel({[](InterceptedClientCall* call) {
    call->Reply(google::protobuf::BoolValue());
    return absl::OkStatus();
  }});
  for (const UnaryStyle call : kUnaryStyles) {
    StringValue reply;
    const absl::Status status = call(channel, nullptr, Text("x"), &reply);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("google.protobuf.BoolValue instead of a google.protobuf.String"));
  }
}

TEST_F(ClientInterceptorTest, ReplaceTheStatus) {
  const auto channel = NewChannel({NotingClient("a", &notes_), [](InterceptedClientCall* call) {
                                     call->OnEnd([](absl::Status* status, const Metadata&) {
                                       if (absl::IsAborted(*status)) *status = absl::UnavailableError("try again");
                                     });
                                     return absl::OkStatus();
                                   }});
  for (const UnaryStyle call : kUnaryStyles) {
    StringValue reply;
    EXPECT_EQ(call(channel, nullptr, Text("fail"), &reply), absl::UnavailableError("try again"));
    EXPECT_EQ(notes_.Take().back(), "a end UNAVAILABLE two");
  }
}

TEST_F(ClientInterceptorTest, DoNotSeeACallWhoseContextIsAnothers) {
  const auto channel = NewChannel({NotingClient("a", &notes_)});
  for (const UnaryStyle call : kUnaryStyles) {
    ClientContext context;
    StringValue reply;
    EXPECT_EQ(call(channel, &context, Text("x"), &reply), absl::OkStatus());
    notes_.Take();
    EXPECT_EQ(call(channel, &context, Text("x"), &reply).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(notes_.Take(), ElementsAre());
  }
}

TEST_F(ClientInterceptorTest, AnEmptyFunctionIsAMistake) {
  const auto channel = NewChannel({nullptr});
  EXPECT_EQ(channel->status().code(), absl::StatusCode::kInvalidArgument);
  TestService service;
  EXPECT_EQ(ServerBuilder(testing::Inproc())
                .Listen("inproc:none")
                .Register(&service)
                .AddInterceptor(nullptr)
                .Start()
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

// ---- Streams of clients.

constexpr const char* kMethod = "/test.Stream/Method";

class ClientStreamInterceptorTest : public ::testing::Test {
 protected:
  static ChannelOptions Options(ClientInterceptor interceptor) {
    ChannelOptions options;
    options.interceptors = {std::move(interceptor)};
    return options;
  }

  // Takes two messages, slowly, and answers the two.
  void Serve() {
    const std::shared_ptr<FakeCall> call = server_.NextCall();
    call->SendHeaders({{"first", "one"}});
    EXPECT_EQ(call->Take(), "a");
    EXPECT_EQ(call->Take(), "b");
    EXPECT_EQ(call->Take(), std::nullopt);
    call->SendText("A");
    call->SendText("B");
    call->Finish(absl::OkStatus(), {{"last", "two"}});
  }
  static auto AllOfIt() {
    return ElementsAre("i begin", "i send a", "i send b", "i headers one", "i receive A", "i receive B",
                       "i end OK two");
  }
  // Writing and reading go on at the same time; this is the order of each.
  void ExpectAllOfIt() {
    std::vector<std::string> notes = notes_.Take();
    std::stable_sort(notes.begin() + 1, notes.end() - 1, [](const std::string& a, const std::string& b) {
      return absl::StartsWith(a, "i send") && !absl::StartsWith(b, "i send");
    });
    EXPECT_THAT(notes, AllOfIt());
  }

  Notes notes_;
  FakeServer server_;
  std::shared_ptr<Channel> channel_ = server_.NewChannel(Options(NotingClient("i", &notes_)));
};

TEST_F(ClientStreamInterceptorTest, SynchronousStreams) {
  server_.set_window(1);
  for (const bool with_context : {true, false}) {
    ClientContext context;
    ClientReaderWriter<StringValue, StringValue> stream(StartClientStream(
        channel_, kMethod, MethodKind::kBidiStreaming, with_context ? &context : nullptr, nullptr, nullptr));
    std::thread server([this] { Serve(); });
    EXPECT_TRUE(stream.Write(Text("a")));
    EXPECT_TRUE(stream.Write(Text("b")));
    EXPECT_TRUE(stream.WritesDone());
    StringValue message;
    EXPECT_TRUE(stream.Read(&message));
    EXPECT_TRUE(stream.Read(&message));
    EXPECT_FALSE(stream.Read(&message));
    EXPECT_EQ(stream.Finish(), absl::OkStatus());
    EXPECT_EQ(stream.Finish(), absl::OkStatus());
    server.join();
    EXPECT_THAT(notes_.Take(), AllOfIt());
  }
}

TEST_F(ClientStreamInterceptorTest, StreamsThatAreDestroyedUnfinishedEndOnce) {
  const StringValue request = Text("x");
  {
    ClientReader<StringValue> stream(
        StartClientStream(channel_, kMethod, MethodKind::kServerStreaming, nullptr, &request, nullptr));
  }
  EXPECT_THAT(notes_.Take(), ElementsAre("i begin", "i send x", "i end CANCELLED none"));
  { CoClientReaderWriter<StringValue, StringValue> stream(channel_, kMethod, nullptr); }
  EXPECT_THAT(notes_.Take(), ElementsAre("i begin", "i end CANCELLED none"));
}

class TwiceReactor final : public ClientBidiReactor<StringValue, StringValue> {
 public:
  void OnWriteDone(bool ok) override {
    EXPECT_TRUE(ok);
    if (out.value() == "b") return StartWritesDone();
    out.set_value("b");
    StartWrite(&out);
  }
  void OnReadDone(bool ok) override {
    if (ok) StartRead(&in);
  }
  void OnDone(const absl::Status& status) override { outcome.Set(testing::DeepCopy(status)); }

  StringValue in;
  StringValue out = Text("a");
  Outcome outcome;
};

class ReadReactor final : public ClientBidiReactor<StringValue, StringValue> {
 public:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    values.push_back(in.value());
    StartRead(&in);
  }
  void OnDone(const absl::Status& status) override { outcome.Set(testing::DeepCopy(status)); }

  StringValue in;
  std::vector<std::string> values;
  Outcome outcome;
};

TEST_F(ClientStreamInterceptorTest, Reactors) {
  server_.set_window(1);
  TwiceReactor reactor;
  PrepareClientReactor(channel_, kMethod, MethodKind::kBidiStreaming, nullptr, nullptr, nullptr, &reactor);
  reactor.StartRead(&reactor.in);
  reactor.StartWrite(&reactor.out);
  reactor.StartCall();
  Serve();
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  ExpectAllOfIt();
}

Task<absl::Status> CoTwice(const std::shared_ptr<Channel>& channel) {
  CoClientReaderWriter<StringValue, StringValue> stream(channel, kMethod, nullptr);
  const StringValue a = Text("a");
  const StringValue b = Text("b");
  EXPECT_TRUE(co_await stream.Write(a));
  EXPECT_TRUE(co_await stream.Write(b));
  EXPECT_TRUE(co_await stream.WritesDone());
  while (std::optional<StringValue> message = co_await stream.Read()) {
  }
  co_return co_await stream.Finish();
}

TEST_F(ClientStreamInterceptorTest, Coroutines) {
  server_.set_window(1);
  std::thread server([this] { Serve(); });
  EXPECT_EQ(SyncWait(CoTwice(channel_)), absl::OkStatus());
  server.join();
  ExpectAllOfIt();
}

TEST_F(ClientStreamInterceptorTest, AnswerStreams) {
  channel_ = server_.NewChannel(Options([](InterceptedClientCall* call) {
    if (call->kind() == MethodKind::kBidiStreaming) return absl::PermissionDeniedError("no streams");
    call->Reply(Text("from the cache"));
    return absl::OkStatus();
  }));
  StringValue message;
  ClientReaderWriter<StringValue, StringValue> stream(
      StartClientStream(channel_, kMethod, MethodKind::kBidiStreaming, nullptr, nullptr, nullptr));
  EXPECT_FALSE(stream.Write(message));
  EXPECT_FALSE(stream.Read(&message));
  EXPECT_EQ(stream.Finish(), absl::PermissionDeniedError("no streams"));
  EXPECT_EQ(SyncWait([](auto channel) -> Task<absl::Status> {
              CoClientReaderWriter<StringValue, StringValue> both(channel, kMethod, nullptr);
              co_return co_await both.Finish();
            }(channel_)),
            absl::PermissionDeniedError("no streams"));

  ClientWriter<StringValue> writer(
      StartClientStream(channel_, kMethod, MethodKind::kClientStreaming, nullptr, nullptr, &message));
  EXPECT_EQ(writer.Finish(), absl::OkStatus());
  EXPECT_EQ(message.value(), "from the cache");
}

// Answers every stream with "one" and "two", and `end`.
ClientInterceptor AnswerWithTwo(absl::Status end) {
  return [end](InterceptedClientCall* call) {
    call->Reply(Text("one"));
    call->Reply(Text("two"));
    return end;
  };
}

Task<absl::Status> CoReadAll(const std::shared_ptr<Channel>& channel, std::vector<std::string>* values) {
  CoClientReaderWriter<StringValue, StringValue> stream(channel, kMethod, nullptr);
  const StringValue a = Text("a");
  EXPECT_TRUE(co_await stream.Write(a));
  while (auto message = co_await stream.Read()) values->push_back(message->value());
  co_return co_await stream.Finish();
}

TEST_F(ClientStreamInterceptorTest, AnswerStreamsWithReplies) {
  for (const absl::Status& end : {absl::OkStatus(), absl::AbortedError("after the replies")}) {
    ChannelOptions options = Options(NotingClient("i", &notes_));
    options.interceptors.push_back(AnswerWithTwo(end));
    channel_ = server_.NewChannel(options);
    const std::string told = absl::StrCat("i end ", absl::StatusCodeToString(end.code()), " none");
    StringValue message;
    for (const bool read_all : {true, false}) {
      ClientContext context;
      ClientReaderWriter<StringValue, StringValue> stream(
          StartClientStream(channel_, kMethod, MethodKind::kBidiStreaming, &context, nullptr, nullptr));
      EXPECT_TRUE(stream.Write(Text("a")));
      EXPECT_TRUE(stream.Read(&message));
      EXPECT_EQ(message.value(), "one");
      if (read_all) {
        EXPECT_TRUE(stream.Read(&message));
        EXPECT_EQ(message.value(), "two");
        EXPECT_FALSE(stream.Read(&message));
        EXPECT_FALSE(stream.Write(Text("b")));
      }
      EXPECT_EQ(stream.Finish(), end);
      EXPECT_EQ(notes_.Take().back(), told);
    }

    const StringValue request;
    ClientReader<StringValue> reader(
        StartClientStream(channel_, kMethod, MethodKind::kServerStreaming, nullptr, &request, nullptr));
    EXPECT_TRUE(reader.Read(&message));
    EXPECT_TRUE(reader.Read(&message));
    EXPECT_EQ(message.value(), "two");
    EXPECT_FALSE(reader.Read(&message));
    EXPECT_EQ(reader.Finish(), end);
    notes_.Take();

    std::vector<std::string> values;
    EXPECT_EQ(SyncWait(CoReadAll(channel_, &values)), end);
    EXPECT_THAT(values, ElementsAre("one", "two"));
    EXPECT_THAT(notes_.Take(), ElementsAre("i begin", "i send a", "i receive one", "i receive two", told));

    ReadReactor reactor;
    PrepareClientReactor(channel_, kMethod, MethodKind::kBidiStreaming, nullptr, nullptr, nullptr, &reactor);
    reactor.StartRead(&reactor.in);
    reactor.StartCall();
    EXPECT_EQ(reactor.outcome.Wait(), end);
    EXPECT_THAT(reactor.values, ElementsAre("one", "two"));
    EXPECT_EQ(notes_.Take().back(), told);
  }
}

TEST_F(ClientStreamInterceptorTest, AnswerStreamsWithoutAReply) {
  channel_ = server_.NewChannel(Options([](InterceptedClientCall* call) {
    call->AnswerWithoutReply();
    return absl::OkStatus();
  }));
  StringValue message;
  ClientReaderWriter<StringValue, StringValue> stream(
      StartClientStream(channel_, kMethod, MethodKind::kBidiStreaming, nullptr, nullptr, nullptr));
  EXPECT_TRUE(stream.Write(message));
  EXPECT_FALSE(stream.Read(&message));
  EXPECT_EQ(stream.Finish(), absl::OkStatus());
  // Where there has to be one, that is an error.
  ClientWriter<StringValue> writer(
      StartClientStream(channel_, kMethod, MethodKind::kClientStreaming, nullptr, nullptr, &message));
  EXPECT_TRUE(writer.Write(message));
  EXPECT_EQ(writer.Finish().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(UnaryCall(*channel_, kMethod, nullptr, message, &message).code(), absl::StatusCode::kInternal);
}

TEST_F(ClientStreamInterceptorTest, AnAnsweredStreamEndsWhenItIsCancelledOrItsChannelGoes) {
  channel_ = server_.NewChannel(Options(AnswerWithTwo(absl::OkStatus())));
  StringValue message;
  {
    ClientContext context;
    ClientReaderWriter<StringValue, StringValue> stream(
        StartClientStream(channel_, kMethod, MethodKind::kBidiStreaming, &context, nullptr, nullptr));
    EXPECT_TRUE(stream.Read(&message));
    context.TryCancel();
    EXPECT_FALSE(stream.Write(message));
    EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kCancelled);
  }
  ReadReactor reactor;  // it does not read
  PrepareClientReactor(channel_, kMethod, MethodKind::kBidiStreaming, nullptr, nullptr, nullptr, &reactor);
  reactor.StartCall();
  channel_.reset();
  EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kCancelled);
}

ClientInterceptor TransformBoth() {
  return [](InterceptedClientCall* call) {
    call->TransformSend([](google::protobuf::MessageLite* message) {
      auto* const text = static_cast<StringValue*>(message);
      text->set_value(absl::StrCat("<", text->value(), ">"));
    });
    call->TransformReceive([](google::protobuf::MessageLite* message) {
      auto* const text = static_cast<StringValue*>(message);
      text->set_value(absl::StrCat("(", text->value(), ")"));
    });
    return absl::OkStatus();
  };
}

TEST_F(ClientInterceptorTest, ReplaceMessages) {
  const auto channel = NewChannel({NotingClient("a", &notes_), TransformBoth(), NotingClient("b", &notes_)});
  for (const UnaryStyle call : kUnaryStyles) {
    const StringValue request = Text("x");
    StringValue reply;
    EXPECT_EQ(call(channel, nullptr, request, &reply), absl::OkStatus());
    EXPECT_EQ(request.value(), "x");
    EXPECT_EQ(reply.value(), "(<x>!)");
    EXPECT_THAT(notes_.Take(),
                ElementsAre("a begin", "b begin", "a send x", "b send <x>", "b headers one", "a headers one",
                            "b receive <x>!", "a receive (<x>!)", "b end OK two", "a end OK two"));
  }
}

TEST_F(ClientInterceptorTest, WhatReplacesAMessageHasTheSameLimit) {
  ChannelOptions options;
  options.max_send_message_bytes = 10;
  options.interceptors = {[](InterceptedClientCall* call) {
    call->TransformSend([](google::protobuf::MessageLite* message) {
      static_cast<StringValue*>(message)->set_value(std::string(100, 'x'));
    });
    return absl::OkStatus();
  }};
  const auto channel = Channel::Create("inproc:interceptors", options, testing::Inproc());
  for (const UnaryStyle call : kUnaryStyles) {
    StringValue reply;
    EXPECT_EQ(call(channel, nullptr, Text("x"), &reply).code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(handled(), 0);
}

TEST_F(ClientStreamInterceptorTest, ReplaceMessagesOfStreams) {
  channel_ = server_.NewChannel(Options(TransformBoth()));
  server_.set_window(1);
  const auto serve = [this] {
    const std::shared_ptr<FakeCall> call = server_.NextCall();
    EXPECT_EQ(call->Take(), "<a>");
    EXPECT_EQ(call->Take(), "<b>");
    EXPECT_EQ(call->Take(), std::nullopt);
    call->SendText("A");
    call->Finish(absl::OkStatus());
  };
  {
    std::thread server(serve);
    ClientReaderWriter<StringValue, StringValue> stream(
        StartClientStream(channel_, kMethod, MethodKind::kBidiStreaming, nullptr, nullptr, nullptr));
    StringValue message;
    EXPECT_TRUE(stream.Write(Text("a")));
    EXPECT_TRUE(stream.WriteLast(Text("b")));
    EXPECT_TRUE(stream.Read(&message));
    EXPECT_EQ(message.value(), "(A)");
    EXPECT_EQ(stream.Finish(), absl::OkStatus());
    server.join();
  }
  std::thread server(serve);
  EXPECT_EQ(SyncWait(CoTwice(channel_)), absl::OkStatus());
  server.join();
}

}  // namespace
}  // namespace shmrpc
