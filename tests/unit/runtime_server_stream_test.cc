// Synchronous handlers: streams, late requests, cancellation callbacks, the limit of concurrent calls.

#include "shmrpc/server_stream.h"

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/src/cancellation_callback.h"
#include "shmrpc/steady_time.h"
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
absl::Status Echo(ServerContext*, const StringValue* request, StringValue* reply, ServerStream* stream) {
  StringValue message;
  if (request != nullptr && reply != nullptr) {
    reply->set_value(request->value());
  } else if (request != nullptr) {
    for (char letter : request->value()) {
      message.set_value(std::string(1, letter));
      if (!stream->Write(message)) return absl::AbortedError("Write said false");
    }
  } else if (reply != nullptr) {
    while (stream->Read(&message)) reply->set_value(reply->value() + message.value());
  } else {
    while (stream->Read(&message)) {
      if (!stream->Write(message)) return absl::AbortedError("Write said false");
    }
  }
  return absl::OkStatus();
}

TEST(ServerStreamTest, RunsAllKindsWithTheRequestAtOnce) {
  KindsService service(&Echo);
  ServerUnderTest server(&service);
  const auto unary = server.Call(KindsService::kUnary, "abc");
  EXPECT_EQ(unary->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(unary->sent(), ElementsAre("abc"));
  EXPECT_FALSE(unary->started());  // events would cost time
  const auto server_streaming = server.Call(KindsService::kServerStreaming, "abc");
  EXPECT_EQ(server_streaming->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(server_streaming->sent(), ElementsAre("a", "b", "c"));
  const auto client_streaming = server.Call(KindsService::kClientStreaming, "abc");
  EXPECT_EQ(client_streaming->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(client_streaming->sent(), ElementsAre("abc"));
  const auto bidi = server.Call(KindsService::kBidi, "abc");
  EXPECT_EQ(bidi->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(bidi->sent(), ElementsAre("abc"));
}

TEST(ServerStreamTest, RunsAllKindsWithMessagesThatComeLater) {
  KindsService service(&Echo);
  ServerUnderTest server(&service);
  for (const char* method : {KindsService::kUnary, KindsService::kServerStreaming}) {
    const auto call = server.Call(method);
    call->WaitForReceive();
    call->Send("a");
    call->WaitForReceive();  // the handler does not run before the half-close
    EXPECT_THAT(call->sent(), ElementsAre());
    call->HalfClose();
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
    EXPECT_THAT(call->sent(), ElementsAre("a"));
  }
  const auto client_streaming = server.Call(KindsService::kClientStreaming);
  client_streaming->Send("a");
  client_streaming->Send("b");
  client_streaming->HalfClose();
  EXPECT_EQ(client_streaming->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(client_streaming->sent(), ElementsAre("ab"));
  const auto bidi = server.Call(KindsService::kBidi);
  bidi->Send("a");
  EXPECT_THAT(bidi->WaitForSent(1), ElementsAre("a"));
  bidi->Send("b");
  EXPECT_THAT(bidi->WaitForSent(2), ElementsAre("a", "b"));
  bidi->HalfClose();
  EXPECT_EQ(bidi->WaitForStatus(), absl::OkStatus());
}

// Messages that are swapped into the reply would be copied to an arena, and stay there until the call is over.
TEST(ServerStreamTest, TheReplyOfAStreamIsNotOnAnArena) {
  KindsService service([&](ServerContext*, const StringValue*, StringValue* reply, ServerStream* stream) {
    StringValue message;
    while (stream->Read(&message)) {
      const void* const bytes = message.value().data();
      reply->Swap(&message);
      EXPECT_EQ(reply->value().data(), bytes);
    }
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kClientStreaming);
  const std::string last(1000, 'b');  // on the heap
  call->Send(std::string(1000, 'a'));
  call->Send(last);
  call->HalfClose();
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(call->sent(), ElementsAre(last));
}

TEST(ServerStreamTest, AMethodWithOneRequestTakesExactlyOne) {
  std::atomic<int> handled{0};
  KindsService service([&](ServerContext*, const StringValue*, StringValue*, ServerStream*) {
    ++handled;
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  for (const char* method : {KindsService::kUnary, KindsService::kServerStreaming}) {
    const auto none = server.Call(method);
    none->HalfClose();
    absl::Status status = none->WaitForStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr(method));
    EXPECT_THAT(MessageOf(status), HasSubstr("without a request"));
    const auto two = server.Call(method);
    two->Send("a");
    two->Send("b");
    status = two->WaitForStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr("second request"));
    const auto garbled = server.Call(method);
    garbled->SendBytes("\xff");
    status = garbled->WaitForStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(MessageOf(status), HasSubstr("google.protobuf.StringValue"));
    const auto cancelled = server.Call(method);
    cancelled->WaitForReceive();
    cancelled->Cancel();
    EXPECT_EQ(cancelled->WaitForStatus().code(), absl::StatusCode::kCancelled);
    FakeServerCall::Options options;
    options.method = method;
    options.deadline = SteadyTime::Now() + absl::Milliseconds(20);
    EXPECT_EQ(server.Call(options)->WaitForStatus().code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_EQ(handled, 0);
}

TEST(ServerStreamTest, WriteWaitsForCredit) {
  KindsService service(&Echo);
  ServerUnderTest server(&service);
  FakeServerCall::Options options;
  options.method = KindsService::kServerStreaming;
  options.request = Text("abcd").SerializeAsString();
  options.credits = 1;
  const auto call = server.Call(options);
  call->WaitForSenderToWait();
  EXPECT_THAT(call->sent(), ElementsAre("a"));
  call->Grant(2);
  EXPECT_THAT(call->WaitForSent(3), ElementsAre("a", "b", "c"));
  call->WaitForSenderToWait();
  call->Grant(1);
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
}

TEST(ServerStreamTest, CancellationEndsReadAndWrite) {
  Event read_ended;
  KindsService service([&](ServerContext* context, const StringValue*, StringValue*, ServerStream* stream) {
    StringValue message;
    EXPECT_FALSE(stream->Read(&message));
    EXPECT_TRUE(context->IsCancelled());
    EXPECT_FALSE(stream->Read(&message));
    EXPECT_FALSE(stream->Write(message));
    read_ended.Set();
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  const auto reading = server.Call(KindsService::kBidi);
  reading->WaitForReceive();
  reading->Cancel();
  EXPECT_TRUE(read_ended.Wait());
  EXPECT_EQ(reading->WaitForStatus(), absl::OkStatus());

  KindsService echo(&Echo);
  ServerUnderTest echo_server(&echo);
  FakeServerCall::Options options;
  options.method = KindsService::kServerStreaming;
  options.request = Text("ab").SerializeAsString();
  options.credits = 0;
  const auto writing = echo_server.Call(options);
  writing->WaitForSenderToWait();
  writing->Cancel();
  EXPECT_EQ(writing->WaitForStatus(), absl::AbortedError("Write said false"));
}

TEST(ServerStreamTest, TheDeadlineEndsReadAndWrite) {
  KindsService service([&](ServerContext* context, const StringValue*, StringValue*, ServerStream* stream) {
    StringValue message;
    EXPECT_FALSE(stream->Read(&message));
    EXPECT_TRUE(context->IsCancelled());
    EXPECT_FALSE(stream->Write(message));
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  FakeServerCall::Options options;
  options.method = KindsService::kBidi;
  const auto call = server.CallPastDeadline(service, options);
  EXPECT_EQ(call->WaitForStatus().code(), absl::StatusCode::kDeadlineExceeded) << "whatever the handler says";
  call->Send("late");

  KindsService echo(&Echo);
  ServerUnderTest echo_server(&echo);
  options.method = KindsService::kServerStreaming;
  options.request = Text("ab").SerializeAsString();
  options.deadline = SteadyTime::Now() + absl::Milliseconds(20);
  options.credits = 0;
  EXPECT_EQ(echo_server.Call(options)->WaitForStatus().code(), absl::StatusCode::kDeadlineExceeded)
      << "whatever the handler makes of it";
}

TEST(ServerStreamTest, ACallThatComesAfterItsDeadlineHasNoHandler) {
  std::atomic<int> handlers{0};
  KindsService service([&](ServerContext*, const StringValue*, StringValue*, ServerStream*) {
    ++handlers;
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  FakeServerCall::Options options;
  options.deadline = SteadyTime::Now() - absl::Nanoseconds(1);
  for (const char* method : {KindsService::kUnary, KindsService::kServerStreaming, KindsService::kBidi}) {
    options.method = method;
    options.request = Text("x").SerializeAsString();
    EXPECT_EQ(server.Call(options)->WaitForStatus().code(), absl::StatusCode::kDeadlineExceeded) << method;
  }
  EXPECT_EQ(handlers, 0);
}

TEST(ServerStreamTest, ReadsAndWritesOnTwoThreads) {
  static constexpr int kMessages = 1000;
  KindsService service([](ServerContext*, const StringValue*, StringValue*, ServerStream* stream) {
    std::thread writer([stream] {
      StringValue message;
      for (int i = 0; i < kMessages; ++i) EXPECT_TRUE(stream->Write(message));
    });
    StringValue message;
    int read = 0;
    while (stream->Read(&message)) ++read;
    writer.join();
    EXPECT_EQ(read, kMessages);
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  FakeServerCall::Options options;
  options.method = KindsService::kBidi;
  options.credits = 0;
  const auto call = server.Call(options);
  for (int i = 0; i < kMessages; ++i) {
    call->Send("x");
    call->Grant(1);
  }
  call->HalfClose();
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(call->sent().size(), size_t{kMessages});
}

TEST(ServerStreamTest, AHandlerMayReturnWhileTheClientStillSends) {
  KindsService service([](ServerContext*, const StringValue*, StringValue*, ServerStream* stream) {
    StringValue message;
    EXPECT_TRUE(stream->Read(&message));
    return absl::ResourceExhaustedError("enough");
  });
  ServerUnderTest server(&service);
  for (bool done_inside_finish : {false, true}) {
    FakeServerCall::Options options;
    options.method = KindsService::kClientStreaming;
    options.done_inside_finish = done_inside_finish;
    const auto call = server.Call(options);
    for (int i = 0; i < 3; ++i) call->Send("x");
    EXPECT_EQ(call->WaitForStatus(), absl::ResourceExhaustedError("enough"));
    call->Send("x");
  }
}

TEST(ServerStreamTest, MessagesThatCannotBeAcceptedEndTheCall) {
  KindsService service([](ServerContext*, const StringValue*, StringValue*, ServerStream* stream) {
    StringValue message;
    while (stream->Read(&message)) stream->Write(message);
    EXPECT_FALSE(stream->Write(message));
    return absl::OkStatus();  // says nothing of the failure
  });
  ServerUnderTest server(&service, [](ServerBuilder* builder) { builder->SetMaxSendMessageBytes(10); });
  const auto garbled = server.Call(KindsService::kBidi);
  garbled->SendBytes("\xff");
  EXPECT_EQ(garbled->WaitForStatus().code(), absl::StatusCode::kInternal);
  const auto large = server.Call(KindsService::kBidi);
  large->Send("12345678");
  EXPECT_THAT(large->WaitForSent(1), ElementsAre("12345678"));
  large->Send("123456789");
  const absl::Status status = large->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("has 11 bytes, the server's limit is 10"));
}

TEST(ServerStreamTest, RequiredFieldsAreChecked) {
  KindsService service([](ServerContext*, const StringValue*, StringValue*, ServerStream* stream) {
    KindsService::NamePart message;
    if (!stream->Read(&message)) return absl::OkStatus();
    EXPECT_FALSE(stream->Write(KindsService::NamePart()));
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  const auto lacking = server.Call(KindsService::kRequired);
  lacking->SendBytes("");
  absl::Status status = lacking->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("lacks required fields: name_part"));
  KindsService::NamePart complete;
  complete.set_name_part("x");
  complete.set_is_extension(false);
  const auto reply_lacking = server.Call(KindsService::kRequired);
  reply_lacking->SendBytes(complete.SerializeAsString());
  status = reply_lacking->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("the reply of /test.Kinds/Required"));
}

TEST(ServerStreamTest, ExceptionsBecomeUnknown) {
  KindsService service([](ServerContext*, const StringValue*, StringValue*, ServerStream* stream) -> absl::Status {
    StringValue message;
    stream->Read(&message);
    throw std::runtime_error("out of cheese");
  });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kBidi);
  call->HalfClose();
  const absl::Status status = call->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(MessageOf(status), HasSubstr("out of cheese"));
}

TEST(ServerStreamTest, InitialMetadataGoesAheadOfMessages) {
  KindsService service([](ServerContext* context, const StringValue* request, StringValue*, ServerStream* stream) {
    context->AddInitialMetadata("key", "value");
    context->AddTrailingMetadata("trailing", "value");
    if (request->value() == "explicit") {
      stream->SendInitialMetadata();
      stream->SendInitialMetadata();
    }
    if (request->value() == "late") {
      stream->Write(*request);
      context->AddInitialMetadata("too", "late");
    }
    if (request->value() == "bad") context->AddInitialMetadata("Bad", "x");
    stream->Write(*request);
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  for (const char* request : {"explicit", "implicit"}) {
    const auto call = server.Call(KindsService::kServerStreaming, request);
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
    EXPECT_EQ(call->headers(), Metadata({{"key", "value"}}));
    EXPECT_EQ(call->trailing_metadata(), Metadata({{"trailing", "value"}}));
  }
  absl::Status status = server.Call(KindsService::kServerStreaming, "late")->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("after it had been sent"));
  status = server.Call(KindsService::kServerStreaming, "bad")->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("Bad"));
}

TEST(CancellationCallbackTest, ComesOnceToABlockedHandler) {
  std::atomic<int> calls{0};
  KindsService service([&](ServerContext* context, const StringValue*, StringValue*, ServerStream*) {
    Event cancelled;
    context->SetCancellationCallback([&] {
      ++calls;
      cancelled.Set();
    });
    EXPECT_TRUE(cancelled.Wait());
    context->ClearCancellationCallback();  // it uses a local variable
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  const auto unary = server.Call(KindsService::kUnary, "x");
  while (!unary->started()) std::this_thread::yield();
  unary->Cancel();
  EXPECT_EQ(unary->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(calls, 1);
  const auto stream = server.Call(KindsService::kBidi);
  stream->Cancel();
  EXPECT_EQ(stream->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(calls, 2);
  FakeServerCall::Options options;
  options.method = KindsService::kUnary;
  options.request = "";
  EXPECT_EQ(server.CallPastDeadline(service, options)->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(calls, 3);
}

// A cancellation, a deadline and a lost connection may follow one another, each with a thread that brings the news.
TEST(CancellationCallbackTest, RunsOnceHoweverOftenItIsDue) {
  int calls = 0;
  internal::CancellationCallback callback;
  callback.Set([&] { ++calls; });
  EXPECT_TRUE(callback.Cancel());
  EXPECT_TRUE(callback.Cancel());
  callback.Run();
  callback.Run();
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(callback.Cancel());
}

TEST(CancellationCallbackTest, ComesAtOnceWhenCancelledAlready) {
  KindsService service([&](ServerContext* context, const StringValue*, StringValue*, ServerStream*) {
    while (!context->IsCancelled()) std::this_thread::yield();
    std::thread::id called_on;
    context->SetCancellationCallback([&] { called_on = std::this_thread::get_id(); });
    EXPECT_EQ(called_on, std::this_thread::get_id());
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kUnary, "x");
  call->Cancel();
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
}

TEST(CancellationCallbackTest, DoesNotComeAfterTheHandler) {
  std::atomic<int> calls{0};
  KindsService service([&](ServerContext* context, const StringValue* request, StringValue*, ServerStream*) {
    context->SetCancellationCallback([&] { ++calls; });
    if (request->value() == "clear") {
      context->ClearCancellationCallback();
      while (!context->IsCancelled()) std::this_thread::yield();
    }
    return absl::OkStatus();
  });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kUnary, "x");
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  call->Cancel();
  const auto clearing = server.Call(KindsService::kUnary, "clear");
  clearing->Cancel();
  EXPECT_EQ(clearing->WaitForStatus(), absl::OkStatus());
  EXPECT_LE(calls, 1);  // the second call may have been cancelled before it set its callback
}

TEST(CancellationCallbackTest, RacesWithTheEndOfTheHandler) {
  for (int round = 0; round < 300; ++round) {
    std::atomic<int> calls{0};
    std::atomic<bool> over{false};
    KindsService service([&](ServerContext* context, const StringValue*, StringValue*, ServerStream*) {
      context->SetCancellationCallback([&] {
        EXPECT_FALSE(over);
        ++calls;
      });
      return absl::OkStatus();
    });
    ServerUnderTest server(&service);
    const auto call = server.Call(KindsService::kUnary, "x");
    while (!call->started()) std::this_thread::yield();
    call->Cancel();
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
    over = true;
    EXPECT_LE(calls, 1);
  }
}

TEST(MaxConcurrentCallsTest, RefusesWhatIsBeyondTheLimit) {
  std::atomic<int> running{0};
  Event go;
  KindsService service([&](ServerContext*, const StringValue* request, StringValue*, ServerStream*) {
    ++running;
    if (request != nullptr && request->value() == "wait") go.Wait();
    return absl::OkStatus();
  });
  ServerUnderTest server(&service, [](ServerBuilder* builder) { builder->SetMaxConcurrentCalls(2); });
  const auto first = server.Call(KindsService::kUnary, "wait");
  const auto second = server.Call(KindsService::kServerStreaming, "wait");
  while (running < 2) std::this_thread::yield();
  const auto refused = server.Call(KindsService::kUnary, "x");
  const absl::Status status = refused->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("2 calls"));
  EXPECT_THAT(MessageOf(status), HasSubstr("the option max_concurrent_calls"));
  EXPECT_EQ(running, 2);
  go.Set();
  EXPECT_EQ(first->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(second->WaitForStatus(), absl::OkStatus());
  for (int i = 0; i < 5; ++i) {  // one after the other, each when the one before has ended for its client
    EXPECT_EQ(server.Call(KindsService::kBidi)->WaitForStatus(), absl::OkStatus());
  }
}

TEST(FlowControlTest, IsPassedOnToTheTransport) {
  KindsService service(&Echo);
  FlowControlOptions flow_control;
  flow_control.stream_bytes = 20000;
  flow_control.connection_bytes = 70000;
  ServerUnderTest server(&service, [&](ServerBuilder* builder) { builder->SetFlowControl(flow_control); });
  EXPECT_EQ(server.options().flow_control.stream_bytes, 20000u);
  EXPECT_EQ(server.options().flow_control.connection_bytes, 70000u);
}

}  // namespace
}  // namespace shmrpc
