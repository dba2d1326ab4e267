// TryCancel ends a call with CANCELLED unless it is over, at any time and from any thread.

#include <atomic>
#include <random>
#include <thread>
#include <utility>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

EchoRequest HeldRequest() {
  EchoRequest request;
  request.set_hold(true);
  return request;
}

TEST_P(ConformanceTest, CancelBeforeTheCall) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  ClientContext context;
  context.TryCancel();
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, HeldRequest(), &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, CancelDuringTheCallEndsItAndTellsTheHandler) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  ClientContext context;
  std::thread canceller([&] {
    EXPECT_TRUE(service_.held().WaitFor(1));
    context.TryCancel();
  });
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, HeldRequest(), &reply);
  canceller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_TRUE(service_.cancelled().WaitFor(1));
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, CancelOfAnAsynchronousCall) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  ClientContext context;
  const EchoRequest request = HeldRequest();
  EchoReply reply;
  absl::Status status;
  Counter done;
  stub.async().Echo(&context, &request, &reply, [&](absl::Status result) {
    status = std::move(result);
    done.Increment();
  });
  EXPECT_TRUE(service_.held().WaitFor(1));
  context.TryCancel();
  ASSERT_TRUE(done.WaitFor(1));
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_TRUE(service_.cancelled().WaitFor(1));
  context.TryCancel();
  ExpectEcho(channel);
  EXPECT_EQ(done.value(), 1);
}

TEST_P(ConformanceTest, CancelAfterTheCallChangesNothing) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  ClientContext context;
  EchoRequest request;
  request.set_payload("over");
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, request, &reply);
  context.TryCancel();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(reply.payload(), "over");
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, CancelWhileWaitingForAServer) {
  StartServer();
  const auto channel = NewChannel();
  server_ = nullptr;

  Echo::Stub stub(channel);
  ClientContext context;
  context.set_wait_for_ready(true);
  std::thread canceller([&] {
    absl::SleepFor(absl::Milliseconds(50));  // most likely the call waits by now; both orders are legal
    context.TryCancel();
  });
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, EchoRequest(), &reply);
  canceller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
}

TEST_P(ConformanceTest, CancelOfOneCallLeavesTheOthersAlone) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  constexpr int kCalls = 20;
  const EchoRequest request = HeldRequest();
  ClientContext contexts[kCalls];
  EchoReply replies[kCalls];
  absl::Status statuses[kCalls];
  Counter done;
  for (int i = 0; i < kCalls; ++i) {
    stub.async().Echo(&contexts[i], &request, &replies[i], [&, i](absl::Status status) {
      statuses[i] = std::move(status);
      done.Increment();
    });
  }
  EXPECT_TRUE(service_.held().WaitFor(kCalls));
  for (int i = 0; i < kCalls; i += 2) contexts[i].TryCancel();
  EXPECT_TRUE(service_.cancelled().WaitFor(kCalls / 2));
  service_.Release();
  ASSERT_TRUE(done.WaitFor(kCalls));
  for (int i = 0; i < kCalls; ++i) {
    EXPECT_EQ(statuses[i].code(), i % 2 == 0 ? absl::StatusCode::kCancelled : absl::StatusCode::kOk) << statuses[i];
  }
}

// Cancels, after a short random time, each context that it is given. Spins, because waking up takes longer than a call.
class Canceller {
 public:
  Canceller() : thread_([this] { Run(); }) {}
  ~Canceller() {
    stop_ = true;
    thread_.join();
  }

  void Aim(ClientContext* context) { target_ = context; }
  void WaitUntilFired() const {
    while (target_ != nullptr) std::this_thread::yield();
  }

 private:
  void Run() {
    std::mt19937 random(1);
    while (!stop_) {
      ClientContext* const context = target_;
      if (context == nullptr) {
        std::this_thread::yield();
        continue;
      }
      const absl::Time fire = absl::Now() + absl::Microseconds(random() % 100);
      while (absl::Now() < fire) {
      }
      context->TryCancel();
      target_ = nullptr;
    }
  }

  std::atomic<ClientContext*> target_{nullptr};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_P(ConformanceTest, CancelRacingTheReplyGivesOneOfTheTwo) {
  StartServer();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  Echo::Stub stub(channel);
  Canceller canceller;
  int replies = 0;
  for (int i = 0; i < Scaled(5000); ++i) {
    EchoRequest request;
    request.set_payload(std::to_string(i));
    ClientContext context;
    EchoReply reply;
    canceller.Aim(&context);
    const absl::Status status = stub.Echo(&context, request, &reply);
    canceller.WaitUntilFired();
    if (status.ok()) {
      ++replies;
      ASSERT_EQ(reply.payload(), request.payload());
    } else {
      ASSERT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    }
  }
  RecordProperty("replies", replies);
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, CancelRacingTheReplyCallsBackOnce) {
  StartServer();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  Echo::Stub stub(channel);
  Canceller canceller;
  const int calls = Scaled(5000);
  Counter done;
  for (int i = 0; i < calls; ++i) {
    EchoRequest request;
    request.set_payload(std::to_string(i));
    ClientContext context;
    EchoReply reply;
    canceller.Aim(&context);
    stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
      if (status.ok()) {
        EXPECT_EQ(reply.payload(), request.payload());
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
      }
      done.Increment();
    });
    ASSERT_TRUE(done.WaitFor(i + 1));
    canceller.WaitUntilFired();
  }
  ExpectEcho(channel);
  EXPECT_EQ(done.value(), calls);
}

}  // namespace
}  // namespace shmrpc::conformance
