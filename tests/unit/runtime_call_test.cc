// Unary calls from stub to handler, over the inproc transport: statuses, limits, deadlines, cancellation, and who may
// be destroyed when.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/struct.pb.h"
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

constexpr const char* kAddress = "inproc:call-test";

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

class CallTest : public ::testing::Test {
 protected:
  void Serve(TestService::Handler handler) {
    service_ = std::make_unique<TestService>(std::move(handler));
    server_ = StartServer(kAddress, service_.get());
    channel_ = Channel::Create(kAddress, {}, Inproc());
  }

  void ServeEcho() {
    Serve([](ServerContext*, const StringValue& request, StringValue* reply) {
      reply->set_value(request.value());
      return absl::OkStatus();
    });
  }

  // A handler that returns only when nobody wants its reply any more.
  void ServeUntilCancelled() {
    Serve([this](ServerContext* context, const StringValue&, StringValue*) {
      handler_runs_.Set();
      while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
      handler_saw_cancel_.Set();
      return absl::OkStatus();
    });
  }

  // A handler that the test releases: one that looks for the deadline itself would race with the client.
  void ServeUntilReleased() {
    Serve([this](ServerContext* context, const StringValue&, StringValue*) {
      release_.Wait();
      if (context->IsCancelled()) handler_saw_cancel_.Set();
      return absl::OkStatus();
    });
  }

  absl::Status Call(ClientContext* context, const StringValue& request = Text("x")) {
    return UnaryCall(*channel_, TestService::kEcho, context, request, &reply_);
  }

  Event handler_runs_;
  Event release_;
  Event handler_saw_cancel_;
  StringValue reply_;
  std::unique_ptr<TestService> service_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<Channel> channel_;
};

TEST_F(CallTest, EchoesWithAndWithoutContext) {
  ServeEcho();
  EXPECT_EQ(Call(nullptr, Text("hello")), absl::OkStatus());
  EXPECT_EQ(reply_.value(), "hello");
  ClientContext context;
  EXPECT_EQ(Call(&context, Text("")), absl::OkStatus());
  EXPECT_EQ(reply_.value(), "");
  EXPECT_EQ(context.peer().transport, "inproc");
  EXPECT_EQ(context.peer().address, kAddress);
  ASSERT_TRUE(context.peer().credentials.has_value());
  EXPECT_EQ(context.peer().credentials->pid, std::optional<pid_t>(getpid()));
  EXPECT_EQ(channel_->transport(), "inproc");
  EXPECT_EQ(channel_->target(), kAddress);
}

TEST_F(CallTest, AsyncEchoes) {
  ServeEcho();
  ClientContext context;
  Outcome outcome;
  AsyncUnaryCall(channel_, TestService::kEcho, &context, Text("hello"), &reply_, outcome.Callback());
  EXPECT_EQ(outcome.Wait(), absl::OkStatus());
  EXPECT_EQ(reply_.value(), "hello");
  EXPECT_EQ(context.peer().address, kAddress);
}

TEST_F(CallTest, CarriesMetadataStatusAndPayload) {
  Serve([](ServerContext* context, const StringValue&, StringValue*) {
    EXPECT_EQ(context->method(), TestService::kEcho);
    EXPECT_EQ(context->client_metadata(), (Metadata{{"k", "1"}, {"k", "2"}}));
    context->AddInitialMetadata("first", "i");
    context->AddTrailingMetadata("last-bin", "\xff");
    absl::Status status = absl::NotFoundError("no such thing");
    status.SetPayload("type.googleapis.com/x", absl::Cord("detail"));
    return status;
  });
  ClientContext context;
  context.AddMetadata("k", "1");
  context.AddMetadata("k", "2");
  const absl::Status status = Call(&context);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no such thing");
  EXPECT_EQ(status.GetPayload("type.googleapis.com/x"), absl::Cord("detail"));
  EXPECT_EQ(context.GetServerInitialMetadata(), (Metadata{{"first", "i"}}));
  EXPECT_EQ(context.GetServerTrailingMetadata(), (Metadata{{"last-bin", "\xff"}}));
}

