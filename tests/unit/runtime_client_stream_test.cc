// Synchronous streams of the client, against a server that the test plays.

#include "shmrpc/client_stream.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "runtime/src/client_call_access.h"
#include "shmrpc/stub.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc {
namespace {

using google::protobuf::StringValue;
using testing::FakeCall;
using testing::FakeServer;
using ::testing::HasSubstr;

constexpr const char* kMethod = "/test.Stream/Method";

StringValue Text(const std::string& text) {
  StringValue message;
  message.set_value(text);
  return message;
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

class ClientStreamTest : public ::testing::Test {
 protected:
  ClientReader<StringValue> StartReader(ClientContext* context) {
    const StringValue request = Text("request");
    return ClientReader<StringValue>(
        StartClientStream(channel_, kMethod, MethodKind::kServerStreaming, context, &request, nullptr));
  }
  ClientWriter<StringValue> StartWriter(ClientContext* context) {
    return ClientWriter<StringValue>(
        StartClientStream(channel_, kMethod, MethodKind::kClientStreaming, context, nullptr, &reply_));
  }
  ClientReaderWriter<StringValue, StringValue> StartReaderWriter(ClientContext* context) {
    return ClientReaderWriter<StringValue, StringValue>(
        StartClientStream(channel_, kMethod, MethodKind::kBidiStreaming, context, nullptr, nullptr));
  }

  FakeServer server_;
  std::shared_ptr<Channel> channel_ = server_.NewChannel();
  ClientContext context_;
  StringValue message_;
  StringValue reply_;
};

TEST_F(ClientStreamTest, ReadsUntilTheServerEnds) {
  context_.AddMetadata("key", "value");
  auto reader = StartReader(&context_);
  const auto call = server_.NextCall();
  EXPECT_EQ(call->method, kMethod);
  EXPECT_EQ(call->metadata, (Metadata{{"key", "value"}}));
  EXPECT_FALSE(call->client_streams);
  EXPECT_TRUE(call->server_streams);
  EXPECT_EQ(call->Take(), std::optional<std::string>("request"));
  EXPECT_EQ(call->Take(), std::nullopt);
  call->SendHeaders({{"initial", "1"}});
  call->SendText("a");
  call->SendText("b");
  call->Finish(absl::OkStatus(), {{"trailing", "2"}});
  reader.WaitForInitialMetadata();
  EXPECT_EQ(context_.GetServerInitialMetadata(), (Metadata{{"initial", "1"}}));
  EXPECT_TRUE(reader.Read(&message_));
  EXPECT_EQ(message_.value(), "a");
  EXPECT_TRUE(reader.Read(&message_));
  EXPECT_EQ(message_.value(), "b");
  EXPECT_FALSE(reader.Read(&message_));
  EXPECT_FALSE(reader.Read(&message_));
  EXPECT_EQ(reader.Finish(), absl::OkStatus());
  EXPECT_EQ(reader.Finish(), absl::OkStatus());
  EXPECT_EQ(context_.GetServerTrailingMetadata(), (Metadata{{"trailing", "2"}}));
}

TEST_F(ClientStreamTest, FinishDropsWhatWasNotRead) {
  auto reader = StartReader(nullptr);
  const auto call = server_.NextCall();
  call->SendText("a");
  call->SendText("b");
  call->Finish(absl::NotFoundError("gone"));
  EXPECT_TRUE(reader.Read(&message_));
  EXPECT_EQ(reader.Finish(), absl::NotFoundError("gone"));
  EXPECT_TRUE(call->drops_messages());
  EXPECT_FALSE(reader.Read(&message_));
}

TEST_F(ClientStreamTest, WaitForInitialMetadataEndsWithTheCall) {
  auto reader = StartReader(&context_);
  server_.NextCall()->Finish(absl::AbortedError("no"));
  EXPECT_FALSE(reader.Read(&message_));
  reader.WaitForInitialMetadata();
  EXPECT_EQ(reader.Finish(), absl::AbortedError("no"));
}

TEST_F(ClientStreamTest, WritesAndTakesTheReply) {
  auto writer = StartWriter(&context_);
  const auto call = server_.NextCall();
  EXPECT_TRUE(call->client_streams);
  EXPECT_FALSE(call->server_streams);
  EXPECT_TRUE(writer.Write(Text("a")));
  EXPECT_TRUE(writer.WriteLast(Text("b")));
  EXPECT_FALSE(writer.Write(Text("c")));
  EXPECT_TRUE(writer.WritesDone());
  EXPECT_EQ(call->Take(), std::optional<std::string>("a"));
  EXPECT_EQ(call->Take(), std::optional<std::string>("b"));
  EXPECT_EQ(call->Take(), std::nullopt);
  call->SendText("reply");
  call->Finish(absl::OkStatus());
  EXPECT_EQ(writer.Finish(), absl::OkStatus());
  EXPECT_EQ(reply_.value(), "reply");
}

TEST_F(ClientStreamTest, FinishHalfCloses) {
  auto writer = StartWriter(nullptr);
  const auto call = server_.NextCall();
  EXPECT_TRUE(writer.Write(Text("a")));
  std::thread server([&] {
    EXPECT_EQ(call->Take(), std::optional<std::string>("a"));
    EXPECT_EQ(call->Take(), std::nullopt);
    call->SendText("reply");
    call->Finish(absl::OkStatus());
  });
  EXPECT_EQ(writer.Finish(), absl::OkStatus());
  EXPECT_TRUE(call->half_closed());
  server.join();
}

TEST_F(ClientStreamTest, AReplyIsExactlyOneMessage) {
  for (const int messages : {0, 2}) {
    auto writer = StartWriter(nullptr);
    const auto call = server_.NextCall();
    for (int i = 0; i < messages; ++i) call->SendText("reply");
    call->Finish(absl::OkStatus());
    const absl::Status status = writer.Finish();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(MessageOf(status), HasSubstr(absl::StrCat(messages, " messages")));
  }
}

TEST_F(ClientStreamTest, AUnaryReplyIsExactlyOneMessage) {
  std::atomic<int> messages{0};
  server_.set_on_call([&](const std::shared_ptr<FakeCall>& call) {
    for (int i = 0; i < messages; ++i) call->SendText("reply");
    call->Finish(absl::OkStatus());
  });
  for (messages = 0; messages < 4; ++messages) {
    const absl::Status status = UnaryCall(*channel_, kMethod, nullptr, Text("request"), &reply_);
    absl::Status async_status;
    testing::Outcome outcome;
    AsyncUnaryCall(channel_, kMethod, nullptr, Text("request"), &reply_, outcome.Callback());
    const auto expected = messages == 1 ? absl::StatusCode::kOk : absl::StatusCode::kInternal;
    EXPECT_EQ(status.code(), expected);
    EXPECT_EQ(outcome.Wait().code(), expected);
  }
}

TEST_F(ClientStreamTest, WriteWaitsForTheReceiver) {
  server_.set_window(1);
  auto stream = StartReaderWriter(nullptr);
  const auto call = server_.NextCall();
  constexpr int kMessages = 1000;
  std::thread writer([&] {
    for (int i = 0; i < kMessages; ++i) EXPECT_TRUE(stream.Write(Text(std::to_string(i))));
    EXPECT_TRUE(stream.WritesDone());
  });
  std::thread server([&] {
    while (std::optional<std::string> text = call->Take()) call->SendText(*text);
    call->Finish(absl::OkStatus());
  });
  // At the same time as the other thread writes.
  int read = 0;
  while (stream.Read(&message_)) EXPECT_EQ(message_.value(), std::to_string(read++));
  EXPECT_EQ(read, kMessages);
  writer.join();
  server.join();
  EXPECT_EQ(stream.Finish(), absl::OkStatus());
}

TEST_F(ClientStreamTest, RoomOrTheEndMayComeBeforeWriteKnowsThatItHasToWait) {
  server_.set_window(1);
  for (const bool end : {false, true}) {
    server_.set_on_wait([end](FakeCall& call) {
      if (end) {
        call.Finish(absl::AbortedError("enough"));
      } else {
        EXPECT_TRUE(call.Take().has_value());
      }
      call.WaitForDelivery();
    });
    auto stream = StartReaderWriter(nullptr);
    EXPECT_TRUE(stream.Write(Text("a")));
    EXPECT_EQ(stream.Write(Text("b")), !end);
  }
}

TEST_F(ClientStreamTest, WriteFailsWhenTheServerHasEndedTheCall) {
  server_.set_window(1);
  auto writer = StartWriter(nullptr);
  const auto call = server_.NextCall();
  EXPECT_TRUE(writer.Write(Text("a")));
  std::thread server([&] { call->Finish(absl::ResourceExhaustedError("enough")); });
  EXPECT_FALSE(writer.Write(Text("b")));  // waits for room
  EXPECT_FALSE(writer.Write(Text("c")));
  server.join();
  EXPECT_EQ(writer.Finish(), absl::ResourceExhaustedError("enough"));
}

TEST_F(ClientStreamTest, AMessageThatCannotBeSentEndsTheCall) {
  context_.set_max_send_message_bytes(10);
  auto writer = StartWriter(&context_);
  const auto call = server_.NextCall();
  EXPECT_FALSE(writer.Write(Text("more than ten bytes")));
  EXPECT_EQ(call->WaitForCancel().code(), absl::StatusCode::kResourceExhausted);
  const absl::Status status = writer.Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("the limit is 10"));

  ClientWriter<google::protobuf::UninterpretedOption::NamePart> incomplete(
      StartClientStream(channel_, kMethod, MethodKind::kClientStreaming, nullptr, nullptr, &reply_));
  EXPECT_FALSE(incomplete.Write({}));
  EXPECT_EQ(incomplete.Finish().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientStreamTest, AMessageThatDoesNotParseEndsTheCall) {
  auto reader = StartReader(nullptr);
  const auto call = server_.NextCall();
  call->SendText("good");
  call->SendBytes("\n");
  call->SendText("good");
  EXPECT_TRUE(reader.Read(&message_));
  EXPECT_FALSE(reader.Read(&message_));
  EXPECT_FALSE(reader.Read(&message_));
  EXPECT_EQ(call->WaitForCancel().code(), absl::StatusCode::kInternal);
  const absl::Status status = reader.Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("google.protobuf.StringValue"));
}

TEST_F(ClientStreamTest, TheDeadlineEndsReadWriteAndFinish) {
  server_.set_window(0);
  for (const int operation : {0, 1, 2, 3}) {
    ClientContext context;
    context.set_timeout(absl::Milliseconds(300));  // the call has to begin before that
    auto stream = StartReaderWriter(&context);
    const auto call = server_.NextCall();
    EXPECT_EQ(call->deadline, ClientCallAccess::deadline(context));
    switch (operation) {
      case 0:
        EXPECT_FALSE(stream.Read(&message_));
        break;
      case 1:
        EXPECT_FALSE(stream.Write(Text("a")));
        break;
      case 2:
        stream.WaitForInitialMetadata();
        break;
      default:
        break;  // only Finish
    }
    EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(call->WaitForCancel().code(), absl::StatusCode::kDeadlineExceeded);
  }
}

TEST_F(ClientStreamTest, ADeadlineThatPassedBetweenOperationsIsNoticed) {
  for (const bool read : {true, false}) {
    ClientContext context;
    context.set_timeout(absl::Milliseconds(300));  // the call has to begin before that
    auto stream = StartReaderWriter(&context);
    const auto call = server_.NextCall();
    call->SendText("there");
    while (absl::Now() <= context.deadline()) absl::SleepFor(absl::Milliseconds(1));
    EXPECT_FALSE(read ? stream.Read(&message_) : stream.Write(Text("a")));
    EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kDeadlineExceeded);
  }
}

