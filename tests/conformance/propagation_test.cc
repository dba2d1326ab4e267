// Calls that a handler makes on behalf of its own take over its deadline and its cancellation, unless told otherwise.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixture.h"
#include "stream_services.h"

namespace shmrpc::conformance {
namespace {

// What the handlers of all styles share: where they pass their calls on to, and what became of that.
class Relays {
 public:
  PropagationOptions options;
  // Before the first call.
  void SetNext(std::shared_ptr<Channel> next) { next_ = std::make_unique<Echo::Stub>(std::move(next)); }
  Echo::Stub& next() { return *next_; }

  void Ended(const absl::Status& status) {
    {
      MutexLock lock(&mutex_);
      ends_.push_back(status);
    }
    ended_.Increment();
  }
  const Counter& ended() const { return ended_; }
  std::vector<absl::Status> ends() const {
    MutexLock lock(&mutex_);
    return ends_;
  }

 private:
  std::unique_ptr<Echo::Stub> next_;
  Counter ended_;
  mutable Mutex mutex_;
  std::vector<absl::Status> ends_ ABSL_GUARDED_BY(mutex_);
};

class SynchronousRelay final : public Echo::Service {
 public:
  explicit SynchronousRelay(Relays* relays) : relays_(relays) {}
  absl::Status Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) override {
    const auto client_context = ClientContext::FromServerContext(*context, relays_->options);
    absl::Status status = relays_->next().Echo(client_context.get(), *request, reply);
    relays_->Ended(status);
    return status;
  }

 private:
  Relays* const relays_;
};

class CallbackRelay final : public Echo::CallbackService {
 public:
  explicit CallbackRelay(Relays* relays) : relays_(relays) {}
  ServerUnaryReactor* Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) override {
    return new Reactor(relays_, *context, *request, reply);
  }

 private:
  class Reactor final : public ServerUnaryReactor {
   public:
    Reactor(Relays* relays, const ServerContext& context, const EchoRequest& request, EchoReply* reply)
        : client_context_(ClientContext::FromServerContext(context, relays->options)) {
      relays->next().async().Echo(client_context_.get(), &request, reply, [this, relays](absl::Status status) {
        relays->Ended(status);
        Finish(std::move(status));
      });
    }
    void OnDone() override { delete this; }

   private:
    const std::unique_ptr<ClientContext> client_context_;
  };

  Relays* const relays_;
};

class CoroutineRelay final : public Echo::CoService {
 public:
  explicit CoroutineRelay(Relays* relays) : relays_(relays) {}
  Task<absl::Status> Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) override {
    const auto client_context = ClientContext::FromServerContext(*context, relays_->options);
    absl::StatusOr<EchoReply> result = co_await relays_->next().co().Echo(client_context.get(), *request);
    relays_->Ended(result.status());
    if (result.ok()) *reply = *std::move(result);
    co_return result.status();
  }

 private:
  Relays* const relays_;
};

class PropagationTest : public ConformanceTest {
 protected:
  // The server at the back is the fixture's; one in front passes calls on to it.
  void StartRelay(ServerStyle style) {
    if (server_ == nullptr) StartServer();
    switch (style) {
      case ServerStyle::kSynchronous:
        StartRelay(std::make_unique<SynchronousRelay>(&relays_));
        break;
      case ServerStyle::kCallback:
        StartRelay(std::make_unique<CallbackRelay>(&relays_));
        break;
      case ServerStyle::kCoroutine:
        StartRelay(std::make_unique<CoroutineRelay>(&relays_));
        break;
    }
  }
  void StartRelay(std::unique_ptr<shmrpc::Service> service) {
    front_ = nullptr;
    relay_ = std::move(service);
    relays_.SetNext(NewChannel());
    absl::StatusOr<std::unique_ptr<Server>> server =
        ServerBuilder(GetParam().transports()).Listen(NewListenAddress()).Register(relay_.get()).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    front_ = *std::move(server);
    stub_ = std::make_unique<Echo::Stub>(NewChannelTo(front_->addresses()[0].ToString()));
  }
  ~PropagationTest() override { service_.Release(); }

  Relays relays_;
  std::unique_ptr<shmrpc::Service> relay_;
  std::unique_ptr<Server> front_;
  std::unique_ptr<Echo::Stub> stub_;
};

EchoRequest Held() {
  EchoRequest request;
  request.set_hold(true);
  return request;
}

