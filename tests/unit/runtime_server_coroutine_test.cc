// Handlers that are coroutines.

#include "shmrpc/server_coroutine.h"

#include <atomic>
#include <coroutine>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/wait.h"
#include "tests/unit/runtime_fake_server_call.h"

namespace shmrpc {
namespace {

using ::testing::ElementsAre;
using testing::Event;
using testing::FakeServerCall;
using ::testing::HasSubstr;
using testing::KindsService;
using testing::ServerUnderTest;
using testing::StringValue;
using testing::Text;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// Echoes, whatever the kind of the method.
Task<absl::Status> Echo(ServerContext*, const StringValue* request, StringValue* reply, CoServerStream* stream) {
  StringValue message;
  if (request != nullptr && reply != nullptr) {
    EXPECT_EQ(stream, nullptr);
    reply->set_value(request->value());
  } else if (request != nullptr) {
    CoServerWriter<StringValue> writer(stream);
    for (char letter : request->value()) {
      message.set_value(std::string(1, letter));
      const bool ok = co_await writer.Write(message);
      if (!ok) co_return absl::AbortedError("Write said false");
    }
  } else if (reply != nullptr) {
    CoServerReader<StringValue> reader(stream);
    while (std::optional<StringValue> read = co_await reader.Read()) reply->set_value(reply->value() + read->value());
  } else {
    CoServerReaderWriter<StringValue, StringValue> both(stream);
    while (std::optional<StringValue> read = co_await both.Read()) {
      const bool ok = co_await both.Write(*read);
      if (!ok) co_return absl::AbortedError("Write said false");
    }
  }
  co_return absl::OkStatus();
}

TEST(ServerCoroutineTest, RunsAllKindsWithTheRequestAtOnce) {
  KindsService service(&Echo);
  ServerUnderTest server(&service);
  for (const char* method :
       {KindsService::kUnary, KindsService::kServerStreaming, KindsService::kClientStreaming, KindsService::kBidi}) {
    const auto call = server.Call(method, "abc");
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus()) << method;
    if (method == KindsService::kServerStreaming) {
      EXPECT_THAT(call->sent(), ElementsAre("a", "b", "c"));
    } else {
      EXPECT_THAT(call->sent(), ElementsAre("abc"));
    }
  }
}

TEST(ServerCoroutineTest, RunsAllKindsWithMessagesThatComeLater) {
  KindsService service(&Echo);
  ServerUnderTest server(&service);
  for (const char* method :
       {KindsService::kUnary, KindsService::kServerStreaming, KindsService::kClientStreaming, KindsService::kBidi}) {
    const auto call = server.Call(method);
    call->WaitForReceive();
    call->Send("a");
    call->WaitForReceive();
    call->HalfClose();
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus()) << method;
    EXPECT_THAT(call->sent(), ElementsAre("a"));
  }
}

// See ServerStreamTest. What holds the messages is the same for callbacks.
TEST(ServerCoroutineTest, TheReplyOfAStreamIsNotOnAnArena) {
  KindsService service(
      [](ServerContext*, const StringValue*, StringValue* reply, CoServerStream* stream) -> Task<absl::Status> {
        CoServerReader<StringValue> reader(stream);
        while (std::optional<StringValue> read = co_await reader.Read()) {
          const void* const bytes = read->value().data();
          reply->Swap(&*read);
          EXPECT_EQ(reply->value().data(), bytes);
        }
        co_return absl::OkStatus();
      });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kClientStreaming);
  const std::string text(1000, 'a');
  call->Send(text);
  call->HalfClose();
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(call->sent(), ElementsAre(text));
}

TEST(ServerCoroutineTest, WritesWaitForCredit) {
  KindsService service(&Echo);
  ServerUnderTest server(&service);
  FakeServerCall::Options options;
  options.method = KindsService::kServerStreaming;
  options.request = Text("abcd").SerializeAsString();
  options.credits = 1;
  const auto call = server.Call(options);
  call->WaitForSenderToWait();
  EXPECT_THAT(call->sent(), ElementsAre("a"));
  call->Grant(1);
  EXPECT_THAT(call->WaitForSent(2), ElementsAre("a", "b"));
  call->Grant(2);
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
}