TEST_F(ClientStreamTest, TryCancelEndsAWaitingReadAndWrite) {
  server_.set_window(0);
  auto stream = StartReaderWriter(&context_);
  const auto call = server_.NextCall();
  std::thread writer([&] { EXPECT_FALSE(stream.Write(Text("a"))); });
  std::thread canceller([&] { context_.TryCancel(); });
  EXPECT_FALSE(stream.Read(&message_));
  writer.join();
  canceller.join();
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(call->WaitForCancel().code(), absl::StatusCode::kCancelled);
  context_.TryCancel();
}

TEST_F(ClientStreamTest, DestroyingAnUnfinishedStreamCancels) {
  std::shared_ptr<FakeCall> call;
  {
    ClientContext context;
    auto stream = StartReaderWriter(&context);
    call = server_.NextCall();
    call->SendText("never read");
    channel_.reset();  // the stream keeps it
    EXPECT_TRUE(stream.Write(Text("a")));
  }
  EXPECT_EQ(call->WaitForCancel().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientStreamTest, AStreamThatCannotBeStartedIsOver) {
  ClientContext passed;
  passed.set_deadline(absl::UnixEpoch());
  {
    auto stream = StartReaderWriter(&passed);
    stream.WaitForInitialMetadata();
    EXPECT_FALSE(stream.Read(&message_));
    EXPECT_FALSE(stream.Write(Text("a")));
    EXPECT_FALSE(stream.WritesDone());
    EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kDeadlineExceeded);
  }
  {
    auto used = StartReaderWriter(&passed);
    EXPECT_EQ(used.Finish().code(), absl::StatusCode::kFailedPrecondition);
  }
  server_.set_refuses(true);
  channel_ = server_.NewChannel();
  auto refused = StartReader(nullptr);
  EXPECT_FALSE(refused.Read(&message_));
  EXPECT_EQ(refused.Finish().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientStreamTest, WaitForReadyWaitsForTheServer) {
  server_.set_refuses(true);
  ChannelOptions options;
  options.initial_backoff = absl::Milliseconds(1);
  channel_ = server_.NewChannel(options);
  context_.set_wait_for_ready(true);
  std::thread server([&] {
    server_.set_refuses(false);
    server_.NextCall()->Finish(absl::OkStatus());
  });
  auto reader = StartReader(&context_);
  EXPECT_EQ(reader.Finish(), absl::OkStatus());
  server.join();
}

TEST_F(ClientStreamTest, TheContextOfAnotherCallIsLeftAlone) {
  auto first = StartReaderWriter(&context_);
  const auto call = server_.NextCall();
  EXPECT_EQ(StartReaderWriter(&context_).Finish().code(), absl::StatusCode::kFailedPrecondition);
  call->Finish(absl::OkStatus(), {{"trailing", "1"}});
  EXPECT_EQ(first.Finish(), absl::OkStatus());
  EXPECT_EQ(StartReaderWriter(&context_).Finish().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(context_.GetServerTrailingMetadata(), (Metadata{{"trailing", "1"}}));
}

TEST_F(ClientStreamTest, CancelDeadlineStatusAndMessagesRace) {
  server_.set_window(2);
  std::shared_ptr<FakeCall> call;
  server_.set_on_call([&](const std::shared_ptr<FakeCall>& new_call) { call = new_call; });
  for (int round = 0; round < 300; ++round) {
    ClientContext context;
    if (round % 3 == 0) context.set_timeout(absl::Microseconds(200 + round));
    call = nullptr;
    auto stream = StartReaderWriter(&context);
    std::thread server([&] {
      if (call == nullptr) return;  // the deadline was earlier
      for (int i = 0; i < 3; ++i) call->SendText("reply");
      while (call->Take().has_value()) {
      }
      call->Finish(absl::OkStatus());
    });
    std::thread writer([&] {
      while (stream.Write(Text("a"))) {
      }
    });
    std::thread canceller([&] {
      for (int spin = 0; spin < round * 40; ++spin) std::atomic_signal_fence(std::memory_order_seq_cst);
      if (round % 2 == 0 || round % 3 != 0) context.TryCancel();
    });
    int read = 0;
    while (stream.Read(&message_)) ++read;
    writer.join();
    EXPECT_LE(read, 3);
    const absl::Status status = stream.Finish();
    EXPECT_TRUE(absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) << status;
    server.join();
    canceller.join();
  }
}

TEST_F(ClientStreamTest, CancelAndStatusRace) {
  int cancelled = 0;
  for (int round = 0; round < 1000; ++round) {
    ClientContext context;
    auto stream = StartReaderWriter(&context);
    const auto call = server_.NextCall();
    std::thread canceller([&] { context.TryCancel(); });
    call->Finish(absl::OkStatus());
    const absl::Status status = stream.Finish();
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
    cancelled += !status.ok();
    canceller.join();
  }
  RecordProperty("cancelled", cancelled);
}

}  // namespace
}  // namespace shmrpc
