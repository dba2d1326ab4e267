// Handlers in the callback style: their messages.

#include "shmrpc/server_reactor.h"

#include <atomic>
#include <stdexcept>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/runtime_fake_server_call.h"
#include "tests/unit/runtime_test_reactors.h"

namespace shmrpc {
namespace {

using testing::AllKinds;
using testing::EchoReactor;
using ::testing::ElementsAre;
using testing::FakeServerCall;
using testing::Foreign;
using testing::ForeignService;
using ::testing::HasSubstr;
using testing::KindsService;
using testing::Log;
using testing::Logged;
using testing::Reaction;
using testing::ServerUnderTest;
using testing::StringValue;
using testing::Text;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(ServerReactorTest, RunsAllKindsWithTheRequestAtOnce) {
  Log logs[4];
  Log* log = logs;
  KindsService service([&](ServerContext* context, const StringValue* request, StringValue* reply) {
    return AllKinds(log)(context, request, reply);
  });
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
    if (method != KindsService::kUnary) {
      EXPECT_TRUE(log->done.Wait());
    }
    ++log;
  }
}

TEST(ServerReactorTest, RunsAllKindsWithMessagesThatComeLater) {
  Log logs[4];
  Log* log = logs;
  KindsService service([&](ServerContext* context, const StringValue* request, StringValue* reply) {
    return AllKinds(log)(context, request, reply);
  });
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
    if (method != KindsService::kUnary) {
      EXPECT_TRUE(log->done.Wait());
    }
    ++log;
  }
}

