// The inproc transport by its own interface, beneath the runtime: what transport.h promises.

#include "transports/inproc/inproc_transport.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "tests/conformance/sync.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc {
namespace {

using testing::Event;
using testing::StringValue;
using testing::Text;

Target InprocTarget(const std::string& name) { return Target::Parse("inproc:" + name).value(); }

class FunctionHandler final : public CallHandler {
 public:
  using Function = std::function<void(ServerCallPtr, const IncomingMessage&)>;
  explicit FunctionHandler(Function function) : function_(std::move(function)) {}
  void OnCall(ServerCallPtr call, const IncomingMessage* request) override {
    ASSERT_NE(request, nullptr) << "these calls are unary";
    function_(std::move(call), *request);
  }

 private:
  const Function function_;
};

// Writes down what happens, one letter per event.
class Recorder final : public CallEvents {
 public:
  explicit Recorder(bool runs_user_code = false) : runs_user_code_(runs_user_code) {}

  void OnHeaders(Metadata metadata) override {
    EXPECT_FALSE(inside_.exchange(true));
    events_ += 'H';
    headers_ = std::move(metadata);
    inside_ = false;
  }
  void OnMessage(const IncomingMessage& message) override {
    EXPECT_FALSE(inside_.exchange(true));
    events_ += 'M';
    EXPECT_TRUE(message.ParseTo(&message_));
    inside_ = false;
  }
  void OnStatus(CallEnd end) override {
    EXPECT_FALSE(inside_.exchange(true));
    events_ += 'S';
    status_ = std::move(end.status);
    trailing_metadata_ = std::move(end.trailing_metadata);
    not_processed_ = end.not_processed;
    if (on_status_) on_status_();
    inside_ = false;
    over_.store(true, std::memory_order_release);
  }
  bool RunsUserCode() const override { return runs_user_code_; }

  bool IsOver() const { return over_.load(std::memory_order_acquire); }

  const bool runs_user_code_;
  std::function<void()> on_status_;
  std::string events_;
  Metadata headers_;
  StringValue message_;
  absl::Status status_;
  Metadata trailing_metadata_;
  bool not_processed_ = false;

 private:
  std::atomic<bool> inside_{false};
  std::atomic<bool> over_{false};
};

struct StartedCall {
  StartedCall(Connection& connection, Recorder& events, const std::string& text,
              SteadyTime deadline = SteadyTime::InfiniteFuture()) {
    const StringValue request = Text(text);
    CallSpec spec;
    spec.method = "/test.Echo/Echo";
    spec.deadline = deadline;
    std::atomic<Call*> started = nullptr;
    const OutgoingProto message(request);
    connection.StartCall(spec, &message, &events, &started);
    call.reset(started);
  }

  bool WaitFor(Recorder& events) {
    return call->WaitUntil([&] { return events.IsOver(); }, SteadyTime::Now() + testing::kHang);
  }