TEST(ServerCoroutineTest, ManyMessagesNeedNoStack) {
  KindsService service(&Echo);
  ServerUnderTest server(&service);
  const std::string letters(100000, 'x');
  const auto call = server.Call(KindsService::kServerStreaming, letters);
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(call->sent().size(), letters.size());
}

TEST(ServerCoroutineTest, CancellationEndsWhatIsAwaited) {
  for (const bool by_deadline : {false, true}) {
    KindsService service(&Echo);
    ServerUnderTest server(&service);
    FakeServerCall::Options options;
    options.credits = 0;
    if (by_deadline) options.deadline = SteadyTime::Now() + absl::Milliseconds(20);
    options.method = KindsService::kBidi;
    const auto reading = server.Call(options);
    options.method = KindsService::kServerStreaming;
    options.request = Text("ab").SerializeAsString();
    const auto writing = server.Call(options);
    if (!by_deadline) {
      reading->WaitForReceive();
      reading->Cancel();
      writing->WaitForSenderToWait();
      writing->Cancel();
    }
    EXPECT_EQ(reading->WaitForStatus().code(),
              by_deadline ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kOk);
    const absl::Status status = writing->WaitForStatus();
    // A deadline may pass before the handler starts.
    if (status.code() != absl::StatusCode::kDeadlineExceeded || !by_deadline) {
      EXPECT_EQ(status, absl::AbortedError("Write said false"));
    }
  }
}

// Something that a coroutine waits for until it is cancelled.
class CancelledAwaiter {
 public:
  explicit CancelledAwaiter(ServerContext* context) : context_(context) {}
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> waiting) {
    context_->SetCancellationCallback([waiting] { waiting.resume(); });
  }
  void await_resume() const {}

 private:
  ServerContext* const context_;
};

TEST(ServerCoroutineTest, TheCancellationCallbackMayResumeAndEndIt) {
  for (const bool by_deadline : {false, true}) {
    for (const bool done_inside_finish : {false, true}) {
      KindsService service(
          [](ServerContext* context, const StringValue*, StringValue*, CoServerStream*) -> Task<absl::Status> {
            co_await CancelledAwaiter(context);
            EXPECT_TRUE(context->IsCancelled());
            co_return absl::CancelledError("seen");
          });
      ServerUnderTest server(&service);
      FakeServerCall::Options options;
      options.method = KindsService::kUnary;
      options.request = "";
      options.done_inside_finish = done_inside_finish;
      if (by_deadline) options.deadline = SteadyTime::Now() + absl::Milliseconds(50);
      const auto call = server.Call(options);
      if (!by_deadline) call->Cancel();
      EXPECT_EQ(call->WaitForStatus().code(),
                by_deadline ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kCancelled);
    }
  }
}

TEST(ServerCoroutineTest, ExceptionsBecomeUnknown) {
  KindsService service(
      [](ServerContext*, const StringValue* request, StringValue*, CoServerStream* stream) -> Task<absl::Status> {
        if (request == nullptr) {
          CoServerReader<StringValue> reader(stream);
          co_await reader.Read();
        }
        throw std::runtime_error("out of cheese");
      });
  ServerUnderTest server(&service);
  EXPECT_THAT(MessageOf(server.Call(KindsService::kUnary, "x")->WaitForStatus()), HasSubstr("out of cheese"));
  const auto call = server.Call(KindsService::kClientStreaming);
  call->WaitForReceive();
  call->HalfClose();
  const absl::Status status = call->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(MessageOf(status), HasSubstr("the handler of /test.Kinds/ClientStreaming threw: out of cheese"));
  KindsService no_coroutine(
      [](ServerContext*, const StringValue*, StringValue*, CoServerStream*) -> Task<absl::Status> { throw 42; });
  ServerUnderTest another(&no_coroutine);
  EXPECT_EQ(another.Call(KindsService::kUnary, "x")->WaitForStatus().code(), absl::StatusCode::kUnknown);
}