TEST(ServerReactorTest, AMethodWithOneRequestTakesExactlyOne) {
  std::atomic<int> handled{0};
  KindsService service([&](ServerContext* context, const StringValue*, StringValue*) -> ServerReactor* {
    ++handled;
    return nullptr;
  });
  ServerUnderTest server(&service);
  for (bool done_inside_finish : {false, true}) {
    FakeServerCall::Options options;
    options.method = KindsService::kUnary;
    options.done_inside_finish = done_inside_finish;
    const auto none = server.Call(options);
    none->HalfClose();
    EXPECT_THAT(MessageOf(none->WaitForStatus()), HasSubstr("without a request"));
    const auto two = server.Call(options);
    two->Send("a");
    two->Send("b");
    EXPECT_THAT(MessageOf(two->WaitForStatus()), HasSubstr("second request"));
    const auto garbled = server.Call(options);
    garbled->SendBytes("\xff");
    EXPECT_EQ(garbled->WaitForStatus().code(), absl::StatusCode::kInternal);
    const auto cancelled = server.Call(options);
    cancelled->WaitForReceive();
    cancelled->Cancel();
    EXPECT_EQ(cancelled->WaitForStatus().code(), absl::StatusCode::kCancelled);
    options.deadline = SteadyTime::Now() + absl::Milliseconds(20);
    EXPECT_EQ(server.Call(options)->WaitForStatus().code(), absl::StatusCode::kDeadlineExceeded);
    options.request = "\xff";
    options.deadline = SteadyTime::InfiniteFuture();
    EXPECT_EQ(server.Call(options)->WaitForStatus().code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(handled, 0);
  EXPECT_THAT(MessageOf(server.Call(KindsService::kUnary, "x")->WaitForStatus()), HasSubstr("no reactor"));
}

TEST(ServerReactorTest, WritesWaitForCredit) {
  Log log;
  KindsService service(AllKinds(&log));
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
  call->Grant(1);
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  EXPECT_THAT(call->sent(), ElementsAre("a", "b", "c", "d"));
  EXPECT_TRUE(log.done.Wait());
}

TEST(ServerReactorTest, AnotherThreadMayHoldALockThatReactionsTake) {
  for (bool done_inside_finish : {false, true}) {
    Log log;
    ForeignService foreign(&log);
    ServerUnderTest server(&foreign.service);
    FakeServerCall::Options options;
    options.method = KindsService::kBidi;
    options.done_inside_finish = done_inside_finish;
    const auto call = server.Call(options);
    Foreign* const reactor = foreign.WaitForReactor();
    const StringValue message = Text("x");
    StringValue read;
    {
      MutexLock lock(&reactor->mutex);
      reactor->StartWrite(&message);
      reactor->StartRead(&read);
    }
    EXPECT_TRUE(reactor->write_done.Wait());
    EXPECT_TRUE(reactor->write_ok);
    call->HalfClose();
    EXPECT_TRUE(reactor->read_done.Wait());
    reactor->Finish(absl::OkStatus());
    EXPECT_TRUE(log.done.Wait());
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
    EXPECT_THAT(call->sent(), ElementsAre("x"));
  }
}

class Throwing final : public Logged<ServerReadReactor<StringValue>> {
 public:
  explicit Throwing(Log* log) : Logged(log) { StartRead(&message_); }
  void OnReadDone(bool ok) override { throw std::runtime_error("out of cheese"); }

 private:
  StringValue message_;
};

TEST(ServerReactorTest, ExceptionsBecomeUnknown) {
  Log log;
  KindsService service([&](ServerContext*, const StringValue* request, StringValue*) -> ServerReactor* {
    if (request != nullptr) throw std::runtime_error("out of cheese");
    return new Throwing(&log);
  });
  ServerUnderTest server(&service);
  const auto in_handler = server.Call(KindsService::kUnary, "x");
  EXPECT_THAT(MessageOf(in_handler->WaitForStatus()), HasSubstr("the handler of /test.Kinds/Unary threw: out of"));
  const auto in_reaction = server.Call(KindsService::kClientStreaming);
  in_reaction->HalfClose();
  const absl::Status status = in_reaction->WaitForStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(MessageOf(status), HasSubstr("out of cheese"));
  EXPECT_TRUE(log.done.Wait());
}

TEST(ServerReactorTest, MessagesThatCannotBeAcceptedEndTheCall) {
  Log log;
  KindsService service([&](ServerContext*, const StringValue*, StringValue*) { return new EchoReactor(&log); });
  ServerUnderTest server(&service, [](ServerBuilder* builder) { builder->SetMaxSendMessageBytes(10); });
  const auto garbled = server.Call(KindsService::kBidi);
  garbled->SendBytes("\xff");
  EXPECT_EQ(garbled->WaitForStatus().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(log.done.Wait());
  Log another;
  KindsService large_service(
      [&](ServerContext*, const StringValue*, StringValue*) { return new EchoReactor(&another); });
  ServerUnderTest large_server(&large_service, [](ServerBuilder* builder) { builder->SetMaxSendMessageBytes(10); });
  const auto large = large_server.Call(KindsService::kBidi);
  large->Send("123456789");
  EXPECT_THAT(MessageOf(large->WaitForStatus()), HasSubstr("has 11 bytes, the server's limit is 10"));
  EXPECT_TRUE(another.done.Wait());
}

class Headers final : public Logged<ServerWriteReactor<StringValue>> {
 public:
  explicit Headers(Log* log) : Logged(log) { StartSendInitialMetadata(); }
  void OnSendInitialMetadataDone(bool ok) override {
    Reaction reaction(log());
    EXPECT_TRUE(ok);
    StartWriteAndFinish(&message_, absl::OkStatus());
  }

 private:
  const StringValue message_ = Text("x");
};

TEST(ServerReactorTest, SendsInitialMetadata) {
  Log log;
  KindsService service([&](ServerContext* context, const StringValue*, StringValue*) -> ServerReactor* {
    context->AddInitialMetadata("key", "value");
    return new Headers(&log);
  });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kServerStreaming, "x");
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  EXPECT_EQ(call->headers(), Metadata({{"key", "value"}}));
  EXPECT_THAT(call->sent(), ElementsAre("x"));
  EXPECT_TRUE(log.done.Wait());
}

}  // namespace
}  // namespace shmrpc
