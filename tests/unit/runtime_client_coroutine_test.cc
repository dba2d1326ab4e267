// Calls of coroutines, against a server that the test plays.

#include "shmrpc/client_coroutine.h"

#include <dirent.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/task.h"
#include "shmrpc/wait.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc {
namespace {

using google::protobuf::StringValue;
using testing::Event;
using testing::FakeCall;
using testing::FakeServer;

constexpr const char* kMethod = "/test.Stream/Method";

StringValue Text(const std::string& text) {
  StringValue message;
  message.set_value(text);
  return message;
}

int ThreadCount() {
  DIR* const directory = opendir("/proc/self/task");
  int count = -2;  // "." and ".."
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

class ClientCoroutineTest : public ::testing::Test {
 protected:
  using Reader = CoClientReader<StringValue>;
  using Writer = CoClientWriter<StringValue, StringValue>;
  using ReaderWriter = CoClientReaderWriter<StringValue, StringValue>;

  CoUnaryCall<StringValue> Unary(ClientContext* context, const StringValue& request) {
    return CoUnaryCall<StringValue>(channel_, kMethod, context, request);
  }

  void EchoUnary() {
    server_.set_on_call([](const std::shared_ptr<FakeCall>& call) {
      call->SendText(*call->Take());
      call->Finish(absl::OkStatus());
    });
  }

  FakeServer server_;
  std::shared_ptr<Channel> channel_ = server_.NewConnectedChannel();
  ClientContext context_;
};

TEST_F(ClientCoroutineTest, UnaryCall) {
  EchoUnary();
  const auto run = [&]() -> Task<absl::StatusOr<StringValue>> {
    absl::StatusOr<StringValue> first = co_await Unary(nullptr, Text("hello"));
    if (!first.ok()) co_return first;
    co_return co_await Unary(&context_, Text(first->value() + " again"));
  };
  const absl::StatusOr<StringValue> reply = SyncWait(run());
  ASSERT_EQ(reply.status(), absl::OkStatus());
  EXPECT_EQ(reply->value(), "hello again");
}

TEST_F(ClientCoroutineTest, UnaryCallThatWaitsForAConnection) {
  EchoUnary();
  channel_ = server_.NewChannel();
  const auto run = [&]() -> Task<absl::StatusOr<StringValue>> { co_return co_await Unary(nullptr, Text("hello")); };
  EXPECT_EQ(SyncWait(run())->value(), "hello");
}

TEST_F(ClientCoroutineTest, CallsThatFailAtOnceDoNotGrowTheStack) {
  const auto run = [&]() -> Task<int> {
    int failures = 0;
    for (int i = 0; i < 100000; ++i) {
      ClientContext context;
      context.set_deadline(absl::UnixEpoch());
      const absl::StatusOr<StringValue> reply = co_await Unary(&context, Text("x"));
      failures += absl::IsDeadlineExceeded(reply.status());
    }
    co_return failures;
  };
  EXPECT_EQ(SyncWait(run()), 100000);
}

TEST_F(ClientCoroutineTest, ThousandsOfCallsInFlightNeedNoThreads) {
  constexpr int kCalls = 10000;
  std::atomic<int> over{0};
  Event all_over;
  const auto run = [&](int i) -> Task<void> {
    const absl::StatusOr<StringValue> reply = co_await Unary(nullptr, Text(std::to_string(i)));
    EXPECT_EQ(reply.status(), absl::OkStatus());
    EXPECT_EQ(reply.value_or(StringValue()).value(), std::to_string(i));
    if (++over == kCalls) all_over.Set();
  };
  const int threads = ThreadCount();
  for (int i = 0; i < kCalls; ++i) Spawn(run(i));
  EXPECT_EQ(over, 0);
  EXPECT_LE(ThreadCount(), threads + 4);
  for (int i = 0; i < kCalls; ++i) {
    const auto call = server_.NextCall();
    call->SendText(*call->Take());
    call->Finish(absl::OkStatus());
  }
  EXPECT_TRUE(all_over.Wait());
}

TEST_F(ClientCoroutineTest, ReadsUntilTheServerEnds) {
  for (const bool connected : {true, false}) {
    if (!connected) channel_ = server_.NewChannel();
    ClientContext context;
    std::string texts;
    const auto run = [&]() -> Task<absl::Status> {
      Reader reader(channel_, kMethod, &context, Text("request"));
      while (std::optional<StringValue> message = co_await reader.Read()) texts += message->value();
      EXPECT_EQ(context.GetServerInitialMetadata(), (Metadata{{"initial", "1"}}));
      co_return co_await reader.Finish();
    };
    std::thread server([&] {
      const auto call = server_.NextCall();
      EXPECT_EQ(call->Take(), std::optional<std::string>("request"));
      call->SendHeaders({{"initial", "1"}});
      call->SendText("a");
      call->SendText("b");
      call->Finish(absl::NotFoundError("no more"), {{"trailing", "2"}});
    });
    EXPECT_EQ(SyncWait(run()), absl::NotFoundError("no more"));
    EXPECT_EQ(texts, "ab");
    EXPECT_EQ(context.GetServerTrailingMetadata(), (Metadata{{"trailing", "2"}}));
    server.join();
  }
}

TEST_F(ClientCoroutineTest, FinishDropsWhatWasNotRead) {
  for (const bool connected : {true, false}) {
    if (!connected) channel_ = server_.NewChannel();
    const auto run = [&]() -> Task<absl::Status> {
      Reader reader(channel_, kMethod, nullptr, Text("request"));
      co_return co_await reader.Finish();
    };
    std::thread server([&] {
      const auto call = server_.NextCall();
      call->SendText("a");
      call->Finish(absl::OkStatus());
    });
    EXPECT_EQ(SyncWait(run()), absl::OkStatus());
    server.join();
  }
}

TEST_F(ClientCoroutineTest, WritesAndTakesTheReply) {
  server_.set_window(1);
  for (const bool connected : {true, false}) {
    if (!connected) channel_ = server_.NewChannel();
    const auto run = [&](bool say_done) -> Task<absl::StatusOr<StringValue>> {
      Writer writer(channel_, kMethod, nullptr);
      for (int i = 0; i < 100; ++i) EXPECT_TRUE(co_await writer.Write(Text(std::to_string(i))));
      if (say_done) {
        EXPECT_TRUE(co_await writer.WritesDone());
      }
      Writer moved = std::move(writer);
      co_return co_await moved.Finish();
    };
    std::thread server([&] {
      for (int n = 0; n < 2; ++n) {
        const auto call = server_.NextCall();
        int taken = 0;
        while (std::optional<std::string> text = call->Take()) EXPECT_EQ(*text, std::to_string(taken++));
        EXPECT_EQ(taken, 100);
        call->SendText("reply");
        call->Finish(absl::OkStatus());
      }
    });
    for (const bool say_done : {true, false}) {
      const absl::StatusOr<StringValue> reply = SyncWait(run(say_done));
      ASSERT_EQ(reply.status(), absl::OkStatus());
      EXPECT_EQ(reply->value(), "reply");
    }
    server.join();
  }
}

TEST_F(ClientCoroutineTest, WriteFailsWhenTheServerHasEndedTheCall) {
  server_.set_window(1);
  const auto run = [&]() -> Task<absl::Status> {
    Writer writer(channel_, kMethod, nullptr);
    int written = 0;
    while (co_await writer.Write(Text("a"))) ++written;
    EXPECT_LE(written, 1);
    EXPECT_FALSE(co_await writer.WriteLast(Text("a")));
    EXPECT_FALSE(co_await writer.WritesDone());
    const absl::StatusOr<StringValue> reply = co_await writer.Finish();
    co_return reply.status();
  };
  std::thread server([&] { server_.NextCall()->Finish(absl::AbortedError("enough")); });
  EXPECT_EQ(SyncWait(run()), absl::AbortedError("enough"));
  server.join();
}

TEST_F(ClientCoroutineTest, TwoCoroutinesShareTheDirections) {
  server_.set_window(1);
  constexpr int kMessages = 2000;
  ReaderWriter stream(channel_, kMethod, &context_);
  Event written;
  const auto write = [&]() -> Task<void> {
    for (int i = 0; i < kMessages; ++i) {
      if (i % 2 == 0) co_await Sleep(absl::Microseconds(i % 20));
      EXPECT_TRUE(co_await stream.Write(Text(std::to_string(i))));
    }
    EXPECT_TRUE(co_await stream.WritesDone());
    written.Set();
  };
  const auto read = [&]() -> Task<int> {
    int count = 0;
    while (std::optional<StringValue> message = co_await stream.Read()) {
      EXPECT_EQ(message->value(), std::to_string(count++));
    }
    co_return count;
  };
  const auto call = server_.NextCall();
  std::thread server([&] {
    while (std::optional<std::string> text = call->Take()) call->SendText(*text);
    call->Finish(absl::OkStatus());
  });
  Spawn(write());
  EXPECT_EQ(SyncWait(read()), kMessages);
  EXPECT_TRUE(written.Wait());
  const auto finish = [&]() -> Task<absl::Status> { co_return co_await stream.Finish(); };
  EXPECT_EQ(SyncWait(finish()), absl::OkStatus());
  server.join();
}

TEST_F(ClientCoroutineTest, DestroyingAnUnfinishedStreamCancels) {
  for (const bool connected : {true, false}) {
    if (!connected) {
      server_.set_refuses(true);
      channel_ = server_.NewChannel();
    }
    const auto run = [&]() -> Task<void> {
      ClientContext context;
      context.AddMetadata("key", "value");
      context.set_wait_for_ready(true);
      // Gone before the context; the reply of the call and its end may still come.
      Writer writer(channel_, kMethod, &context);
      if (connected) {
        EXPECT_TRUE(co_await writer.Write(Text("a")));
      }
    };
    SyncWait(run());
    if (connected) {
      EXPECT_EQ(server_.NextCall()->WaitForCancel().code(), absl::StatusCode::kCancelled);
    }
  }
}

TEST_F(ClientCoroutineTest, DestructionRacesWithConnectionAndStatus) {
  for (int round = 0; round < 300; ++round) {
    if (round % 2 == 0) channel_ = server_.NewChannel();
    auto context = std::make_unique<ClientContext>();
    context->AddMetadata("key", "value");
    auto stream = std::make_unique<ReaderWriter>(channel_, kMethod, context.get());
    std::thread server;
    if (round % 2 == 1) {
      server = std::thread([call = server_.NextCall()] {
        call->SendHeaders({{"initial", "1"}});
        call->Finish(absl::OkStatus(), {{"trailing", "2"}});
      });
    }
    for (int spin = 0; spin < round * 100; ++spin) std::atomic_signal_fence(std::memory_order_seq_cst);
    stream.reset();
    context.reset();
    if (server.joinable()) server.join();
  }
}

TEST_F(ClientCoroutineTest, TryCancelAndTheDeadlineEndWhatIsAwaited) {
  const auto run = [&](ClientContext* context) -> Task<absl::Status> {
    ReaderWriter stream(channel_, kMethod, context);
    EXPECT_EQ(co_await stream.Read(), std::nullopt);
    EXPECT_FALSE(co_await stream.Write(Text("a")));
    co_return co_await stream.Finish();
  };
  std::thread canceller([&] {
    server_.NextCall();
    context_.TryCancel();
  });
  EXPECT_EQ(SyncWait(run(&context_)).code(), absl::StatusCode::kCancelled);
  canceller.join();
  ClientContext context;
  context.set_timeout(absl::Milliseconds(20));
  EXPECT_EQ(SyncWait(run(&context)).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientCoroutineTest, BadMessagesEndTheCall) {
  context_.set_max_send_message_bytes(3);
  const auto write = [&]() -> Task<absl::Status> {
    ReaderWriter stream(channel_, kMethod, &context_);
    EXPECT_FALSE(co_await stream.Write(Text("too long")));
    co_return co_await stream.Finish();
  };
  EXPECT_EQ(SyncWait(write()).code(), absl::StatusCode::kResourceExhausted);
  server_.NextCall();
  std::thread server([&] { server_.NextCall()->SendBytes("\n"); });
  const auto read = [&]() -> Task<absl::Status> {
    Reader reader(channel_, kMethod, nullptr, Text("request"));
    EXPECT_FALSE((co_await reader.Read()).has_value());
    co_return co_await reader.Finish();
  };
  EXPECT_EQ(SyncWait(read()).code(), absl::StatusCode::kInternal);
  server.join();
}

}  // namespace
}  // namespace shmrpc
