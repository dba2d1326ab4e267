// Handlers that throw, and handlers that never end: neither takes the server with it.

#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "case_selection.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

class LastingHandlerTest : public ConformanceStreamTest {};

// The drain has a limit: then the calls end, though their handlers take no notice, and so does what the server offers.
// Only Shutdown itself has to wait for the handlers, whose objects the server's owner is about to destroy.
TEST_P(LastingHandlerTest, ADrainEndsTheCallsOfAHandlerThatTakesNoNotice) {
  StartServer();
  const auto channel = NewChannel();
  constexpr int kCalls = 4;
  EchoRequest request;
  request.set_hold(true);
  request.set_hold_regardless(true);
  std::vector<ClientContext> contexts(kCalls);
  std::vector<EchoReply> replies(kCalls);
  std::vector<absl::Status> statuses(1 + kCalls);
  Counter ended;
  std::thread caller([&] {
    statuses[0] = Echo::Stub(channel).Echo(request).status();
    ended.Increment();
  });
  Echo::Stub stub(channel);
  for (int i = 0; i < kCalls; ++i) {
    stub.async().Echo(&contexts[i], &request, &replies[i], [&, i](absl::Status status) {
      statuses[1 + i] = std::move(status);
      ended.Increment();
    });
  }
  ASSERT_TRUE(service_.held().WaitFor(1 + kCalls));
  Event shut_down;
  std::thread shutdown([&] {
    server_->Shutdown(absl::Now() + absl::Milliseconds(100));
    shut_down.Set();
  });
  EXPECT_TRUE(ended.WaitFor(1 + kCalls));
  EXPECT_FALSE(shut_down.IsSet());
  const absl::Status late = Echo::Stub(NewChannel()).Echo(EchoRequest()).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable) << late;
  service_.Release();
  caller.join();
  for (const absl::Status& status : statuses) {
    EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled)) << status;
  }
  EXPECT_TRUE(shut_down.Wait());
  shutdown.join();
}

// One that neither reads, writes nor finishes, until it is let go.
class Idle final : public ServerBidiReactor<Item, Item> {
 public:
  Idle(Event* cancelled, Counter* over) : cancelled_(cancelled), over_(over) {}
  void OnCancel() override { cancelled_->Set(); }
  void OnDone() override {
    over_->Increment();
    delete this;
  }

 private:
  Event* const cancelled_;
  Counter* const over_;
};

class IdleStreams final : public Streams::CallbackService {
 public:
  ServerBidiReactor<Item, Item>* Chat(ServerContext*) override {
    auto* const reactor = new Idle(&cancelled_, &over_);
    MutexLock lock(&mutex_);
    reactors_.push_back(reactor);
    begun_.Increment();
    return reactor;
  }
  void FinishAll() {
    std::vector<Idle*> reactors;
    {
      MutexLock lock(&mutex_);
      reactors.swap(reactors_);
    }
    for (Idle* const reactor : reactors) reactor->Finish(absl::OkStatus());
  }
  const Counter& begun() const { return begun_; }
  const Counter& over() const { return over_; }
  const Event& cancelled() const { return cancelled_; }

 private:
  Mutex mutex_;
  std::vector<Idle*> reactors_ ABSL_GUARDED_BY(mutex_);
  Counter begun_, over_;
  Event cancelled_;
};

TEST_P(LastingHandlerTest, ADrainEndsTheCallOfAReactorThatDoesNotFinish) {
  IdleStreams idle;
  StartServer(NewServerBuilder().Register(&idle), listen_address());
  ClientContext context;
  const auto chat = Streams::Stub(NewChannel()).Chat(&context);
  ASSERT_TRUE(idle.begun().WaitFor(1));
  Event shut_down;
  std::thread shutdown([&] {
    server_->Shutdown(absl::Now() + absl::Milliseconds(100));
    shut_down.Set();
  });
  Item item;
  EXPECT_FALSE(chat->Read(&item));
  const absl::Status status = chat->Finish();
  EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled)) << status;
  EXPECT_TRUE(idle.cancelled().Wait());
  EXPECT_FALSE(shut_down.IsSet());
  idle.FinishAll();
  EXPECT_TRUE(shut_down.Wait());
  shutdown.join();
  EXPECT_EQ(idle.over().value(), 1);
  server_ = nullptr;  // before its service
}

// ---- Handlers that throw: at once, and after a message each way; what they throw need not be an exception class.

class ThrowingStreams final : public Streams::Service {
 public:
  absl::Status Count(ServerContext*, const CountRequest*, ServerWriter<Item>*) override {
    throw std::runtime_error("out of cheese");
  }
  absl::Status Chat(ServerContext*, ServerReaderWriter<Item, Item>* stream) override {
    Item item;
    if (stream->Read(&item)) stream->Write(item);
    throw 42;
  }
};

class ThrowingCallbackStreams final : public Streams::CallbackService {
 public:
  ServerWriteReactor<Item>* Count(ServerContext*, const CountRequest*) override {
    throw std::runtime_error("out of cheese");
  }
  ServerBidiReactor<Item, Item>* Chat(ServerContext*) override {
    class Reactor final : public ServerBidiReactor<Item, Item> {
     public:
      Reactor() { StartRead(&item_); }
      void OnReadDone(bool ok) override {
        if (!ok) throw 42;
        StartWrite(&item_);
      }
      void OnWriteDone(bool) override { throw 42; }
      void OnDone() override { delete this; }

     private:
      Item item_;
    };
    return new Reactor;
  }
};

class ThrowingCoroutineStreams final : public Streams::CoService {
 public:
  Task<absl::Status> Count(ServerContext*, const CountRequest* request, CoServerWriter<Item>*) override {
    if (request->count() == 0) throw std::runtime_error("out of cheese");
    co_return absl::OkStatus();
  }
  Task<absl::Status> Chat(ServerContext*, CoServerReaderWriter<Item, Item>* stream) override {
    const std::optional<Item> item = co_await stream->Read();
    if (item.has_value()) co_await stream->Write(*item);
    throw 42;
  }
};

TEST_P(LastingHandlerTest, HandlersOfEveryStyleMayThrow) {
  ThrowingStreams synchronous;
  ThrowingCallbackStreams callback;
  ThrowingCoroutineStreams coroutine;
  for (shmrpc::Service* const service : std::initializer_list<shmrpc::Service*>{&synchronous, &callback, &coroutine}) {
    StartServer(NewServerBuilder().Register(service), NewListenAddress());
    const auto channel = NewChannel();
    for (int i = 0; i < 3; ++i) {
      Item item;
      {
        ClientContext context;
        const auto reader = Streams::Stub(channel).Count(&context, CountRequest());
        EXPECT_FALSE(reader->Read(&item));
        const absl::Status status = reader->Finish();
        EXPECT_EQ(status.code(), absl::StatusCode::kUnknown) << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr("out of cheese"));
      }
      {
        ClientContext context;
        const auto chat = Streams::Stub(channel).Chat(&context);
        EXPECT_TRUE(chat->Write(MakeItem(i)));
        EXPECT_TRUE(chat->Read(&item));
        EXPECT_FALSE(chat->Read(&item));
        const absl::Status status = chat->Finish();
        EXPECT_EQ(status.code(), absl::StatusCode::kUnknown) << status;
      }
      ExpectEcho(channel);
    }
    server_ = nullptr;
  }
}

INSTANTIATE_TEST_SUITE_P(Transport, LastingHandlerTest, testing::ValuesIn(TransportCases()), CaseName);

}  // namespace
}  // namespace shmrpc::conformance
