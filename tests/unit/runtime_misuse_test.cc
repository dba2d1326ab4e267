// Mistakes of a program that would otherwise be hangs, or worse: a library that was built without NDEBUG aborts, any
// other says so and ends the call.

#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_reactor.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/generated.h"
#include "shmrpc/server_reactor.h"
#include "shmrpc/task.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_fake_server_call.h"
#include "tests/unit/runtime_sync.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc {
namespace {

using testing::Event;
using testing::FakeServer;
using testing::FakeServerCall;
using ::testing::HasSubstr;
using testing::KindsService;
using testing::Outcome;
using testing::ServerUnderTest;
using testing::StringValue;
using testing::TestService;
using testing::Text;

constexpr const char* kMethod = "/test.Stream/Method";

// `statement` is a mistake. What the library does then is checked by `expectations`, unless it aborts.
#ifdef NDEBUG
#define EXPECT_MISUSE(text, statement, expectations) \
  do {                                               \
    statement;                                       \
    expectations;                                    \
  } while (false)
#else
#define EXPECT_MISUSE(text, statement, expectations) EXPECT_DEATH(statement, text)
#endif

class MisuseTest : public ::testing::Test {
 protected:
  MisuseTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

void ExpectMisuse(const absl::Status& status, const std::string& text) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

class Reactor final : public ClientBidiReactor<StringValue, StringValue> {
 public:
  explicit Reactor(FakeServer& server) : channel_(server.NewConnectedChannel()) {
    PrepareClientReactor(channel_, kMethod, MethodKind::kBidiStreaming, &context_, nullptr, nullptr, this);
    StartCall();
  }
  void OnDone(const absl::Status& status) override { outcome_.Set(status); }
  absl::Status Wait() { return outcome_.Wait(); }
  StringValue message_;

 private:
  const std::shared_ptr<Channel> channel_;
  ClientContext context_;
  Outcome outcome_;
};

TEST_F(MisuseTest, ASecondReadOfAReactorEndsTheCall) {
  EXPECT_MISUSE("StartRead",
                {
                  FakeServer server;
                  Reactor reactor(server);
                  reactor.StartRead(&reactor.message_);
                  reactor.StartRead(&reactor.message_);
                  ExpectMisuse(reactor.Wait(), "StartRead in a call of /test.Stream/Method");
                },
                {});
}

TEST_F(MisuseTest, ASecondWriteOfAReactorEndsTheCall) {
  EXPECT_MISUSE("StartWrite",
                {
                  FakeServer server;
                  server.set_window(0);
                  Reactor reactor(server);
                  reactor.StartWrite(&reactor.message_);
                  reactor.StartWrite(&reactor.message_);
                  ExpectMisuse(reactor.Wait(), "StartWrite in a call of /test.Stream/Method");
                },
                {});
}

class UnboundReactor final : public ClientReadReactor<StringValue> {
 public:
  void OnDone(const absl::Status&) override {}
};

TEST_F(MisuseTest, AReactorThatNoStubHasSeenStartsNothing) {
  EXPECT_MISUSE("no call yet",
                {
                  UnboundReactor reactor;
                  StringValue message;
                  reactor.StartRead(&message);
                  reactor.StartCall();
                  reactor.RemoveHold();
                },
                {});
}

TEST_F(MisuseTest, ASecondReadOfACoroutineStreamEndsTheCall) {
  EXPECT_MISUSE("Read in a call",
                {
                  FakeServer server;
                  const std::shared_ptr<Channel> channel = server.NewConnectedChannel();
                  CoClientReader<StringValue> reader(channel, kMethod, nullptr, Text("x"));
                  const auto read = [&]() -> Task<bool> { co_return (co_await reader.Read()).has_value(); };
                  const auto finish = [&](Spawned<bool> first) -> Task<absl::Status> {
                    EXPECT_FALSE(co_await read());
                    EXPECT_FALSE(co_await first);
                    co_return co_await reader.Finish();
                  };
                  ExpectMisuse(SyncWait(finish(Spawn(read()))), "Read in a call of /test.Stream/Method");
                },
                {});
}

TEST_F(MisuseTest, AContextThatIsDestroyedTooEarlyEndsItsAsynchronousCall) {
  EXPECT_MISUSE("ClientContext was destroyed",
                {
                  FakeServer server;
                  const std::shared_ptr<Channel> channel = server.NewConnectedChannel();
                  StringValue reply;
                  Outcome outcome;
                  {
                    ClientContext context;
                    AsyncUnaryCall(channel, kMethod, &context, Text("x"), &reply, outcome.Callback());
                  }
                  ExpectMisuse(outcome.Wait(), "its call of /test.Stream/Method is in progress");
                },
                {});
}

TEST_F(MisuseTest, AContextThatIsDestroyedTooEarlyEndsItsStream) {
  EXPECT_MISUSE("ClientContext was destroyed",
                {
                  FakeServer server;
                  const std::shared_ptr<Channel> channel = server.NewConnectedChannel();
                  auto context = std::make_unique<ClientContext>();
                  const StringValue request = Text("x");
                  ClientReader<StringValue> reader(StartClientStream(channel, kMethod, MethodKind::kServerStreaming,
                                                                     context.get(), &request, nullptr));
                  context = nullptr;
                  StringValue message;
                  EXPECT_FALSE(reader.Read(&message));
                  ExpectMisuse(reader.Finish(), "its call of /test.Stream/Method is in progress");
                },
                {});
}

TEST_F(MisuseTest, AStubOfANullChannelFails) {
  EXPECT_MISUSE("null channel",
                {
                  StringValue reply;
                  ExpectMisuse(UnaryCall(*internal::NotNull(nullptr), kMethod, nullptr, Text("x"), &reply),
                               "null channel");
                },
                {});
}

class TwiceReadingReactor final : public ServerReadReactor<StringValue> {
 public:
  explicit TwiceReadingReactor(Event* done) : done_(done) {}
  void Begin() {
    StartRead(&message_);
    StartRead(&message_);
  }
  void OnDone() override {
    Event* const done = done_;
    delete this;
    done->Set();
  }

