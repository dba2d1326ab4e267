// Handlers in the callback style.

#include "shmrpc/server_reactor.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/runtime_fake_server_call.h"

namespace shmrpc {
namespace {

using ::testing::ElementsAre;
using testing::Event;
using testing::FakeServerCall;
using ::testing::HasSubstr;
using testing::KindsService;
using testing::ServerUnderTest;
using testing::StringValue;
using testing::Text;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// What the reactors of a test did. Reactors delete themselves; this stays.
struct Log {
  std::atomic<int> cancels{0};
  std::atomic<int> dones{0};
  std::atomic<int> reactions_at_once{0};
  Event done;
};

// Marks that a reaction runs, and that no other does.
class Reaction {
 public:
  explicit Reaction(Log* log) : log_(log) { EXPECT_EQ(log_->reactions_at_once.fetch_add(1), 0); }
  ~Reaction() { log_->reactions_at_once.fetch_sub(1); }

 private:
  Log* const log_;
};

// Notes the end.
template <typename Base>
class Logged : public Base {
 public:
  explicit Logged(Log* log) : log_(log) {}
  void OnCancel() override {
    Reaction reaction(log_);
    ++log_->cancels;
    EXPECT_EQ(log_->dones, 0);
    Cancelled();
  }
  void OnDone() override {
    Log* const log = log_;
    {
      Reaction reaction(log);
      EXPECT_EQ(++log->dones, 1);
      delete this;
    }
    log->done.Set();
  }

 protected:
  virtual void Cancelled() { this->Finish(absl::CancelledError("seen")); }
  Log* log() { return log_; }

 private:
  Log* const log_;
};

// Writes the letters of the request, one message each.
class Letters final : public Logged<ServerWriteReactor<StringValue>> {
 public:
  Letters(Log* log, std::string letters) : Logged(log), letters_(std::move(letters)) { Next(); }
  void OnWriteDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::AbortedError("a write failed"));
    Next();
  }

 private:
  void Cancelled() override {}  // the write that fails finishes
  void Next() {
    message_.set_value(letters_.substr(next_, 1));
    if (next_ + 1 >= letters_.size()) return StartWriteAndFinish(&message_, absl::OkStatus());
    ++next_;
    StartWrite(&message_);
  }

  const std::string letters_;
  size_t next_ = 0;
  StringValue message_;
};

// Replies with all texts.
class Concatenation final : public Logged<ServerReadReactor<StringValue>> {
 public:
  Concatenation(Log* log, StringValue* reply) : Logged(log), reply_(reply) { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::OkStatus());
    reply_->set_value(reply_->value() + message_.value());
    StartRead(&message_);
  }

 private:
  void Cancelled() override {}

  StringValue* const reply_;
  StringValue message_;
};

class EchoReactor final : public Logged<ServerBidiReactor<StringValue, StringValue>> {
 public:
  explicit EchoReactor(Log* log) : Logged(log) { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::OkStatus());
    StartWrite(&message_);
  }
  void OnWriteDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::AbortedError("a write failed"));
    StartRead(&message_);
  }

 private:
  void Cancelled() override {}

  StringValue message_;
};

KindsService::React AllKinds(Log* log) {
  return [log](ServerContext* context, const StringValue* request, StringValue* reply) -> ServerReactor* {
    if (request != nullptr && reply != nullptr) {
      reply->set_value(request->value());
      ServerUnaryReactor* const reactor = context->DefaultReactor();
      reactor->Finish(absl::OkStatus());
      return reactor;
    }
    if (request != nullptr) return new Letters(log, request->value());
    if (reply != nullptr) return new Concatenation(log, reply);
    return new EchoReactor(log);
  };
}

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
      if (by_deadline) options.deadline = SteadyTime::Now() + absl::Milliseconds(20);
      const auto call = server.Call(options);
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
    if (by_deadline) options.deadline = SteadyTime::Now() + absl::Milliseconds(20);
    const auto call = server.Call(options);
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

// A reactor that another thread works with.
class Foreign final : public Logged<ServerBidiReactor<StringValue, StringValue>> {
 public:
  explicit Foreign(Log* log) : Logged(log) {}
  void OnReadDone(bool ok) override {
    Reaction reaction(log());
    MutexLock lock(&mutex);
    read_done.Set();
  }
  void OnWriteDone(bool ok) override {
    Reaction reaction(log());
    MutexLock lock(&mutex);
    write_ok = ok;
    write_done.Set();
  }

  Mutex mutex;
  Event read_done;
  Event write_done;
  std::atomic<bool> write_ok{false};
};

// Creates Foreign reactors and shows them to the test.
class ForeignService {
 public:
  explicit ForeignService(Log* log)
      : service([this, log](ServerContext*, const StringValue*, StringValue*) -> ServerReactor* {
          reactor_ = new Foreign(log);
          made_.Set();
          return reactor_;
        }) {}
  Foreign* WaitForReactor() {
    EXPECT_TRUE(made_.Wait());
    return reactor_;
  }

 private:
  Foreign* reactor_ = nullptr;
  Event made_;

 public:
  KindsService service;
};

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