TEST(ServerCoroutineTest, MayReturnWhileTheClientStillSends) {
  KindsService service(
      [](ServerContext*, const StringValue*, StringValue*, CoServerStream* stream) -> Task<absl::Status> {
        CoServerReader<StringValue> reader(stream);
        co_await reader.Read();
        co_return absl::ResourceExhaustedError("enough");
      });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kClientStreaming);
  for (int i = 0; i < 3; ++i) call->Send("x");
  EXPECT_EQ(call->WaitForStatus(), absl::ResourceExhaustedError("enough"));
  call->Send("x");
}

TEST(ServerCoroutineTest, MessagesThatCannotBeAcceptedEndTheCall) {
  KindsService service(&Echo);
  ServerUnderTest server(&service, [](ServerBuilder* builder) { builder->SetMaxSendMessageBytes(10); });
  const auto garbled = server.Call(KindsService::kBidi);
  garbled->SendBytes("\xff");
  EXPECT_EQ(garbled->WaitForStatus().code(), absl::StatusCode::kInternal);
  const auto garbled_at_once = [&] {
    FakeServerCall::Options options;
    options.method = KindsService::kClientStreaming;
    options.request = "\xff";
    return server.Call(options);
  }();
  EXPECT_EQ(garbled_at_once->WaitForStatus().code(), absl::StatusCode::kInternal);
  const auto large = server.Call(KindsService::kBidi);
  large->Send("123456789");
  EXPECT_THAT(MessageOf(large->WaitForStatus()), HasSubstr("has 11 bytes, the server's limit is 10"));
}

TEST(ServerCoroutineTest, SendsInitialMetadata) {
  Event go;
  KindsService service(
      [&](ServerContext* context, const StringValue*, StringValue*, CoServerStream* stream) -> Task<absl::Status> {
        context->AddInitialMetadata("key", "value");
        CoServerReaderWriter<StringValue, StringValue> both(stream);
        both.SendInitialMetadata();
        co_await both.Read();
        co_return absl::OkStatus();
      });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kBidi);
  call->WaitForReceive();
  EXPECT_EQ(call->headers(), Metadata({{"key", "value"}}));
  call->HalfClose();
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
}

TEST(ServerCoroutineTest, EndRacesWithCancellation) {
  for (int round = 0; round < 500; ++round) {
    KindsService service(&Echo);
    ServerUnderTest server(&service);
    FakeServerCall::Options options;
    options.method = KindsService::kBidi;
    options.done_inside_finish = round % 2 == 0;
    if (round % 4 == 3) options.deadline = SteadyTime::Now() + absl::Microseconds(100);
    const auto call = server.Call(options);
    call->Send("x");
    call->HalfClose();
    call->Cancel();
    const absl::StatusCode code = call->WaitForStatus().code();
    EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kAborted ||
                code == absl::StatusCode::kDeadlineExceeded)
        << absl::StatusCodeToString(code);
  }
}

TEST(ServerCoroutineTest, ResumesElsewhereAndGoesOn) {
  KindsService service(
      [](ServerContext*, const StringValue*, StringValue*, CoServerStream* stream) -> Task<absl::Status> {
        CoServerReaderWriter<StringValue, StringValue> both(stream);
        while (std::optional<StringValue> read = co_await both.Read()) {
          co_await Sleep(absl::Milliseconds(1));
          co_await both.Write(*read);
        }
        co_return absl::OkStatus();
      });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kBidi);
  for (int i = 0; i < 5; ++i) call->Send("x");
  call->HalfClose();
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(call->sent().size(), 5u);
}

}  // namespace
}  // namespace shmrpc