TEST_F(CallTest, RefusesMetadataThatBreaksTheRules) {
  ServeEcho();
  ClientContext context;
  context.AddMetadata("Bad", "x");
  const absl::Status status = Call(&context);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("Bad"));
}

TEST_F(CallTest, LimitsMessagesBothWays) {
  Serve([](ServerContext*, const StringValue& request, StringValue* reply) {
    reply->set_value(request.value() + request.value());
    return absl::OkStatus();
  });
  const StringValue request = Text(std::string(100, 'x'));
  const size_t size = request.ByteSizeLong();
  {
    ClientContext context;
    context.set_max_send_message_bytes(size);
    EXPECT_EQ(Call(&context, request), absl::OkStatus());
  }
  {
    ClientContext context;
    context.set_max_send_message_bytes(size - 1);
    const absl::Status status = Call(&context, request);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(MessageOf(status), HasSubstr("has 102 bytes, the limit is 101"));
    EXPECT_THAT(MessageOf(status), HasSubstr("max_send_message_bytes"));
  }
  {
    ClientContext context;
    context.set_max_receive_message_bytes(150);
    const absl::Status status = Call(&context, request);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(MessageOf(status), HasSubstr("150"));
    EXPECT_THAT(MessageOf(status), HasSubstr("max_receive_message_bytes"));
  }
  EXPECT_EQ(Call(nullptr, request), absl::OkStatus());  // the connection survives
}

TEST_F(CallTest, AContextServesOneCall) {
  ServeEcho();
  ClientContext context;
  EXPECT_EQ(Call(&context), absl::OkStatus());
  EXPECT_EQ(Call(&context).code(), absl::StatusCode::kFailedPrecondition);
  Outcome outcome;
  AsyncUnaryCall(channel_, TestService::kEcho, &context, Text("x"), &reply_, outcome.Callback());
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(CallTest, ADeadlineThatHasPassedSendsNothing) {
  std::atomic<int> runs{0};
  Serve([&](ServerContext*, const StringValue&, StringValue*) {
    ++runs;
    return absl::OkStatus();
  });
  for (const absl::Time deadline : {absl::InfinitePast(), absl::UnixEpoch(), absl::Now()}) {
    ClientContext context;
    context.set_deadline(deadline);
    EXPECT_EQ(Call(&context).code(), absl::StatusCode::kDeadlineExceeded);
    ClientContext async_context;
    async_context.set_deadline(deadline);
    Outcome outcome;
    AsyncUnaryCall(channel_, TestService::kEcho, &async_context, Text("x"), &reply_, outcome.Callback());
    EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  }
  server_->Shutdown(absl::InfiniteFuture());
  EXPECT_EQ(runs, 0);
}

TEST_F(CallTest, TheDeadlineEndsASynchronousCall) {
  ServeUntilReleased();
  ClientContext context;
  context.set_timeout(absl::Milliseconds(300));  // long enough to reach the handler, on a busy machine, too
  const absl::Status status = Call(&context);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(MessageOf(status), HasSubstr(TestService::kEcho));
  EXPECT_THAT(MessageOf(status), HasSubstr("ms"));
  release_.Set();
  EXPECT_TRUE(handler_saw_cancel_.Wait());
}

TEST_F(CallTest, TheDeadlineEndsAnAsynchronousCall) {
  ServeUntilReleased();
  ClientContext context;
  context.set_timeout(absl::Milliseconds(300));  // long enough to reach the handler, on a busy machine, too
  Outcome outcome;
  AsyncUnaryCall(channel_, TestService::kEcho, &context, Text("x"), &reply_, outcome.Callback());
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  release_.Set();
  EXPECT_TRUE(handler_saw_cancel_.Wait());
  server_->Shutdown(absl::InfiniteFuture());
  EXPECT_EQ(outcome.count(), 1);
}

TEST_F(CallTest, TryCancelBeforeTheCall) {
  ServeEcho();
  ClientContext context;
  context.TryCancel();
  EXPECT_EQ(Call(&context).code(), absl::StatusCode::kCancelled);
  ClientContext async_context;
  async_context.TryCancel();
  Outcome outcome;
  AsyncUnaryCall(channel_, TestService::kEcho, &async_context, Text("x"), &reply_, outcome.Callback());
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kCancelled);
}

