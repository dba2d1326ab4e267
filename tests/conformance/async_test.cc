// The callback form: each callback comes exactly once, when everything is in place, and may do what it likes.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

// Everything that one asynchronous call needs until its callback.
struct AsyncCall {
  EchoRequest request;
  ClientContext context;
  EchoReply reply;
  absl::Status status = absl::InternalError("the callback has not been called");
  Counter done;

  void Start(Echo::Stub* stub) {
    stub->async().Echo(&context, &request, &reply, [this](absl::Status result) {
      status = std::move(result);
      done.Increment();
    });
  }
};

TEST_P(ConformanceTest, AsyncEverythingIsInPlaceWhenTheCallbackRuns) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_payload("payload");
  MetadataEntry* entry = request.add_initial_metadata();
  entry->set_key("initial");
  entry->set_value("1");
  entry = request.add_trailing_metadata();
  entry->set_key("trailing");
  entry->set_value("2");

  ClientContext context;
  EchoReply reply;
  Event done;
  stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(reply.payload(), "payload");
    EXPECT_EQ(context.GetServerInitialMetadata().Find("initial"), "1");
    EXPECT_EQ(context.GetServerTrailingMetadata().Find("trailing"), "2");
    EXPECT_EQ(context.peer().transport, GetParam().transport_name());
    done.Set();
  });
  // Nobody waits for the connection here: the library's own threads must bring the reply.
  EXPECT_TRUE(done.Wait());
}

TEST_P(ConformanceTest, AsyncTheRequestMayGoWhenTheCallHasStarted) {
  StartServer();
  Echo::Stub stub(NewChannel());
  ClientContext context;
  EchoReply reply;
  Event done;
  {
    EchoRequest request;
    request.set_payload(RandomBytes(100000, 1));
    stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      done.Set();
    });
    request.mutable_payload()->assign(100000, 'x');
  }
  ASSERT_TRUE(done.Wait());
  EXPECT_TRUE(reply.payload() == RandomBytes(100000, 1));
}

TEST_P(ConformanceTest, AsyncWorksWithoutContext) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_payload("no context");
  EchoReply reply;
  Event done;
  stub.async().Echo(nullptr, &request, &reply, [&](absl::Status status) {
    EXPECT_TRUE(status.ok()) << status;
    done.Set();
  });
  ASSERT_TRUE(done.Wait());
  EXPECT_EQ(reply.payload(), "no context");
}

TEST_P(ConformanceTest, AsyncThousandsInFlight) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  std::vector<std::unique_ptr<AsyncCall>> calls;
  for (int i = 0; i < 3000; ++i) {
    calls.push_back(std::make_unique<AsyncCall>());
    calls.back()->request.set_payload(RandomBytes(i % 300, i));
    calls.back()->Start(&stub);
  }
  for (const auto& call : calls) {
    ASSERT_TRUE(call->done.WaitFor(1));
    ASSERT_TRUE(call->status.ok()) << call->status;
    ASSERT_TRUE(call->reply.payload() == call->request.payload());
  }
  ExpectEcho(channel);
  for (const auto& call : calls) EXPECT_EQ(call->done.value(), 1);
}

TEST_P(ConformanceTest, AsyncManyLargeOnesInFlight) {
  StartServer();
  Echo::Stub stub(NewChannel());
  std::vector<std::unique_ptr<AsyncCall>> calls;
  for (int i = 0; i < 30; ++i) {
    calls.push_back(std::make_unique<AsyncCall>());
    calls.back()->request.set_payload(RandomBytes(i % 3 == 0 ? 2000000 : 70000, i));
    calls.back()->Start(&stub);
  }
  for (const auto& call : calls) {
    ASSERT_TRUE(call->done.WaitFor(1));
    EXPECT_TRUE(call->status.ok()) << call->status;
    EXPECT_TRUE(call->reply.payload() == call->request.payload());
  }
}

TEST_P(ConformanceTest, AsyncHeldCallsAllComeBack) {
  StartServer();
  Echo::Stub stub(NewChannel());
  constexpr int kCalls = 200;
  std::vector<std::unique_ptr<AsyncCall>> calls;
  for (int i = 0; i < kCalls; ++i) {
    calls.push_back(std::make_unique<AsyncCall>());
    calls.back()->request.set_hold(true);
    calls.back()->request.set_payload(std::to_string(i));
    calls.back()->Start(&stub);
  }
  EXPECT_TRUE(service_.held().WaitFor(kCalls));
  service_.Release();
  for (const auto& call : calls) {
    ASSERT_TRUE(call->done.WaitFor(1));
    EXPECT_TRUE(call->status.ok()) << call->status;
    EXPECT_EQ(call->reply.payload(), call->request.payload());
  }
}

// A chain of calls, each of which is started by the callback of the one before.
class Chain {
 public:
  Chain(const std::shared_ptr<Channel>& channel, int length) : stub_(channel), left_(length) { Next(); }

