// TryCancel ends a call with CANCELLED unless it is over, at any time and from any thread.

#include <algorithm>
#include <atomic>
#include <iostream>
#include <memory>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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
  // Many where the two ways to go differ most; the others share their code with these.
  const int calls = Scaled(GetParam().name == "shm" || GetParam().name == "tcp" ? 100'000 : 5000);
  const int threads_before = CountThreads();
  const int descriptors_before = CountOpenDescriptors();
  Canceller canceller;
  Counter done;
  std::atomic<int> replies{0};
  for (int i = 0; i < calls; ++i) {
    EchoRequest request;
    request.set_payload(std::to_string(i));
    ClientContext context;
    EchoReply reply;
    canceller.Aim(&context);
    stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
      if (status.ok()) {
        EXPECT_EQ(reply.payload(), request.payload());
        ++replies;
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
  RecordProperty("calls", calls);
  RecordProperty("replies", replies);
  // Threads that the load has asked for end a while after it.
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads_before + 8; }))
      << CountThreads() << " threads, " << threads_before << " before";
  EXPECT_LE(CountOpenDescriptors(), descriptors_before + kThreadDescriptors);
}

// Notes when its handlers learn of their cancellation.
class CancelledService final : public Echo::Service {
 public:
  explicit CancelledService(bool asks) : asks_(asks) {}

  absl::Status Echo(ServerContext* context, const EchoRequest*, EchoReply*) override {
    conformance::Event told;
    if (!asks_) {
      context->SetCancellationCallback([&] {
        Note();
        told.Set();
      });
    }
    started_.Increment();
    if (asks_) {
      while (!context->IsCancelled()) absl::SleepFor(absl::Microseconds(100));
      Note();
    } else {
      told.Wait();
      context->ClearCancellationCallback();  // which may still be using `told`
    }
    ended_.Increment();
    return absl::CancelledError("cancelled");
  }

  const Counter& started() const { return started_; }
  const Counter& ended() const { return ended_; }
  absl::Time learned() const {
    MutexLock lock(&mutex_);
    return learned_;
  }

 private:
  void Note() {
    MutexLock lock(&mutex_);
    learned_ = absl::Now();
  }

  const bool asks_;
  Counter started_;
  Counter ended_;
  mutable Mutex mutex_;
  absl::Time learned_ ABSL_GUARDED_BY(mutex_);
};

// How long it takes is recorded with the test's result, not asserted: on a quiet machine it is far below 100 ms.
TEST_P(ConformanceTest, CancelReachesTheHandlerSoon) {
  for (const bool asks : {false, true}) {
    CancelledService service(asks);
    const absl::StatusOr<std::unique_ptr<Server>> server =
        ServerBuilder(GetParam().transports()).Register(&service).Listen(NewListenAddress()).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    Echo::Stub stub(NewChannelTo((*server)->addresses().front().ToString()));
    absl::Duration longest;
    const int calls = Scaled(200);
    for (int i = 1; i <= calls; ++i) {
      ClientContext context;
      const EchoRequest request;
      EchoReply reply;
      Event over;
      stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
        EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
        over.Set();
      });
      ASSERT_TRUE(service.started().WaitFor(i));
      const absl::Time cancelled = absl::Now();
      context.TryCancel();
      ASSERT_TRUE(service.ended().WaitFor(i));
      longest = std::max(longest, service.learned() - cancelled);
      ASSERT_TRUE(over.Wait());
    }
    const int64_t microseconds = absl::ToInt64Microseconds(longest);
    RecordProperty(asks ? "longest_until_seen_us" : "longest_until_told_us", absl::StrCat(microseconds));
    std::cout << GetParam().name << ": a handler that " << (asks ? "asks sees" : "is told learns of")
              << " its cancellation after " << microseconds << " us at most, of " << calls << std::endl;
  }
}

// The library's thread sleeps for the first call, and another thread receives for itself when that is cancelled.
TEST_P(ConformanceTest, CancelOfTheLastAsynchronousCallDuringAWaitLosesNotTheNext) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest held;
  held.set_hold(true);
  ClientContext context;
  EchoReply reply;
  Event cancelled;
  stub.async().Echo(&context, &held, &reply, [&](absl::Status) { cancelled.Set(); });
  ASSERT_TRUE(service_.held().WaitFor(1));
  std::thread waiting([&] { EXPECT_TRUE(stub.Echo(held).ok()); });
  ASSERT_TRUE(service_.held().WaitFor(2));
  absl::SleepFor(absl::Milliseconds(20));  // so that both sleep; without it the test sees less
  context.TryCancel();
  ASSERT_TRUE(cancelled.Wait());
  service_.Release();
  waiting.join();
  ClientContext next_context;
  EchoReply next_reply;
  Event next;
  const EchoRequest request;
  stub.async().Echo(&next_context, &request, &next_reply, [&](absl::Status) { next.Set(); });
  EXPECT_TRUE(next.Wait());
  next_context.TryCancel();
  EXPECT_TRUE(next.Wait());
}

}  // namespace
}  // namespace shmrpc::conformance