TEST_F(CallTest, TryCancelDuringTheCall) {
  ServeUntilCancelled();
  ClientContext context;
  std::thread canceller([&] {
    handler_runs_.Wait();
    context.TryCancel();
  });
  EXPECT_EQ(Call(&context).code(), absl::StatusCode::kCancelled);
  canceller.join();
  EXPECT_TRUE(handler_saw_cancel_.Wait());
}

TEST_F(CallTest, TryCancelDuringAnAsynchronousCall) {
  ServeUntilCancelled();
  ClientContext context;
  Outcome outcome;
  AsyncUnaryCall(channel_, TestService::kEcho, &context, Text("x"), &reply_, outcome.Callback());
  handler_runs_.Wait();
  context.TryCancel();
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kCancelled);
  context.TryCancel();
  EXPECT_TRUE(handler_saw_cancel_.Wait());
  EXPECT_EQ(outcome.count(), 1);
}

TEST_F(CallTest, CancelAndReplyRace) {
  ServeEcho();
  int cancelled = 0;
  for (int i = 0; i < 2000; ++i) {
    ClientContext context;
    std::atomic<bool> go{false};
    std::thread canceller([&] {
      while (!go) {
      }
      for (int spin = 0; spin < (i % 50) * 40; ++spin) std::atomic_signal_fence(std::memory_order_seq_cst);
      context.TryCancel();
    });
    go = true;
    const absl::Status status = Call(&context, Text("hello"));
    canceller.join();
    if (status.ok()) {
      EXPECT_EQ(reply_.value(), "hello");
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
      ++cancelled;
    }
  }
  RecordProperty("cancelled", cancelled);
}

TEST_F(CallTest, AsynchronousCancelDeadlineAndReplyRace) {
  ServeEcho();
  struct OneCall {
    ClientContext context;
    StringValue reply;
    Outcome outcome;
  };
  for (int round = 0; round < 100; ++round) {
    std::vector<std::unique_ptr<OneCall>> calls;
    for (int i = 0; i < 20; ++i) {
      calls.push_back(std::make_unique<OneCall>());
      OneCall& call = *calls.back();
      call.context.set_timeout(absl::Microseconds(20 + round * 2));
      AsyncUnaryCall(channel_, TestService::kEcho, &call.context, Text("hello"), &call.reply, call.outcome.Callback());
    }
    for (auto& call : calls) call->context.TryCancel();
    for (auto& call : calls) {
      const absl::Status status = call->outcome.Wait();
      if (status.ok()) {
        EXPECT_EQ(call->reply.value(), "hello");
      } else {
        EXPECT_TRUE(absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) << status;
      }
    }
    EXPECT_EQ(Call(nullptr), absl::OkStatus());
    for (auto& call : calls) EXPECT_EQ(call->outcome.count(), 1);
  }
}

TEST_F(CallTest, DestroyingTheChannelCancelsCallsInFlight) {
  ServeUntilCancelled();
  Outcome outcome;
  AsyncUnaryCall(channel_, TestService::kEcho, nullptr, Text("x"), &reply_, outcome.Callback());
  handler_runs_.Wait();
  channel_.reset();
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(handler_saw_cancel_.Wait());
}

TEST_F(CallTest, ACallbackMayDestroyEverything) {
  for (int i = 0; i < 50; ++i) {
    ServeEcho();
    auto context = std::make_unique<ClientContext>();
    context->set_timeout(absl::Seconds(50));
    auto reply = std::make_unique<StringValue>();
    if (i % 2 == 0) {
      EXPECT_EQ(channel_->WaitForConnected(absl::InfiniteFuture()), absl::OkStatus());
    }
    Outcome outcome;
    // The fixture's pointer is the last one to the channel.
    AsyncUnaryCall(channel_, TestService::kEcho, context.get(), Text("hello"), reply.get(), [&](absl::Status status) {
      EXPECT_EQ(reply->value(), "hello");
      reply.reset();
      context.reset();
      server_.reset();
      channel_.reset();
      outcome.Set(std::move(status));
    });
    EXPECT_EQ(outcome.Wait(), absl::OkStatus());
    EXPECT_EQ(channel_, nullptr);
  }
}