TEST_P(PropagationTest, ACancellationReachesTheNestedCallInEveryStyle) {
  int calls = 0;
  for (const ServerStyle style : kServerStyles) {
    SCOPED_TRACE(StyleName(style));
    StartRelay(style);
    ++calls;
    ClientContext context;
    Event over;
    const EchoRequest request = Held();
    EchoReply reply;
    stub_->async().Echo(&context, &request, &reply, [&](absl::Status status) {
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
      over.Set();
    });
    ASSERT_TRUE(service_.held().WaitFor(calls));
    context.TryCancel();
    EXPECT_TRUE(over.Wait());
    EXPECT_TRUE(service_.cancelled().WaitFor(calls)) << "the handler at the back was not told";
    ASSERT_TRUE(relays_.ended().WaitFor(calls));
    EXPECT_EQ(relays_.ends().back().code(), absl::StatusCode::kCancelled) << relays_.ends().back();
  }
  front_ = nullptr;
  EXPECT_EQ(relays_.ended().value(), calls) << "each nested call ends once";
}

TEST_P(PropagationTest, TheLossOfTheClientReachesTheNestedCall) {
  StartRelay(ServerStyle::kSynchronous);
  Event over;
  const EchoRequest request = Held();
  EchoReply reply;
  stub_->async().Echo(nullptr, &request, &reply, [&](absl::Status) { over.Set(); });
  ASSERT_TRUE(service_.held().WaitFor(1));
  stub_ = nullptr;  // and with it the channel
  EXPECT_TRUE(over.Wait());
  EXPECT_TRUE(service_.cancelled().WaitFor(1));
  EXPECT_TRUE(relays_.ended().WaitFor(1));
}

TEST_P(PropagationTest, WithoutItTheNestedCallGoesOn) {
  relays_.options.disable_cancellation_propagation();
  int calls = 0;
  for (const ServerStyle style : kServerStyles) {
    SCOPED_TRACE(StyleName(style));
    StartRelay(style);
    ++calls;
    ClientContext context;
    Event over;
    EchoRequest request;
    request.set_hold(true);
    EchoReply reply;
    stub_->async().Echo(&context, &request, &reply, [&](absl::Status) { over.Set(); });
    ASSERT_TRUE(service_.held().WaitFor(calls));
    context.TryCancel();
    EXPECT_TRUE(over.Wait());
    EXPECT_EQ(service_.cancelled().value(), 0);
    service_.Release();  // the calls of the other styles are not held any more, and may end before the cancellation
    ASSERT_TRUE(relays_.ended().WaitFor(calls));
    EXPECT_EQ(relays_.ends().back(), absl::OkStatus());
  }
}

// A handler that leaves a nested call behind, and whose context may go before or after the call that it came from.
class LeavingRelay final : public Echo::Service {
 public:
  explicit LeavingRelay(Relays* relays) : relays_(relays) {}
  absl::Status Echo(ServerContext* context, const EchoRequest*, EchoReply*) override {
    left_ = ClientContext::FromServerContext(*context, relays_->options);
    relays_->next().async().Echo(left_.get(), &held_, &reply_, [this](absl::Status status) { relays_->Ended(status); });
    return absl::OkStatus();
  }
  std::unique_ptr<ClientContext> left_;

 private:
  Relays* const relays_;
  const EchoRequest held_ = Held();
  EchoReply reply_;
};

TEST_P(PropagationTest, TheEndOfTheHandlersCallCancelsWhatItLeavesBehind) {
  StartServer();
  StartRelay(std::make_unique<LeavingRelay>(&relays_));
  EXPECT_TRUE(stub_->Echo(EchoRequest()).ok());
  ASSERT_TRUE(relays_.ended().WaitFor(1));
  EXPECT_EQ(relays_.ends().back().code(), absl::StatusCode::kCancelled) << relays_.ends().back();
}

TEST_P(PropagationTest, WithoutItANestedCallOutlivesTheHandlersCall) {
  StartServer();
  relays_.options.disable_cancellation_propagation().disable_deadline_propagation();
  StartRelay(std::make_unique<LeavingRelay>(&relays_));
  EXPECT_TRUE(stub_->Echo(EchoRequest()).ok());
  ASSERT_TRUE(service_.held().WaitFor(1));
  EXPECT_EQ(relays_.ended().value(), 0);
  service_.Release();
  ASSERT_TRUE(relays_.ended().WaitFor(1));
  EXPECT_EQ(relays_.ends().back(), absl::OkStatus());
}

// Looks at contexts that are made from its own, at different times.
class ContextRelay final : public Echo::Service {
 public:
  explicit ContextRelay(Relays* relays) : relays_(relays) {}
  absl::Status Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) override {
    const auto before = ClientContext::FromServerContext(*context, relays_->options);
    EXPECT_EQ(before->deadline() == absl::InfiniteFuture(), !relays_->options.deadline());
    started_.Increment();
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    const auto after = ClientContext::FromServerContext(*context, relays_->options);
    relays_->Ended(relays_->next().Echo(after.get(), *request, reply));
    relays_->Ended(relays_->next().Echo(before.get(), *request, reply));
    return absl::OkStatus();
  }
  const Counter& started() const { return started_; }

 private:
  Relays* const relays_;
  Counter started_;
};

