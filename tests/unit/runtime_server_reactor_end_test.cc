// Handlers in the callback style: how their calls end.

#include "shmrpc/server_reactor.h"

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/runtime_fake_server_call.h"
#include "tests/unit/runtime_test_reactors.h"

namespace shmrpc {
namespace {

using testing::AllKinds;
using testing::Event;
using testing::FakeServerCall;
using testing::Foreign;
using testing::ForeignService;
using testing::KindsService;
using testing::Log;
using testing::Logged;
using testing::ServerUnderTest;
using testing::StringValue;
using testing::Text;

TEST(ServerReactorTest, CancellationFailsWhatIsUnderWay) {
  for (const bool by_deadline : {false, true}) {
    for (const char* method : {KindsService::kServerStreaming, KindsService::kClientStreaming}) {
      Log log;
      KindsService service(AllKinds(&log));
      ServerUnderTest server(&service);
      FakeServerCall::Options options;
      options.method = method;
      options.credits = 0;
      if (method == KindsService::kServerStreaming) options.request = Text("ab").SerializeAsString();
      const auto call = by_deadline ? server.CallPastDeadline(service, options) : server.Call(options);
      if (!by_deadline) {
        if (method == KindsService::kServerStreaming) {
          call->WaitForSenderToWait();
        } else {
          call->WaitForReceive();
        }
        call->Cancel();
      }
      const absl::StatusCode failure = by_deadline ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kAborted;
      EXPECT_EQ(call->WaitForStatus().code(),
                by_deadline || method == KindsService::kServerStreaming ? failure : absl::StatusCode::kOk);
      EXPECT_TRUE(log.done.Wait());
      EXPECT_LE(log.cancels, 1);  // none when the failed operation has finished the call before
    }
  }
}

// Finishes when it is cancelled, and does nothing before.
class Idle final : public Logged<ServerBidiReactor<StringValue, StringValue>> {
 public:
  explicit Idle(Log* log) : Logged(log) {}
};

TEST(ServerReactorTest, TellsOfCancellationOnce) {
  for (const bool by_deadline : {false, true}) {
    Log log;
    std::atomic<int> callbacks{0};
    KindsService service([&](ServerContext* context, const StringValue*, StringValue*) -> ServerReactor* {
      context->SetCancellationCallback([&] { ++callbacks; });
      return new Idle(&log);
    });
    ServerUnderTest server(&service);
    FakeServerCall::Options options;
    options.method = KindsService::kBidi;
    const auto call = by_deadline ? server.CallPastDeadline(service, options) : server.Call(options);
    if (!by_deadline) call->Cancel();
    EXPECT_EQ(call->WaitForStatus().code(),
              by_deadline ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kCancelled);
    EXPECT_TRUE(log.done.Wait());
    EXPECT_EQ(log.cancels, 1);
    EXPECT_EQ(callbacks, 1);
  }
}

TEST(ServerReactorTest, NothingIsToldAfterFinish) {
  Log log;
  std::atomic<int> callbacks{0};
  Idle* reactor = nullptr;
  KindsService service([&](ServerContext* context, const StringValue*, StringValue*) -> ServerReactor* {
    context->SetCancellationCallback([&] { ++callbacks; });
    reactor = new Idle(&log);
    reactor->Finish(absl::OkStatus());
    reactor->Finish(absl::UnknownError("the second one"));
    return reactor;
  });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kBidi);
  EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
  call->Cancel();
  EXPECT_TRUE(log.done.Wait());
  EXPECT_EQ(log.cancels, 0);
  EXPECT_EQ(callbacks, 0);
}

TEST(ServerReactorTest, FinishWaitsForAWriteUnderWayIfAllIsWell) {
  for (const bool ok : {true, false}) {
    Log log;
    ForeignService foreign(&log);
    ServerUnderTest server(&foreign.service);
    FakeServerCall::Options options;
    options.method = KindsService::kBidi;
    options.credits = 0;
    const auto call = server.Call(options);
    Foreign* const reactor = foreign.WaitForReactor();
    const StringValue message = Text("x");
    StringValue read;
    reactor->StartRead(&read);
    reactor->StartWrite(&message);
    call->WaitForSenderToWait();
    reactor->Finish(ok ? absl::OkStatus() : absl::AbortedError("no"));
    if (ok) call->Grant(1);
    EXPECT_TRUE(log.done.Wait());
    EXPECT_EQ(call->WaitForStatus(), ok ? absl::OkStatus() : absl::AbortedError("no"));
    EXPECT_EQ(call->sent().size(), ok ? 1u : 0u);
  }
}

// Finishes from a thread of its own, while the call is being cancelled.
class RacingFinish final : public ServerBidiReactor<StringValue, StringValue> {
 public:
  explicit RacingFinish(Log* log) : log_(log) {}
  void Go() {
    StartRead(&message_);
    Finish(absl::OkStatus());
  }
  void OnReadDone(bool ok) override { ++reads_; }
  void OnCancel() override {
    ++log_->cancels;
    EXPECT_EQ(log_->dones, 0);
  }
  void OnDone() override {
    EXPECT_EQ(reads_, 1);
    ++log_->dones;
    Log* const log = log_;
    delete this;
    log->done.Set();
  }