TEST_F(CallTest, ACallbackMayStartCalls) {
  ServeEcho();
  Outcome outcome;
  StringValue second_reply;
  AsyncUnaryCall(channel_, TestService::kEcho, nullptr, Text("1"), &reply_, [&](absl::Status first) {
    EXPECT_EQ(first, absl::OkStatus());
    EXPECT_EQ(UnaryCall(*channel_, TestService::kEcho, nullptr, Text("2"), &second_reply), absl::OkStatus());
    AsyncUnaryCall(channel_, TestService::kOther, nullptr, Text("3"), &reply_, outcome.Callback());
  });
  EXPECT_EQ(outcome.Wait(), absl::OkStatus());
  EXPECT_EQ(second_reply.value(), "2");
  EXPECT_EQ(reply_.value(), "3");
}

TEST_F(CallTest, AReplyThatDoesNotParseIsAnInternalError) {
  Serve([](ServerContext*, const StringValue&, StringValue* reply) {
    reply->set_value("\n");  // as a ListValue: an element that ends after its first tag
    return absl::OkStatus();
  });
  google::protobuf::ListValue list;
  const absl::Status status = UnaryCall(*channel_, TestService::kEcho, nullptr, Text("x"), &list);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr(TestService::kEcho));
  EXPECT_THAT(MessageOf(status), HasSubstr("google.protobuf.ListValue"));
}

TEST_F(CallTest, MissingRequiredFieldsAreNamed) {
  ServeEcho();
  const google::protobuf::UninterpretedOption::NamePart incomplete;
  const absl::Status status = UnaryCall(*channel_, TestService::kEcho, nullptr, incomplete, &reply_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("name_part, is_extension"));

  google::protobuf::UninterpretedOption::NamePart reply;
  const absl::Status reply_status = UnaryCall(*channel_, TestService::kEcho, nullptr, Text("x"), &reply);
  EXPECT_EQ(reply_status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(reply_status), HasSubstr("is_extension"));
}

TEST_F(CallTest, ManyThreadsShareAChannel) {
  ServeEcho();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] {
      for (int n = 0; n < 500; ++n) {
        const std::string text = std::to_string(i * 1000 + n);
        StringValue reply;
        ClientContext context;
        ASSERT_EQ(UnaryCall(*channel_, TestService::kEcho, &context, Text(text), &reply), absl::OkStatus());
        ASSERT_EQ(reply.value(), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(CallTest, AForkedChildIsTurnedAway) {
  ServeEcho();
  ASSERT_EQ(Call(nullptr), absl::OkStatus());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int failures = 0;
    if (Call(nullptr).code() != absl::StatusCode::kFailedPrecondition) failures |= 1;
    if (channel_->WaitForConnected(absl::InfiniteFuture()).code() != absl::StatusCode::kFailedPrecondition) {
      failures |= 2;
    }
    Outcome outcome;
    AsyncUnaryCall(channel_, TestService::kEcho, nullptr, Text("x"), &reply_, outcome.Callback());
    if (outcome.Wait().code() != absl::StatusCode::kFailedPrecondition) failures |= 4;
    // What the child has inherited can be let go without a hang.
    channel_.reset();
    server_.reset();
    // The name belongs to the parent's server: there is none here.
    Target target;
    target.kind = Target::Kind::kInproc;
    target.name = "call-test";
    if (!absl::IsUnavailable(InprocTransport().Connect(target, ConnectOptions()).status())) failures |= 8;
    _exit(failures);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(Call(nullptr), absl::OkStatus());
}

}  // namespace
}  // namespace shmrpc