  CallPtr call;
};

void FinishOk(ServerCallPtr call, const std::string& text) {
  const StringValue reply = Text(text);
  const OutgoingProto message(reply);
  ServerCall::Reply out;
  out.message = &message;
  FinishCall(std::move(call), out);
}

TEST(InprocTransportTest, NamesAreTakenOnce) {
  InprocTransport transport;
  InprocTransport other;
  FunctionHandler handler([](ServerCallPtr, const IncomingMessage&) {});
  EXPECT_EQ(transport.Connect(InprocTarget("name"), {}).status(),
            absl::UnavailableError("no server in this process listens on \"inproc:name\""));
  auto listener = transport.Listen(InprocTarget("name"), {}, &handler);
  ASSERT_TRUE(listener.ok());
  EXPECT_EQ((*listener)->address().ToString(), "inproc:name");
  EXPECT_EQ(other.Listen(InprocTarget("name"), {}, &handler).status(),
            absl::AlreadyExistsError("another server in this process listens on \"inproc:name\""));
  auto connection = other.Connect(InprocTarget("name"), {});
  ASSERT_TRUE(connection.ok());
  EXPECT_FALSE((*connection)->IsOver());
  listener->reset();
  while (!(*connection)->IsOver()) absl::SleepFor(absl::Milliseconds(1));  // another thread may be finding out
  EXPECT_EQ((*connection)->reason_over().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(transport.Listen(InprocTarget("name"), {}, &handler).ok());
}

TEST(InprocTransportTest, DeliversInTheGrammar) {
  const Metadata initial = {{"i", "1"}};
  const Metadata trailing = {{"t", "1"}};
  const StringValue text = Text("reply");
  const OutgoingProto message(text);
  struct Case {
    Case(const Metadata* initial, const OutgoingMessage* message, absl::Status status, const Metadata* trailing,
         bool not_processed, std::string its_events)
        : events(std::move(its_events)) {
      reply.initial_metadata = initial;
      reply.message = message;
      reply.status = std::move(status);
      reply.trailing_metadata = trailing;
      reply.not_processed = not_processed;
    }
    ServerCall::Reply reply;
    std::string events;
  };
  const Case cases[] = {
      {&initial, &message, absl::OkStatus(), &trailing, false, "HMS"},
      {nullptr, &message, absl::OkStatus(), nullptr, false, "HMS"},
      {&initial, nullptr, absl::AbortedError("x"), &trailing, false, "HS"},
      {nullptr, nullptr, absl::AbortedError("x"), nullptr, false, "S"},
      {nullptr, nullptr, absl::AbortedError("x"), nullptr, true, "S"},
  };
  for (const Case& each : cases) {
    FunctionHandler handler(
        [&](ServerCallPtr call, const IncomingMessage&) { FinishCall(std::move(call), each.reply); });
    InprocTransport transport;
    auto listener = transport.Listen(InprocTarget("grammar"), {}, &handler).value();
    auto connection = transport.Connect(InprocTarget("grammar"), {}).value();
    for (bool runs_user_code : {false, true}) {
      Recorder events(runs_user_code);
      StartedCall call(*connection, events, "x");
      ASSERT_TRUE(call.WaitFor(events));
      EXPECT_EQ(events.events_, each.events);
      EXPECT_EQ(events.status_, each.reply.status);
      EXPECT_EQ(events.not_processed_, each.reply.not_processed);
      EXPECT_EQ(events.message_.value(), each.reply.message != nullptr ? "reply" : "");
      EXPECT_EQ(events.headers_.size(), each.reply.initial_metadata != nullptr ? 1u : 0u);
      EXPECT_EQ(events.trailing_metadata_.size(), each.reply.trailing_metadata != nullptr ? 1u : 0u);
    }
  }
}

TEST(InprocTransportTest, AnUnfinishedCallEndsWithInternal) {
  FunctionHandler handler([](ServerCallPtr, const IncomingMessage&) {});
  InprocTransport transport;
  auto listener = transport.Listen(InprocTarget("drop"), {}, &handler).value();
  auto connection = transport.Connect(InprocTarget("drop"), {}).value();
  Recorder events;
  StartedCall call(*connection, events, "x");
  ASSERT_TRUE(call.WaitFor(events));
  EXPECT_EQ(events.status_.code(), absl::StatusCode::kInternal);
}

TEST(InprocTransportTest, FinishMayComeLaterFromAnotherThread) {
  std::thread finisher;
  FunctionHandler handler([&](ServerCallPtr call, const IncomingMessage&) {
    finisher = std::thread([call = std::move(call)]() mutable { FinishOk(std::move(call), "later"); });
  });
  InprocTransport transport;
  auto listener = transport.Listen(InprocTarget("later"), {}, &handler).value();
  auto connection = transport.Connect(InprocTarget("later"), {}).value();
  Recorder events;
  StartedCall call(*connection, events, "x");
  ASSERT_TRUE(call.WaitFor(events));
  EXPECT_EQ(events.message_.value(), "later");
  listener.reset();
  finisher.join();
}

TEST(InprocTransportTest, WaitUntilHonoursItsDeadlineAndCancelEndsTheCall) {
  Event go;
  std::atomic<bool> saw_cancel{false};
  FunctionHandler handler([&](ServerCallPtr call, const IncomingMessage&) {
    go.Wait();
    saw_cancel = conformance::Eventually([&call] { return call->IsCancelled(); });
    FinishOk(std::move(call), "too late");
  });
  InprocTransport transport;
  auto listener = transport.Listen(InprocTarget("cancel"), {}, &handler).value();
  auto connection = transport.Connect(InprocTarget("cancel"), {}).value();
  Recorder events;
  StartedCall call(*connection, events, "x");
  EXPECT_FALSE(call.call->WaitUntil([&] { return events.IsOver(); }, SteadyTime::Now() + absl::Milliseconds(5)));
  call.call->Cancel(absl::DataLossError("mine"));
  call.call->Cancel(absl::AbortedError("the second has no effect"));
  EXPECT_TRUE(call.WaitFor(events));
  EXPECT_EQ(events.status_, absl::DataLossError("mine"));
  go.Set();
  listener.reset();
  EXPECT_TRUE(saw_cancel);
  EXPECT_EQ(events.events_, "S");
}

TEST(InprocTransportTest, DestroyingTheConnectionCancelsItsCallsOnly) {
  Event go;
  FunctionHandler handler([&](ServerCallPtr call, const IncomingMessage&) {
    go.Wait();
    FinishOk(std::move(call), "x");
  });
  InprocTransport transport;
  auto listener = transport.Listen(InprocTarget("two"), {}, &handler).value();
  auto doomed = transport.Connect(InprocTarget("two"), {}).value();
  auto survivor = transport.Connect(InprocTarget("two"), {}).value();
  Recorder doomed_events;
  Recorder survivor_events;
  StartedCall doomed_call(*doomed, doomed_events, "x");
  StartedCall survivor_call(*survivor, survivor_events, "x");
  doomed.reset();
  EXPECT_TRUE(doomed_events.IsOver());
  EXPECT_EQ(doomed_events.status_.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(survivor_events.IsOver());
  go.Set();
  EXPECT_TRUE(survivor_call.WaitFor(survivor_events));
  EXPECT_EQ(survivor_events.status_, absl::OkStatus());
}

TEST(InprocTransportTest, AnEventMayDestroyTheConnectionAndTheListener) {
  FunctionHandler handler([&](ServerCallPtr call, const IncomingMessage&) { FinishOk(std::move(call), "x"); });
  InprocTransport transport;
  for (int i = 0; i < 100; ++i) {
    auto listener = transport.Listen(InprocTarget("gone"), {}, &handler).value();
    auto connection = transport.Connect(InprocTarget("gone"), {}).value();
    Connection& used = *connection;
    Recorder events(/*runs_user_code=*/true);
    Event started;
    events.on_status_ = [&] {
      started.Wait();
      connection.reset();
      listener.reset();
    };
    StartedCall call(used, events, "x");
    started.Set();
    EXPECT_TRUE(call.WaitFor(events));
    EXPECT_EQ(events.events_, "HMS");
    EXPECT_EQ(listener, nullptr);
  }
}

TEST(InprocTransportTest, ACallOnAConnectionThatIsOverIsUnavailable) {
  FunctionHandler handler([](ServerCallPtr, const IncomingMessage&) {});
  InprocTransport transport;
  auto listener = transport.Listen(InprocTarget("over"), {}, &handler).value();
  auto connection = transport.Connect(InprocTarget("over"), {}).value();
  listener->Shutdown(SteadyTime::InfinitePast());
  Recorder events;
  StartedCall call(*connection, events, "x");
  EXPECT_TRUE(events.IsOver());
  EXPECT_EQ(events.status_.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(events.status_.message().find("shutting down"), std::string_view::npos);
}

TEST(InprocTransportTest, CancelAndFinishRace) {
  FunctionHandler handler([&](ServerCallPtr call, const IncomingMessage&) { FinishOk(std::move(call), "x"); });
  InprocTransport transport;
  auto listener = transport.Listen(InprocTarget("race"), {}, &handler).value();
  auto connection = transport.Connect(InprocTarget("race"), {}).value();
  for (int i = 0; i < 5000; ++i) {
    Recorder events(i % 2 == 0);
    StartedCall call(*connection, events, "x");
    for (int spin = 0; spin < i % 500; ++spin) std::atomic_signal_fence(std::memory_order_seq_cst);
    call.call->Cancel(absl::CancelledError("race"));
    ASSERT_TRUE(call.WaitFor(events));
    EXPECT_TRUE(events.events_ == "HMS" || events.events_ == "S") << events.events_;
  }
}

}  // namespace
}  // namespace shmrpc
