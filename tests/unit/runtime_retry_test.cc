// Which calls are attempted again, how often, and what else happens meanwhile: against a server that the test plays.

#include "shmrpc/retry.h"

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_reactor.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/stub.h"
#include "shmrpc/task.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc {
namespace {

using google::protobuf::StringValue;
using testing::Event;
using testing::FakeCall;
using testing::FakeServer;
using ::testing::HasSubstr;
using testing::Outcome;

constexpr const char* kMethod = "/test.Retry/Method";
constexpr absl::StatusCode kUnavailable = absl::StatusCode::kUnavailable;
constexpr absl::StatusCode kResourceExhausted = absl::StatusCode::kResourceExhausted;

StringValue Text(const std::string& text) {
  StringValue message;
  message.set_value(text);
  return message;
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// With pauses that take no time, or that no test outlasts.
RetryPolicy Policy(int max_attempts, absl::StatusCode code, absl::Duration backoff = absl::Milliseconds(1)) {
  return {.max_attempts = max_attempts, .initial_backoff = backoff, .max_backoff = backoff, .codes = {code}};
}

// ---- Every style of call with one request.

// A call of one style, which begins with Start and may then be cancelled or waited for.
class StyledCall {
 public:
  enum class Style { kSynchronous, kCallback, kCoroutine, kReader, kReactor, kCoReader };

  StyledCall(Style style, std::shared_ptr<Channel> channel, StringValue request = Text("request"))
      : style_(style), channel_(std::move(channel)), request_(std::move(request)) {}
  ~StyledCall() {
    if (thread_.joinable()) thread_.join();
  }

  // The styles that wait do so on a thread of their own.
  void Start() {
    switch (style_) {
      case Style::kSynchronous:
        thread_ = std::thread([this] { outcome_.Set(UnaryCall(*channel_, kMethod, &context, request_, &reply_)); });
        break;
      case Style::kCallback: {
        // Given back when the call has begun, and changed.
        StringValue request = request_;
        AsyncUnaryCall(channel_, kMethod, &context, request, &reply_,
                       [this](absl::Status status) { outcome_.Set(std::move(status)); });
        request.set_value("changed");
        break;
      }
      case Style::kCoroutine:
        thread_ = std::thread([this] { outcome_.Set(SyncWait(AwaitUnary())); });
        break;
      case Style::kReader:
        thread_ = std::thread([this] {
          StringValue request = request_;
          ClientReader<StringValue> reader(
              StartClientStream(channel_, kMethod, MethodKind::kServerStreaming, &context, &request, nullptr));
          request.set_value("changed");
          reader.WaitForInitialMetadata();
          while (reader.Read(&reply_)) {
          }
          outcome_.Set(reader.Finish());
        });
        break;
      case Style::kReactor: {
        StringValue request = request_;
        PrepareClientReactor(channel_, kMethod, MethodKind::kServerStreaming, &context, &request, nullptr, &reactor_);
        reactor_.StartRead(&reply_);
        reactor_.StartCall();
        request.set_value("changed");
        break;
      }
      case Style::kCoReader:
        thread_ = std::thread([this] { outcome_.Set(SyncWait(AwaitStream())); });
        break;
    }
  }

  absl::Status Wait() { return outcome_.Wait(); }
  const std::string& reply() const { return reply_.value(); }
  void LetGoOfChannel() { channel_.reset(); }

  ClientContext context;

 private:
  class Reactor final : public ClientReadReactor<StringValue> {
   public:
    explicit Reactor(StyledCall* call) : call_(call) {}
    void OnReadDone(bool ok) override {
      if (ok) StartRead(&call_->reply_);
    }
    void OnDone(const absl::Status& status) override { call_->outcome_.Set(testing::DeepCopy(status)); }

   private:
    StyledCall* const call_;
  };

  Task<absl::Status> AwaitUnary() {
    absl::StatusOr<StringValue> reply = co_await CoUnaryCall<StringValue>(channel_, kMethod, &context, request_);
    if (reply.ok()) reply_ = *reply;
    co_return reply.status();
  }

  Task<absl::Status> AwaitStream() {
    CoClientReader<StringValue> reader(channel_, kMethod, &context, request_);
    while (std::optional<StringValue> message = co_await reader.Read()) reply_ = *message;
    co_return co_await reader.Finish();
  }

  const Style style_;
  std::shared_ptr<Channel> channel_;
  const StringValue request_;
  StringValue reply_;
  Outcome outcome_;
  Reactor reactor_{this};
  std::thread thread_;
};

class RetryTest : public ::testing::TestWithParam<StyledCall::Style> {
 protected:
  // Answers a call that is to succeed.
  static void Answer(const std::shared_ptr<FakeCall>& call) {
    EXPECT_EQ(call->Take(), std::optional<std::string>("request"));
    call->SendText("reply");
    call->Finish(absl::OkStatus());
  }

  FakeServer server_;
};

TEST_P(RetryTest, ARefusedCallIsSentAgain) {
  StyledCall call(GetParam(), server_.NewConnectedChannel());
  call.context.AddMetadata("key", "value");
  call.Start();
  for (int i = 0; i < 2; ++i) {
    const auto refused = server_.NextCall();
    EXPECT_EQ(refused->metadata, (Metadata{{"key", "value"}}));
    EXPECT_EQ(refused->Take(), std::optional<std::string>("request"));
    refused->Refuse(absl::UnavailableError("draining"));
  }
  const auto last = server_.NextCall();
  EXPECT_EQ(last->metadata, (Metadata{{"key", "value"}}));
  Answer(last);
  EXPECT_EQ(call.Wait(), absl::OkStatus());
  EXPECT_EQ(call.reply(), "reply");
}

TEST_P(RetryTest, ButNotForEver) {
  StyledCall call(GetParam(), server_.NewConnectedChannel());
  call.Start();
  for (int i = 0; i <= kMaxTransparentRetries; ++i) server_.NextCall()->Refuse(absl::UnavailableError("draining"));
  EXPECT_EQ(call.Wait(), absl::UnavailableError("draining"));
}

TEST_P(RetryTest, ACallThatMayHaveRunIsNot) {
  ChannelOptions options;
  options.retry_policy = Policy(10, kUnavailable);
  StyledCall call(GetParam(), server_.NewChannel(options));
  call.context.set_wait_for_ready(true);
  call.Start();
  server_.NextCall()->Finish(absl::UnavailableError("lost"));
  EXPECT_EQ(call.Wait(), absl::UnavailableError("lost"));
}

TEST_P(RetryTest, OtherCodesAreForAPolicy) {
  StyledCall without(GetParam(), server_.NewConnectedChannel());
  without.Start();
  server_.NextCall()->Refuse(absl::ResourceExhaustedError("busy"));
  EXPECT_EQ(without.Wait(), absl::ResourceExhaustedError("busy"));

  ChannelOptions options;
  options.retry_policy = Policy(3, kResourceExhausted);
  const auto channel = server_.NewChannel(options);
  StyledCall with(GetParam(), channel);
  with.context.set_wait_for_ready(true);
  with.context.AddMetadata("key", "value");
  with.Start();
  const auto first = server_.NextCall();
  EXPECT_EQ(first->metadata, (Metadata{{"key", "value"}}));
  first->Refuse(absl::ResourceExhaustedError("busy"));
  const auto second = server_.NextCall();
  EXPECT_EQ(second->metadata, (Metadata{{"key", "value"}, {"grpc-previous-rpc-attempts", "1"}}));
  second->Refuse(absl::UnavailableError("draining"));  // this one does not count, and is not of the policy's codes
  server_.NextCall()->Refuse(absl::ResourceExhaustedError("busy"));
  const auto last = server_.NextCall();
  EXPECT_EQ(last->metadata, (Metadata{{"key", "value"}, {"grpc-previous-rpc-attempts", "2"}}));
  last->Refuse(absl::ResourceExhaustedError("still busy"));
  EXPECT_EQ(with.Wait(), absl::ResourceExhaustedError("still busy"));

  StyledCall another_code(GetParam(), channel);
  another_code.Start();
  server_.NextCall()->Refuse(absl::AbortedError("no"));
  EXPECT_EQ(another_code.Wait(), absl::AbortedError("no"));
}

TEST_P(RetryTest, TheContextSaysOtherwise) {
  ChannelOptions options;
  options.retry_policy = Policy(10, kResourceExhausted);
  const auto channel = server_.NewChannel(options);
  StyledCall none(GetParam(), channel);
  none.context.set_retry_policy(std::nullopt);
  none.Start();
  server_.NextCall()->Refuse(absl::ResourceExhaustedError("busy"));
  EXPECT_EQ(none.Wait(), absl::ResourceExhaustedError("busy"));

  StyledCall own(GetParam(), channel);
  own.context.set_retry_policy(Policy(2, absl::StatusCode::kAborted));
  own.Start();
  server_.NextCall()->Refuse(absl::AbortedError("no"));
  Answer(server_.NextCall());
  EXPECT_EQ(own.Wait(), absl::OkStatus());
}

TEST_P(RetryTest, APolicyWaitsForAServerToCome) {
  server_.set_refuses(true);
  ChannelOptions options;
  options.initial_backoff = options.max_backoff = absl::Milliseconds(1);
  options.retry_policy = Policy(1 << 30, kUnavailable);
  StyledCall call(GetParam(), server_.NewChannel(options));
  call.Start();
  absl::SleepFor(absl::Milliseconds(20));
  server_.set_refuses(false);
  Answer(server_.NextCall());
  EXPECT_EQ(call.Wait(), absl::OkStatus());
}

TEST_P(RetryTest, APolicyGivesUpAfterItsAttempts) {
  server_.set_refuses(true);
  ChannelOptions options;
  options.retry_policy = Policy(3, kUnavailable);
  StyledCall call(GetParam(), server_.NewChannel(options));
  call.Start();
  const absl::Status status = call.Wait();
  EXPECT_EQ(status.code(), kUnavailable);
  EXPECT_THAT(MessageOf(status), HasSubstr("not connected"));
}

// Of all calls of the channel together, whatever their styles, and also by what handlers answer.
TEST_P(RetryTest, ThrottlingStopsThePoliciesOfAChannel) {
  ChannelOptions options;
  options.retry_policy = Policy(10, kResourceExhausted);
  options.retry_throttling = {.max_tokens = 6, .token_ratio = 1};
  const auto channel = server_.NewChannel(options);
  {
    StyledCall call(GetParam(), channel);
    call.context.set_wait_for_ready(true);
    call.Start();
    for (int i = 0; i < 3; ++i) server_.NextCall()->Refuse(absl::ResourceExhaustedError("busy"));
    EXPECT_EQ(call.Wait(), absl::ResourceExhaustedError("busy")) << "the third failure leaves half of the tokens";
  }
  for (int i = 0; i < 3; ++i) {
    StyledCall call(GetParam(), channel);
    call.Start();
    Answer(server_.NextCall());
    EXPECT_EQ(call.Wait(), absl::OkStatus());
  }
  {
    StyledCall call(GetParam(), channel);
    call.Start();
    server_.NextCall()->Refuse(absl::ResourceExhaustedError("busy"));
    server_.NextCall()->Finish(absl::ResourceExhaustedError("from a handler"));
    EXPECT_EQ(call.Wait(), absl::ResourceExhaustedError("from a handler"));
  }
  StyledCall call(GetParam(), channel);
  call.Start();
  server_.NextCall()->Refuse(absl::ResourceExhaustedError("still busy"));
  EXPECT_EQ(call.Wait(), absl::ResourceExhaustedError("still busy"));
}

TEST_P(RetryTest, TheDeadlineEndsAPause) {
  ChannelOptions options;
  options.retry_policy = Policy(2, kResourceExhausted, absl::Hours(1));
  StyledCall call(GetParam(), server_.NewChannel(options));
  call.context.set_timeout(absl::Milliseconds(50));
  server_.set_on_call(
      [](const std::shared_ptr<FakeCall>& fake) { fake->Refuse(absl::ResourceExhaustedError("busy")); });
  call.Start();
  EXPECT_EQ(call.Wait().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_P(RetryTest, TryCancelEndsAPause) {
  ChannelOptions options;
  options.retry_policy = Policy(2, kResourceExhausted, absl::Hours(1));
  StyledCall call(GetParam(), server_.NewChannel(options));
  call.Start();
  const auto refused = server_.NextCall();
  refused->Refuse(absl::ResourceExhaustedError("busy"));
  refused->WaitForDelivery();
  call.context.TryCancel();
  EXPECT_EQ(call.Wait().code(), absl::StatusCode::kCancelled);
}

TEST_P(RetryTest, TryCancelEndsALaterAttempt) {
  StyledCall call(GetParam(), server_.NewConnectedChannel());
  call.Start();
  server_.NextCall()->Refuse(absl::UnavailableError("draining"));
  const auto second = server_.NextCall();
  call.context.TryCancel();
  EXPECT_EQ(second->WaitForCancel().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(call.Wait().code(), absl::StatusCode::kCancelled);
}

// Whether TryCancel comes before, while or after the next attempt, or the pause before it, begins: the call ends with
// it.
TEST_P(RetryTest, TryCancelThatRacesWithTheRefusal) {
  ChannelOptions options;
  options.retry_policy = Policy(2, kResourceExhausted, absl::Hours(1));
  for (int i = 0; i < 400; ++i) {
    StyledCall call(GetParam(), server_.NewChannel(options));
    call.context.set_wait_for_ready(true);
    call.Start();
    const auto refused = server_.NextCall();
    std::thread canceller([&] { call.context.TryCancel(); });
    refused->Refuse(i % 2 == 0 ? absl::UnavailableError("draining") : absl::ResourceExhaustedError("busy"));
    EXPECT_EQ(call.Wait().code(), absl::StatusCode::kCancelled);
    canceller.join();
  }
}

std::string StyleName(StyledCall::Style style) {
  constexpr const char* kNames[] = {"Synchronous", "Callback", "Coroutine", "Reader", "Reactor", "CoReader"};
  return kNames[static_cast<int>(style)];
}

INSTANTIATE_TEST_SUITE_P(Styles, RetryTest,
                         ::testing::Values(StyledCall::Style::kSynchronous, StyledCall::Style::kCallback,
                                           StyledCall::Style::kCoroutine, StyledCall::Style::kReader,
                                           StyledCall::Style::kReactor, StyledCall::Style::kCoReader),
                         [](const auto& info) { return StyleName(info.param); });

// ---- What only some styles have.

TEST(RetryOneStyleTest, TheEndOfTheChannelEndsAPause) {
  FakeServer server;
  ChannelOptions options;
  options.retry_policy = Policy(2, kResourceExhausted, absl::Hours(1));
  for (const auto style : {StyledCall::Style::kCallback, StyledCall::Style::kReactor}) {
    auto channel = server.NewChannel(options);
    StyledCall call(style, channel);
    call.Start();
    const auto refused = server.NextCall();
    refused->Refuse(absl::ResourceExhaustedError("busy"));
    refused->WaitForDelivery();
    call.LetGoOfChannel();
    channel.reset();
    EXPECT_EQ(call.Wait().code(), absl::StatusCode::kCancelled);
  }
}

TEST(RetryOneStyleTest, ALargeRequestIsKeptOnlyByItsCaller) {
  FakeServer server;
  const StringValue large = Text(std::string(kMaxKeptRequestBytes, 'x'));
  const auto channel = server.NewConnectedChannel();
  for (const auto style : {StyledCall::Style::kSynchronous, StyledCall::Style::kCoroutine}) {
    StyledCall call(style, channel, large);
    call.Start();
    server.NextCall()->Refuse(absl::UnavailableError("draining"));
    const auto second = server.NextCall();
    EXPECT_EQ(second->Take(), large.value());
    second->SendText("reply");
    second->Finish(absl::OkStatus());
    EXPECT_EQ(call.Wait(), absl::OkStatus());
  }
  for (const auto style : {StyledCall::Style::kCallback, StyledCall::Style::kReactor}) {
    StyledCall call(style, channel, large);
    call.Start();
    server.NextCall()->Refuse(absl::UnavailableError("draining"));
    EXPECT_EQ(call.Wait(), absl::UnavailableError("draining"));
  }
  const auto stream = StartClientStream(channel, kMethod, MethodKind::kServerStreaming, nullptr, &large, nullptr);
  server.NextCall()->Refuse(absl::UnavailableError("draining"));
  EXPECT_EQ(stream->Finish(), absl::UnavailableError("draining"));
}

class WriteReactor final : public ClientWriteReactor<StringValue> {
 public:
  void OnWriteDone(bool ok) override {
    EXPECT_TRUE(ok);
    written.Set();
  }
  void OnDone(const absl::Status& status) override { outcome.Set(testing::DeepCopy(status)); }
  Event written;
  Outcome outcome;
};

TEST(RetryOneStyleTest, AStreamOfTheClientUntilSomethingWasSent) {
  FakeServer server;
  const auto channel = server.NewConnectedChannel();
  StringValue reply;
  const StringValue message = Text("message");
  {
    WriteReactor reactor;
    PrepareClientReactor(channel, kMethod, MethodKind::kClientStreaming, nullptr, nullptr, &reply, &reactor);
    reactor.StartCall();
    server.NextCall()->Refuse(absl::UnavailableError("draining"));
    const auto second = server.NextCall();
    reactor.StartWriteLast(&message);
    EXPECT_EQ(second->Take(), std::optional<std::string>("message"));
    second->SendText("reply");
    second->Finish(absl::OkStatus());
    EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  }
  {
    WriteReactor reactor;
    PrepareClientReactor(channel, kMethod, MethodKind::kClientStreaming, nullptr, nullptr, &reply, &reactor);
    reactor.StartCall();
    reactor.StartWrite(&message);
    const auto call = server.NextCall();
    EXPECT_EQ(call->Take(), std::optional<std::string>("message"));
    reactor.written.Wait();
    call->Refuse(absl::UnavailableError("draining"));
    EXPECT_EQ(reactor.outcome.Wait(), absl::UnavailableError("draining"));
  }
}

TEST(RetryOneStyleTest, ASynchronousStreamOfTheClientThatIsRefusedAtOnce) {
  FakeServer server;
  int calls = 0;
  server.set_on_call([&](const std::shared_ptr<FakeCall>& call) {
    if (++calls == 1) {
      call->Refuse(absl::UnavailableError("draining"));
      call->WaitForDelivery();
    } else {
      call->SendText("reply");
      call->Finish(absl::OkStatus());
    }
  });
  StringValue reply;
  const auto stream =
      StartClientStream(server.NewConnectedChannel(), kMethod, MethodKind::kClientStreaming, nullptr, nullptr, &reply);
  EXPECT_EQ(stream->Finish(), absl::OkStatus());
  EXPECT_EQ(reply.value(), "reply");
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace shmrpc