 private:
  Log* const log_;
  StringValue message_;
  int reads_ = 0;
};

TEST(ServerReactorTest, FinishRacesWithCancellation) {
  for (int round = 0; round < 500; ++round) {
    Log log;
    RacingFinish* const reactor = new RacingFinish(&log);
    Event bound;
    KindsService service([&](ServerContext*, const StringValue*, StringValue*) -> ServerReactor* {
      bound.Set();  // not yet, in fact: that races too
      return reactor;
    });
    ServerUnderTest server(&service);
    FakeServerCall::Options options;
    options.method = KindsService::kBidi;
    options.done_inside_finish = round % 2 == 0;
    const auto call = server.Call(options);
    bound.Wait();
    std::thread finisher([reactor] { reactor->Go(); });
    call->Send("x");
    call->Cancel();
    finisher.join();
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus());
    EXPECT_TRUE(log.done.Wait());
    EXPECT_EQ(log.dones, 1);
    EXPECT_LE(log.cancels, 1);
  }
}

TEST(ServerReactorTest, MayFinishWhileTheClientStillSends) {
  KindsService service([](ServerContext*, const StringValue*, StringValue*) -> ServerReactor* {
    return new FinishingReactor<ServerReadReactor<StringValue>>(absl::ResourceExhaustedError("enough"));
  });
  ServerUnderTest server(&service);
  const auto call = server.Call(KindsService::kClientStreaming);
  for (int i = 0; i < 3; ++i) call->Send("x");
  EXPECT_EQ(call->WaitForStatus(), absl::ResourceExhaustedError("enough"));
  call->Send("x");
}

TEST(ServerReactorTest, CountsForTheLimitUntilFinished) {
  Log log;
  ForeignService foreign(&log);
  ServerUnderTest server(&foreign.service, [](ServerBuilder* builder) { builder->SetMaxConcurrentCalls(1); });
  const auto first = server.Call(KindsService::kBidi);
  Foreign* const reactor = foreign.WaitForReactor();
  EXPECT_EQ(server.Call(KindsService::kBidi)->WaitForStatus().code(), absl::StatusCode::kResourceExhausted);
  reactor->Finish(absl::OkStatus());
  EXPECT_EQ(first->WaitForStatus(), absl::OkStatus());
  EXPECT_TRUE(log.done.Wait());
}

TEST(ServerReactorTest, ShutdownWaitsForOnDone) {
  Log log;
  ForeignService foreign(&log);
  ServerUnderTest server(&foreign.service);
  const auto call = server.Call(KindsService::kBidi);
  Foreign* const reactor = foreign.WaitForReactor();
  std::thread shutdown([&] {
    server.server().Shutdown(absl::InfinitePast());
    EXPECT_EQ(log.dones, 1);
  });
  reactor->Finish(absl::OkStatus());
  shutdown.join();
}

}  // namespace
}  // namespace shmrpc