  bool Wait() const { return end_.Wait(); }

 private:
  void Next() {
    context_ = std::make_unique<ClientContext>();
    stub_.async().Echo(context_.get(), &request_, &reply_, [this](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      if (!status.ok() || --left_ == 0) {
        end_.Set();
      } else {
        Next();
      }
    });
  }

  Echo::Stub stub_;
  const EchoRequest request_;
  std::unique_ptr<ClientContext> context_;
  EchoReply reply_;
  int left_;  // used by one callback after the other
  Event end_;
};

TEST_P(ConformanceTest, AsyncACallbackMayStartTheNextCall) {
  StartServer();
  Chain chain(NewChannel(), Scaled(5000));
  EXPECT_TRUE(chain.Wait());
}

TEST_P(ConformanceTest, AsyncACallbackMayMakeACallAndWaitForIt) {
  StartServer();
  const auto channel = NewChannel();
  AsyncCall outer;
  Event done;
  Echo::Stub stub(channel);
  stub.async().Echo(&outer.context, &outer.request, &outer.reply, [&](absl::Status status) {
    EXPECT_TRUE(status.ok()) << status;
    ExpectEcho(channel, "from the callback");
    done.Set();
  });
  EXPECT_TRUE(done.Wait());
}

TEST_P(ConformanceTest, AsyncACallbackMayDestroyEverythingOfItsCall) {
  StartServer();
  for (int i = 0; i < Scaled(200); ++i) {
    struct All {
      explicit All(std::shared_ptr<Channel> channel) : stub(std::make_unique<Echo::Stub>(std::move(channel))) {}
      std::unique_ptr<Echo::Stub> stub;  // the only reference to the channel
      ClientContext context;
      EchoReply reply;
    };
    Event destroyed;
    const EchoRequest request;
    auto* const all = new All(NewChannel());
    all->stub->async().Echo(&all->context, &request, &all->reply, [all, &destroyed](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      delete all;
      destroyed.Set();
    });
    ASSERT_TRUE(destroyed.Wait());
  }
}

TEST_P(ConformanceTest, AsyncACallbackMayDestroyTheChannelOfOtherCallsInFlight) {
  StartServer();
  for (int round = 0; round < Scaled(50); ++round) {
    auto stub = std::make_unique<Echo::Stub>(NewChannel());
    std::vector<std::unique_ptr<AsyncCall>> held;
    for (int i = 0; i < 5; ++i) {
      held.push_back(std::make_unique<AsyncCall>());
      held.back()->request.set_hold(true);
      held.back()->Start(stub.get());
    }
    AsyncCall quick;
    stub->async().Echo(&quick.context, &quick.request, &quick.reply, [&](absl::Status status) {
      quick.status = std::move(status);
      stub = nullptr;
      quick.done.Increment();
    });
    ASSERT_TRUE(quick.done.WaitFor(1));
    EXPECT_TRUE(quick.status.ok()) << quick.status;
    for (const auto& call : held) {
      ASSERT_TRUE(call->done.WaitFor(1));
      EXPECT_EQ(call->status.code(), absl::StatusCode::kCancelled) << call->status;
    }
  }
}

TEST_P(ConformanceTest, AsyncCallsInFlightAreCancelledWithTheirChannel) {
  StartServer();
  auto stub = std::make_unique<Echo::Stub>(NewChannel());
  std::vector<std::unique_ptr<AsyncCall>> calls;
  for (int i = 0; i < 50; ++i) {
    calls.push_back(std::make_unique<AsyncCall>());
    calls.back()->request.set_hold(true);
    calls.back()->Start(stub.get());
  }
  EXPECT_TRUE(service_.held().WaitFor(50));
  stub = nullptr;
  for (const auto& call : calls) {
    ASSERT_TRUE(call->done.WaitFor(1));
    EXPECT_EQ(call->status.code(), absl::StatusCode::kCancelled) << call->status;
  }
  EXPECT_TRUE(service_.cancelled().WaitFor(50));
  for (const auto& call : calls) EXPECT_EQ(call->done.value(), 1);
}

TEST_P(ConformanceTest, AsyncCallsWithoutServerAreToldSo) {
  StartServer();
  const auto channel = NewChannel();
  server_ = nullptr;
  Echo::Stub stub(channel);
  std::vector<std::unique_ptr<AsyncCall>> calls;
  for (int i = 0; i < 20; ++i) {
    calls.push_back(std::make_unique<AsyncCall>());
    calls.back()->Start(&stub);
  }
  for (const auto& call : calls) {
    ASSERT_TRUE(call->done.WaitFor(1));
    EXPECT_EQ(call->status.code(), absl::StatusCode::kUnavailable) << call->status;
  }
}

}  // namespace
}  // namespace shmrpc::conformance
