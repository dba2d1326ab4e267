// Reactors of the client, against a server that the test plays.

#include "shmrpc/client_reactor.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc {
namespace {

using google::protobuf::StringValue;
using ::testing::ElementsAre;
using testing::Event;
using testing::FakeCall;
using testing::FakeServer;
using ::testing::HasSubstr;
using testing::Outcome;

constexpr const char* kMethod = "/test.Stream/Method";

StringValue Text(const std::string& text) {
  StringValue message;
  message.set_value(text);
  return message;
}

// Notes what it is told, and does what the test has asked for with it. Notices callbacks that run concurrently.
class Reactor final : public ClientBidiReactor<StringValue, StringValue> {
 public:
  void OnReadInitialMetadataDone(bool ok) override { Note("headers", ok, on_headers); }
  void OnReadDone(bool ok) override { Note(ok ? absl::StrCat("read ", in.value()) : "read", ok, on_read); }
  void OnWriteDone(bool ok) override { Note("write", ok, on_write); }
  void OnWritesDoneDone(bool ok) override { Note("half-close", ok, on_half_close); }
  void OnDone(const absl::Status& status) override {
    EXPECT_FALSE(running_.exchange(true)) << "callbacks run concurrently";
    running_ = false;
    const std::function<void()> then = on_done;
    outcome.Set(testing::DeepCopy(status));
    if (then != nullptr) then();
  }

  // As "read a" or "write false".
  std::vector<std::string> notes() {
    MutexLock lock(&mutex_);
    return notes_;
  }
  void WaitForNotes(size_t count) {
    MutexLock lock(&mutex_);
    while (notes_.size() < count) changed_.Wait(&mutex_);
  }

  StringValue in;
  StringValue out = Text("out");
  Outcome outcome;
  std::function<void(bool)> on_headers;
  std::function<void(bool)> on_read;
  std::function<void(bool)> on_write;
  std::function<void(bool)> on_half_close;
  std::function<void()> on_done;

 private:
  void Note(const std::string& what, bool ok, const std::function<void(bool)>& then) {
    EXPECT_FALSE(running_.exchange(true)) << "callbacks run concurrently";
    EXPECT_FALSE(outcome.IsSet()) << what << " after OnDone";
    if (then != nullptr) then(ok);
    running_ = false;
    MutexLock lock(&mutex_);
    notes_.push_back(ok ? what : what + " false");
    changed_.SignalAll();
  }

  std::atomic<bool> running_{false};
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> notes_ ABSL_GUARDED_BY(mutex_);
};

class ClientReactorTest : public ::testing::Test {
 protected:
  void Prepare(Reactor* reactor, ClientContext* context) {
    PrepareClientReactor(channel_, kMethod, MethodKind::kBidiStreaming, context, nullptr, nullptr, reactor);
  }
  void PrepareReader(Reactor* reactor, ClientContext* context) {
    PrepareClientReactor(channel_, kMethod, MethodKind::kServerStreaming, context, &request_, nullptr, reactor);
  }
  void PrepareWriter(Reactor* reactor, ClientContext* context) {
    PrepareClientReactor(channel_, kMethod, MethodKind::kClientStreaming, context, nullptr, &reply_, reactor);
  }