TEST_P(PropagationTest, NoNestedCallBeginsWhenTheHandlersCallIsCancelled) {
  StartServer();
  auto relay = std::make_unique<ContextRelay>(&relays_);
  const Counter& started = relay->started();
  relays_.options.disable_deadline_propagation();
  StartRelay(std::move(relay));
  ClientContext context;
  EchoReply reply;
  std::thread canceller([&] {
    EXPECT_TRUE(started.WaitFor(1));
    context.TryCancel();
  });
  EXPECT_EQ(stub_->Echo(&context, EchoRequest(), &reply).code(), absl::StatusCode::kCancelled);
  canceller.join();
  ASSERT_TRUE(relays_.ended().WaitFor(2));
  for (const absl::Status& status : relays_.ends()) EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_EQ(service_.started().value(), 0);
}

TEST_P(PropagationTest, TheDeadlineCountsAsACancellationForACallThatHasNotTakenItOver) {
  relays_.options.disable_deadline_propagation();
  for (const ServerStyle style : kServerStyles) {
    SCOPED_TRACE(StyleName(style));
    StartRelay(style);
    ClientContext context;
    context.set_timeout(absl::Milliseconds(300));
    EchoReply reply;
    EXPECT_EQ(stub_->Echo(&context, Held(), &reply).code(), absl::StatusCode::kDeadlineExceeded);
    // On a machine so slow that the time was over before the handler ran, there is no nested call.
    front_->Shutdown(absl::InfiniteFuture());
    for (const absl::Status& status : relays_.ends()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    }
  }
  EXPECT_TRUE(service_.cancelled().WaitFor(service_.held().value()));
}

TEST_P(PropagationTest, ANestedStreamIsCancelled) {
  StreamCounters counters;
  const std::unique_ptr<shmrpc::Service> streams = MakeStreamService(ServerStyle::kSynchronous, &counters);
  ServerBuilder builder = NewServerBuilder();
  builder.Register(streams.get());
  StartServer(std::move(builder), listen_address());

  class StreamRelay final : public Echo::Service {
   public:
    explicit StreamRelay(std::shared_ptr<Channel> next) : next_(std::move(next)) {}
    absl::Status Echo(ServerContext* context, const EchoRequest*, EchoReply*) override {
      const auto client_context = ClientContext::FromServerContext(*context);
      CountRequest request;
      request.set_count(3);
      request.set_wait_for_cancellation(true);
      const auto reader = next_.Count(client_context.get(), request);
      Item item;
      while (reader->Read(&item)) items.Increment();
      const absl::Status status = reader->Finish();
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
      return status;
    }
    Counter items;

   private:
    Streams::Stub next_;
  };
  auto relay = std::make_unique<StreamRelay>(NewChannel());
  const Counter& items = relay->items;
  StartRelay(std::move(relay));
  ClientContext context;
  std::thread canceller([&] {
    EXPECT_TRUE(items.WaitFor(3));
    context.TryCancel();
  });
  EchoReply reply;
  EXPECT_EQ(stub_->Echo(&context, EchoRequest(), &reply).code(), absl::StatusCode::kCancelled);
  canceller.join();
  EXPECT_TRUE(counters.cancelled.WaitFor(1));
  front_ = nullptr;
  server_ = nullptr;  // it uses `streams`
}

// Cancellation, reply and the end of the handlers' calls, and the contexts of both, in any order.
TEST_P(PropagationTest, RacesWithTheEndsOfBothCalls) {
  for (const ServerStyle style : kServerStyles) {
    SCOPED_TRACE(StyleName(style));
    StartRelay(style);
    const int before = relays_.ended().value();
    const int calls = Scaled(300);
    Counter over;
    std::atomic<int> others{0};
    for (int i = 0; i < calls; ++i) {
      ClientContext context;
      EchoRequest request;
      request.set_payload(absl::StrCat(i));
      EchoReply reply;
      Event done;
      stub_->async().Echo(&context, &request, &reply, [&](absl::Status status) {
        if (!status.ok() && !absl::IsCancelled(status)) ++others;
        over.Increment();
        done.Set();
      });
      // At different points of the call's way there and back.
      for (int spin = 0; spin < i % 100 * 20; ++spin) std::this_thread::yield();
      context.TryCancel();
      ASSERT_TRUE(done.Wait());
    }
    EXPECT_EQ(over.value(), calls);
    EXPECT_EQ(others, 0);
    front_ = nullptr;  // waits for the handlers
    const int nested = relays_.ended().value() - before;
    EXPECT_LE(nested, calls);
    for (const absl::Status& status : relays_.ends()) {
      EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Transport, PropagationTest, testing::ValuesIn(TransportCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace shmrpc::conformance