 private:
  Event* const done_;
  StringValue message_;
};

TEST_F(MisuseTest, ASecondReadOfAServersReactorEndsTheCall) {
  EXPECT_MISUSE("read was started",
                {
                  Event done;
                  KindsService service([&](ServerContext*, const StringValue*, StringValue*) -> ServerReactor* {
                    auto* const reactor = new TwiceReadingReactor(&done);
                    reactor->Begin();
                    return reactor;
                  });
                  ServerUnderTest server(&service);
                  const auto call = server.Call(KindsService::kClientStreaming);
                  EXPECT_EQ(call->WaitForStatus().code(), absl::StatusCode::kInternal);
                  EXPECT_TRUE(done.Wait());
                },
                {});
}

// A server whose handler does something to it.
struct OwnServer {
  explicit OwnServer(std::function<void(OwnServer*)> handle)
      : service([this, handle = std::move(handle)](ServerContext*, const StringValue&, StringValue*) {
          handle(this);
          return absl::OkStatus();
        }),
        server(ServerBuilder().Listen("inproc:misuse").Register(&service).Start().value()) {}
  absl::Status Call() {
    StringValue reply;
    return UnaryCall(*Channel::Create("inproc:misuse"), TestService::kEcho, nullptr, Text("x"), &reply);
  }
  TestService service;
  std::unique_ptr<Server> server;
};

TEST_F(MisuseTest, ShutdownInAnOwnHandlerReturns) {
  EXPECT_MISUSE("has called Shutdown",
                {
                  OwnServer own([](OwnServer* self) {
                    self->server->Shutdown(absl::InfiniteFuture());
                    self->server->Wait();
                  });
                  EXPECT_EQ(own.Call(), absl::OkStatus());
                  own.server->Wait();
                },
                {});
}

TEST_F(MisuseTest, AServerThatIsDestroyedInAnOwnHandlerEndsTheProgram) {
  EXPECT_DEATH(
      {
        OwnServer own([](OwnServer* self) { self->server = nullptr; });
        own.Call().IgnoreError();
      },
      "a handler of /test.Echo/Echo has destroyed the server");
}

}  // namespace
}  // namespace shmrpc