  FakeServer server_;
  std::shared_ptr<Channel> channel_ = server_.NewConnectedChannel();
  ClientContext context_;
  StringValue request_ = Text("request");
  StringValue reply_;
};

TEST_F(ClientReactorTest, ReadsUntilTheServerEnds) {
  Reactor reactor;
  reactor.on_read = [&](bool ok) {
    if (ok) reactor.StartRead(&reactor.in);
  };
  PrepareReader(&reactor, &context_);
  reactor.StartRead(&reactor.in);
  reactor.StartCall();
  const auto call = server_.NextCall();
  EXPECT_EQ(call->Take(), std::optional<std::string>("request"));
  call->SendHeaders({{"initial", "1"}});
  call->SendText("a");
  call->SendText("b");
  call->Finish(absl::OkStatus(), {{"trailing", "2"}});
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  EXPECT_THAT(reactor.notes(), ElementsAre("headers", "read a", "read b", "read false"));
  EXPECT_EQ(context_.GetServerInitialMetadata(), (Metadata{{"initial", "1"}}));
  EXPECT_EQ(context_.GetServerTrailingMetadata(), (Metadata{{"trailing", "2"}}));
}

TEST_F(ClientReactorTest, WritesAndTakesTheReply) {
  server_.set_window(1);
  Reactor reactor;
  int writes = 0;
  reactor.on_write = [&](bool) {
    if (++writes < 3) {
      reactor.StartWrite(&reactor.out);
    } else {
      reactor.StartWritesDone();
    }
  };
  PrepareWriter(&reactor, nullptr);
  reactor.StartCall();
  reactor.StartWrite(&reactor.out);
  const auto call = server_.NextCall();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(call->Take(), std::optional<std::string>("out"));
  EXPECT_EQ(call->Take(), std::nullopt);
  call->SendText("reply");
  call->Finish(absl::OkStatus());
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  EXPECT_EQ(reply_.value(), "reply");
  EXPECT_THAT(reactor.notes(), ::testing::UnorderedElementsAre("write", "write", "write", "half-close", "headers"));
}

TEST_F(ClientReactorTest, WriteLastHalfCloses) {
  Reactor reactor;
  PrepareWriter(&reactor, nullptr);
  reactor.StartCall();
  reactor.StartWriteLast(&reactor.out);
  const auto call = server_.NextCall();
  EXPECT_EQ(call->Take(), std::optional<std::string>("out"));
  EXPECT_EQ(call->Take(), std::nullopt);
  EXPECT_TRUE(call->half_closed());
  call->Finish(absl::OkStatus());  // without the reply
  const absl::Status status = reactor.outcome.Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0 messages"));
}

TEST_F(ClientReactorTest, OperationsWaitForStartCallAndForTheConnection) {
  channel_ = server_.NewChannel();  // not connected
  Reactor reactor;
  Prepare(&reactor, nullptr);
  reactor.StartRead(&reactor.in);
  reactor.StartWrite(&reactor.out);
  reactor.StartWritesDone();
  reactor.StartCall();
  const auto call = server_.NextCall();
  EXPECT_EQ(call->Take(), std::optional<std::string>("out"));
  EXPECT_EQ(call->Take(), std::nullopt);
  call->SendText("in");
  call->Finish(absl::OkStatus());
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  // Reading and writing are independent.
  EXPECT_THAT(reactor.notes(), ::testing::UnorderedElementsAre("headers", "read in", "write", "half-close"));
}

TEST_F(ClientReactorTest, HalfCloseDuringAWriteComesAfterIt) {
  server_.set_window(1);
  Reactor reactor;
  Prepare(&reactor, nullptr);
  reactor.StartCall();
  reactor.StartWrite(&reactor.out);
  reactor.WaitForNotes(1);
  const auto call = server_.NextCall();
  reactor.StartWrite(&reactor.out);  // the server has no room
  reactor.StartWritesDone();
  EXPECT_FALSE(call->half_closed());
  EXPECT_TRUE(call->Take().has_value());
  EXPECT_TRUE(call->Take().has_value());
  EXPECT_FALSE(call->Take().has_value());
  call->Finish(absl::OkStatus());
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  EXPECT_THAT(reactor.notes(), ElementsAre("write", "write", "half-close", "headers false"));
}

TEST_F(ClientReactorTest, WhatIsStartedIsAnsweredWhenTheCallEnds) {
  server_.set_window(0);
  Reactor reactor;
  Prepare(&reactor, &context_);
  reactor.StartCall();
  reactor.StartRead(&reactor.in);
  reactor.StartWrite(&reactor.out);
  reactor.StartWritesDone();
  const auto call = server_.NextCall();
  context_.TryCancel();
  EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(reactor.notes(),
              ::testing::UnorderedElementsAre("headers false", "read false", "write false", "half-close false"));
  EXPECT_EQ(call->WaitForCancel().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientReactorTest, ACallThatCannotBeStartedAnswersLater) {
  // The mutex is the user's, who holds it while starting and takes it in OnDone.
  context_.set_deadline(absl::UnixEpoch());
  Mutex mutex;
  Reactor reactor;
  Event done;
  reactor.on_done = [&] {
    { MutexLock lock(&mutex); }
    done.Set();
  };
  {
    MutexLock lock(&mutex);
    Prepare(&reactor, &context_);
    reactor.StartRead(&reactor.in);
    reactor.StartCall();
    EXPECT_FALSE(done.IsSet());
  }
  EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(reactor.notes(), ElementsAre("headers false", "read false"));
  EXPECT_TRUE(done.Wait());
}

TEST_F(ClientReactorTest, AnOperationThatIsCompleteAtOnceAnswersLater) {
  Mutex mutex;
  Reactor reactor;
  reactor.on_write = [&](bool) { MutexLock lock(&mutex); };
  Prepare(&reactor, nullptr);
  reactor.StartCall();
  {
    MutexLock lock(&mutex);
    reactor.StartWriteLast(&reactor.out);
  }
  server_.NextCall()->Finish(absl::OkStatus());
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
}

TEST_F(ClientReactorTest, NoConnection) {
  server_.set_refuses(true);
  channel_ = server_.NewChannel();
  Reactor reactor;
  Prepare(&reactor, nullptr);
  reactor.StartWrite(&reactor.out);
  reactor.StartCall();
  reactor.StartRead(&reactor.in);
  EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(reactor.outcome.count(), 1);
}

TEST_F(ClientReactorTest, WaitForReadyEndsWithTheServerTheDeadlineOrTryCancel) {
  server_.set_refuses(true);
  ChannelOptions options;
  options.initial_backoff = absl::Milliseconds(1);
  options.max_backoff = absl::Milliseconds(2);
  channel_ = server_.NewChannel(options);
  ClientContext contexts[3];
  Reactor reactors[3];
  for (int i = 0; i < 3; ++i) {
    contexts[i].set_wait_for_ready(true);
    contexts[i].AddMetadata("number", std::to_string(i));
    if (i == 1) contexts[i].set_timeout(absl::Milliseconds(20));
    const auto request = std::make_unique<StringValue>(Text("request"));
    PrepareClientReactor(channel_, kMethod, MethodKind::kServerStreaming, &contexts[i], request.get(), nullptr,
                         &reactors[i]);
    reactors[i].StartCall();
    reactors[i].StartRead(&reactors[i].in);
  }
  EXPECT_EQ(reactors[1].outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  contexts[2].TryCancel();
  EXPECT_EQ(reactors[2].outcome.Wait().code(), absl::StatusCode::kCancelled);
  server_.set_refuses(false);
  const auto call = server_.NextCall();
  EXPECT_EQ(call->metadata, (Metadata{{"number", "0"}}));
  EXPECT_EQ(call->Take(), std::optional<std::string>("request"));
  call->Finish(absl::OkStatus());
  EXPECT_EQ(reactors[0].outcome.Wait(), absl::OkStatus());
}

TEST_F(ClientReactorTest, TheDeadlineEndsTheCall) {
  context_.set_timeout(absl::Milliseconds(20));
  Reactor reactor;
  Prepare(&reactor, &context_);
  reactor.StartCall();
  reactor.StartRead(&reactor.in);
  EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(server_.NextCall()->WaitForCancel().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientReactorTest, HoldsDelayOnDone) {
  Reactor reactor;
  Prepare(&reactor, nullptr);
  reactor.AddMultipleHolds(2);
  reactor.StartCall();
  server_.NextCall()->Finish(absl::OkStatus());
  reactor.WaitForNotes(1);  // headers false: the status has arrived
  reactor.RemoveHold();
  reactor.StartRead(&reactor.in);  // what the hold is for
  reactor.WaitForNotes(2);
  EXPECT_FALSE(reactor.outcome.IsSet());
  reactor.RemoveHold();
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  EXPECT_THAT(reactor.notes(), ElementsAre("headers false", "read false"));
}

TEST_F(ClientReactorTest, AMessageThatDoesNotParseOrIsTooLargeEndsTheCall) {
  {
    Reactor reactor;
    Prepare(&reactor, nullptr);
    reactor.StartCall();
    reactor.StartRead(&reactor.in);
    const auto call = server_.NextCall();
    call->SendBytes("\n");
    EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(call->WaitForCancel().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(reactor.notes(), ElementsAre("headers", "read false"));
  }
  context_.set_max_send_message_bytes(3);
  Reactor reactor;
  Prepare(&reactor, &context_);
  reactor.StartCall();
  reactor.StartWrite(&reactor.out);
  EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(reactor.notes().back(), "write false");
}

TEST_F(ClientReactorTest, OnDoneMayDestroyEverything) {
  struct Everything {
    std::shared_ptr<Channel> channel;
    ClientContext context;
    Reactor reactor;
  };
  for (const bool cancel : {false, true}) {
    for (int round = 0; round < 100; ++round) {
      auto* everything = new Everything;
      everything->channel = server_.NewConnectedChannel();
      everything->context.set_timeout(absl::Seconds(50));
      Event destroyed;
      everything->reactor.on_done = [&destroyed, everything] {
        delete everything;
        destroyed.Set();
      };
      everything->reactor.on_read = [everything, cancel](bool ok) {
        if (!ok) return;
        if (cancel) everything->context.TryCancel();
        everything->reactor.StartRead(&everything->reactor.in);
      };
      PrepareClientReactor(everything->channel, kMethod, MethodKind::kBidiStreaming, &everything->context, nullptr,
                           nullptr, &everything->reactor);
      everything->reactor.StartRead(&everything->reactor.in);
      everything->reactor.StartCall();
      const auto call = server_.NextCall();
      call->SendText("a");
      call->Finish(absl::OkStatus());
      ASSERT_TRUE(destroyed.Wait());
    }
  }
}

TEST_F(ClientReactorTest, DestroyingTheChannelEndsTheCall) {
  Reactor reactor;
  Prepare(&reactor, nullptr);
  reactor.StartCall();
  reactor.StartRead(&reactor.in);
  const auto call = server_.NextCall();
  channel_.reset();
  EXPECT_EQ(reactor.outcome.Wait().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientReactorTest, AReactorThatIsNeverStartedIsSimplyDestroyed) {
  Reactor reactor;
  Prepare(&reactor, &context_);
  reactor.StartRead(&reactor.in);
}

TEST_F(ClientReactorTest, MessagesFlowBothWays) {
  server_.set_window(1);
  Reactor reactor;
  constexpr int kMessages = 1000;
  int written = 0;
  int read = 0;
  reactor.on_write = [&](bool ok) {
    EXPECT_TRUE(ok);
    if (++written < kMessages) {
      reactor.StartWrite(&reactor.out);
    } else {
      reactor.StartWritesDone();
    }
  };
  reactor.on_read = [&](bool ok) {
    if (!ok) return;
    ++read;
    reactor.StartRead(&reactor.in);
  };
  Prepare(&reactor, nullptr);
  reactor.StartWrite(&reactor.out);
  reactor.StartRead(&reactor.in);
  reactor.StartCall();
  const auto call = server_.NextCall();
  while (std::optional<std::string> text = call->Take()) call->SendText(*text);
  call->Finish(absl::OkStatus());
  EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
  EXPECT_EQ(written, kMessages);
  EXPECT_EQ(read, kMessages);
}

TEST_F(ClientReactorTest, RoomOrTheEndMayComeBeforeTheSenderKnowsThatItHasToWait) {
  server_.set_window(1);
  for (const bool end : {false, true}) {
    server_.set_on_wait([end](FakeCall& call) {
      if (end) {
        call.Finish(absl::AbortedError("enough"));
      } else {
        EXPECT_TRUE(call.Take().has_value());
      }
      call.WaitForDelivery();
    });
    Reactor reactor;
    Prepare(&reactor, nullptr);
    reactor.AddHold();
    reactor.StartCall();
    reactor.StartWrite(&reactor.out);
    reactor.WaitForNotes(1);
    reactor.StartWrite(&reactor.out);
    reactor.WaitForNotes(end ? 3 : 2);
    reactor.RemoveHold();
    if (end) {
      EXPECT_EQ(reactor.outcome.Wait(), absl::AbortedError("enough"));
      EXPECT_THAT(reactor.notes(), ElementsAre("write", "headers false", "write false"));
    } else {
      EXPECT_THAT(reactor.notes(), ElementsAre("write", "write"));
      server_.NextCall()->Finish(absl::OkStatus());
      EXPECT_EQ(reactor.outcome.Wait(), absl::OkStatus());
    }
  }
}

TEST_F(ClientReactorTest, CancelDeadlineStatusAndOperationsRace) {
  server_.set_window(1);
  for (int round = 0; round < 500; ++round) {
    ClientContext context;
    if (round % 4 == 0) context.set_timeout(absl::Microseconds(100 + round));
    context.set_wait_for_ready(true);
    if (round % 5 == 0) channel_ = server_.NewChannel();
    Reactor reactor;
    reactor.on_read = [&](bool ok) {
      if (ok) reactor.StartRead(&reactor.in);
    };
    Event writes_over;
    reactor.on_write = [&](bool ok) {
      if (ok) {
        reactor.StartWrite(&reactor.out);
      } else {
        writes_over.Set();
      }
    };
    Prepare(&reactor, &context);
    reactor.AddHold();
    reactor.StartCall();
    std::vector<std::thread> threads;
    threads.emplace_back([&] {
      reactor.StartRead(&reactor.in);
      reactor.StartWrite(&reactor.out);
      reactor.RemoveHold();
    });
    threads.emplace_back([&] { context.TryCancel(); });
    if (round % 2 == 0) threads.emplace_back([&] { context.TryCancel(); });
    for (std::thread& thread : threads) thread.join();
    const absl::Status status = reactor.outcome.Wait();
    EXPECT_TRUE(absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) << status;
    EXPECT_TRUE(writes_over.IsSet());
    EXPECT_EQ(reactor.outcome.count(), 1);
  }
}

}  // namespace
}  // namespace shmrpc
