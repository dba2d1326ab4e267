// Every callback of a client may destroy its stub, its channel, or the server that it has called; and reactions of a
// server the channel that they make calls with. What goes down with it ends, and nobody waits for himself.

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "case_selection.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

// What a callback can bring down.
enum class Victim { kStub, kChannel, kServer, kAll };
constexpr Victim kVictims[] = {Victim::kStub, Victim::kChannel, Victim::kServer, Victim::kAll};

const char* VictimName(Victim victim) {
  switch (victim) {
    case Victim::kStub:
      return "stub";
    case Victim::kChannel:
      return "channel";
    case Victim::kServer:
      return "server";
    case Victim::kAll:
      break;
  }
  return "all";
}

// A server, a channel and stubs, of which a callback destroys what the test says, once.
struct Stage {
  std::unique_ptr<Server> server;
  std::shared_ptr<Channel> channel;
  std::unique_ptr<Echo::Stub> echo;
  std::unique_ptr<Streams::Stub> streams;
  Victim victim;
  Event destroyed;

  // The channel goes with its last reference, so the stubs go before it.
  void Destroy() {
    if (destroyed.IsSet()) return;
    if (victim != Victim::kServer) {
      echo = nullptr;
      streams = nullptr;
    }
    if (victim == Victim::kChannel || victim == Victim::kAll) channel = nullptr;
    if (victim == Victim::kServer || victim == Victim::kAll) server = nullptr;
    destroyed.Set();
  }
};

// The callbacks of a stream, in which the victim may go.
enum class Reaction { kInitialMetadata, kRead, kWrite, kHalfClose, kDone };
constexpr Reaction kReactions[] = {Reaction::kInitialMetadata, Reaction::kRead, Reaction::kWrite, Reaction::kHalfClose,
                                   Reaction::kDone};

// Writes, reads, half-closes, and waits for the end, unless the end comes before.
class DestroyingReactor final : public ClientBidiReactor<Item, Item> {
 public:
  DestroyingReactor(Stage* stage, Reaction reaction) : stage_(stage), reaction_(reaction) {
    stage_->streams->async().Chat(&context_, this);
    sent_ = MakeItem(1, 100);
    StartRead(&received_);
    StartWrite(&sent_);
    StartCall();
  }

  absl::Status Wait() {
    EXPECT_TRUE(done_.Wait());
    EXPECT_EQ(done_count_.value(), 1);
    return status_;
  }

 private:
  void OnReadInitialMetadataDone(bool) override { At(Reaction::kInitialMetadata); }
  void OnReadDone(bool ok) override {
    At(Reaction::kRead);
    if (ok) {
      StartWritesDone();
      StartRead(&received_);
    }
  }
  void OnWriteDone(bool) override { At(Reaction::kWrite); }
  void OnWritesDoneDone(bool) override { At(Reaction::kHalfClose); }
  void OnDone(const absl::Status& status) override {
    At(Reaction::kDone);
    status_ = status;
    done_count_.Increment();
    done_.Set();
  }

  void At(Reaction reaction) {
    if (reaction == reaction_) stage_->Destroy();
  }

  Stage* const stage_;
  const Reaction reaction_;
  ClientContext context_;
  Item sent_, received_;
  absl::Status status_;
  Counter done_count_;
  Event done_;
};

class DestroyingCallbackTest : public ConformanceStreamTest {
 protected:
  // A stage with a server of its own.
  std::unique_ptr<Stage> NewStage(Victim victim) {
    if (streams_ == nullptr) {
      counters_ = std::make_unique<StreamCounters>();
      streams_ = MakeStreamService(ServerStyle::kCallback, counters_.get());
    }
    auto stage = std::make_unique<Stage>();
    stage->victim = victim;
    ServerBuilder builder = NewServerBuilder();
    builder.Register(streams_.get());
    absl::StatusOr<std::unique_ptr<Server>> server = builder.Listen(NewListenAddress()).Start();
    EXPECT_TRUE(server.ok()) << server.status();
    stage->server = *std::move(server);
    stage->channel = NewChannelTo(stage->server->addresses().front().ToString());
    stage->echo = std::make_unique<Echo::Stub>(stage->channel);
    stage->streams = std::make_unique<Streams::Stub>(stage->channel);
    ExpectEcho(stage->channel);
    return stage;
  }

  // A call on the stage that is under way when the victim goes.
  struct Bystander {
    explicit Bystander(Stage* stage) {
      request.set_hold(true);
      stage->echo->async().Echo(&context, &request, &reply, [this](absl::Status result) {
        status = std::move(result);
        done.Increment();
      });
    }
    ~Bystander() {
      context.TryCancel();  // if nothing else has ended it
      EXPECT_TRUE(done.WaitFor(1));
      EXPECT_TRUE(absl::IsCancelled(status) || absl::IsUnavailable(status)) << status;
    }
    EchoRequest request;
    ClientContext context;
    EchoReply reply;
    absl::Status status;
    Counter done;
  };

  static void ExpectEnd(const absl::Status& status) {
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status) || absl::IsUnavailable(status)) << status;
  }
};

TEST_P(DestroyingCallbackTest, OfAUnaryCall) {
  for (const Victim victim : kVictims) {
    SCOPED_TRACE(VictimName(victim));
    const auto stage = NewStage(victim);
    Bystander bystander(stage.get());
    EchoRequest request;
    request.set_payload("payload");
    ClientContext context;
    EchoReply reply;
    absl::Status status;
    Event done;
    stage->echo->async().Echo(&context, &request, &reply, [&](absl::Status result) {
      stage->Destroy();
      status = std::move(result);
      done.Set();
    });
    ASSERT_TRUE(done.Wait());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(reply.payload(), "payload");
  }
}

// What ends the call decides which thread calls back: the deadline's, that of TryCancel, the one that has seen the
// server go.
TEST_P(DestroyingCallbackTest, OfAUnaryCallThatFails) {
  enum class Cause { kDeadline, kTryCancel, kServerGone };
  for (const Cause cause : {Cause::kDeadline, Cause::kTryCancel, Cause::kServerGone}) {
    for (const Victim victim : kVictims) {
      // The server is destroyed elsewhere, and cannot be here as well.
      if (cause == Cause::kServerGone && victim != Victim::kStub && victim != Victim::kChannel) continue;
      SCOPED_TRACE(testing::Message() << VictimName(victim) << ", cause " << static_cast<int>(cause));
      const auto stage = NewStage(victim);
      EchoRequest request;
      request.set_hold(true);
      ClientContext context;
      if (cause == Cause::kDeadline) context.set_timeout(absl::Milliseconds(5));
      EchoReply reply;
      absl::Status status;
      Event done;
      const int held = service_.held().value();
      stage->echo->async().Echo(&context, &request, &reply, [&](absl::Status result) {
        stage->Destroy();
        status = std::move(result);
        done.Set();
      });
      if (cause != Cause::kDeadline) {
        ASSERT_TRUE(service_.held().WaitFor(held + 1));
      }
      if (cause == Cause::kTryCancel) context.TryCancel();
      if (cause == Cause::kServerGone) stage->server = nullptr;
      ASSERT_TRUE(done.Wait());
      EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsCancelled(status) || absl::IsUnavailable(status))
          << status;
    }
  }
}

TEST_P(DestroyingCallbackTest, OfAStream) {
  for (const Victim victim : kVictims) {
    for (const Reaction reaction : kReactions) {
      SCOPED_TRACE(testing::Message() << VictimName(victim) << ", reaction " << static_cast<int>(reaction));
      const auto stage = NewStage(victim);
      const std::unique_ptr<Bystander> bystander = std::make_unique<Bystander>(stage.get());
      DestroyingReactor reactor(stage.get(), reaction);
      const absl::Status status = reactor.Wait();
      ExpectEnd(status);
      if (victim == Victim::kStub || reaction == Reaction::kDone) {
        EXPECT_TRUE(status.ok()) << status;
      }
    }
  }
  EXPECT_TRUE(counters_->ended.WaitFor(counters_->started.value()));
}

TEST_P(DestroyingCallbackTest, OfACoroutine) {
  for (const Victim victim : kVictims) {
    SCOPED_TRACE(VictimName(victim));
    const auto stage = NewStage(victim);
    Bystander bystander(stage.get());
    // The context and the stream outlive what they belong to.
    const auto run = [&]() -> Task<absl::Status> {
      ClientContext context;
      CoClientReaderWriter<Item, Item> chat = stage->streams->co().Chat(&context);
      const Item item = MakeItem(1, 100);
      if (!co_await chat.Write(item)) co_return co_await chat.Finish();
      const std::optional<Item> received = co_await chat.Read();
      EXPECT_TRUE(received.has_value());
      stage->Destroy();  // on the thread that has brought the message
      (void)co_await chat.Write(item);
      (void)co_await chat.WritesDone();
      while (co_await chat.Read()) {
      }
      co_return co_await chat.Finish();
    };
    const absl::Status status = SyncWait(run());
    ExpectEnd(status);
    if (victim == Victim::kStub) {
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

// A reaction that has a channel of its own to make calls with, and destroys it with a call under way.
class OutgoingCall {
 public:
  explicit OutgoingCall(std::shared_ptr<Channel> channel) : stub_(std::make_unique<Echo::Stub>(std::move(channel))) {
    request_.set_hold(true);
    stub_->async().Echo(&context_, &request_, &reply_, [this](absl::Status) { ended_.Set(); });
  }
  void Destroy() { stub_ = nullptr; }
  bool Wait() { return ended_.Wait(); }

 private:
  std::unique_ptr<Echo::Stub> stub_;  // the only reference to the channel
  EchoRequest request_;
  ClientContext context_;
  EchoReply reply_;
  Event ended_;
};

// Destroys a channel in each reaction.
class DestroyingStreams final : public Streams::CallbackService {
 public:
  DestroyingStreams(std::function<std::shared_ptr<Channel>()> new_channel, Counter* over)
      : new_channel_(std::move(new_channel)), over_(over) {}

  ServerBidiReactor<Item, Item>* Chat(ServerContext*) override {
    class Reactor final : public ServerBidiReactor<Item, Item> {
     public:
      explicit Reactor(DestroyingStreams* service) : service_(service) { StartRead(&item_); }
      void OnReadDone(bool ok) override {
        service_->MakeAndDestroy();
        if (ok) return StartWrite(&item_);
        Finish(absl::OkStatus());
      }
      void OnWriteDone(bool ok) override {
        service_->MakeAndDestroy();
        if (ok) StartRead(&item_);
      }
      void OnCancel() override {
        service_->MakeAndDestroy();
        Finish(absl::CancelledError("cancelled"));
      }
      void OnDone() override {
        service_->MakeAndDestroy();
        service_->over_->Increment();
        delete this;
      }

     private:
      DestroyingStreams* const service_;
      Item item_;
    };
    return new Reactor(this);
  }

 private:
  void MakeAndDestroy() {
    OutgoingCall call(new_channel_());
    call.Destroy();
    EXPECT_TRUE(call.Wait());
  }

  const std::function<std::shared_ptr<Channel>()> new_channel_;
  Counter* const over_;
};

TEST_P(DestroyingCallbackTest, OfAServerWithAChannelOfItsOwn) {
  // To another server, and to the one that it is a reaction of.
  for (const bool to_itself : {false, true}) {
    SCOPED_TRACE(to_itself);
    std::string target;
    Mutex mutex;  // for ThreadSanitizer: see sync.h
    Counter over;
    DestroyingStreams streams(
        [&] {
          MutexLock lock(&mutex);
          return NewChannelTo(target);
        },
        &over);
    StartServer();
    absl::StatusOr<std::unique_ptr<Server>> server =
        NewServerBuilder().Register(&streams).Listen(NewListenAddress()).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    const std::string own_address = (*server)->addresses().front().ToString();
    {
      MutexLock lock(&mutex);
      target = to_itself ? own_address : server_address();
    }
    const auto channel = NewChannelTo(own_address);
    {
      ClientContext context;
      const auto chat = Streams::Stub(channel).Chat(&context);
      Item item;
      EXPECT_TRUE(chat->Write(MakeItem(1)));
      EXPECT_TRUE(chat->Read(&item));
      EXPECT_TRUE(chat->WritesDone());
      EXPECT_FALSE(chat->Read(&item));
      const absl::Status status = chat->Finish();
      EXPECT_TRUE(status.ok()) << status;
    }
    {
      ClientContext context;
      const auto chat = Streams::Stub(channel).Chat(&context);
      Item item;
      EXPECT_TRUE(chat->Write(MakeItem(1)));
      EXPECT_TRUE(chat->Read(&item));
      context.TryCancel();
      EXPECT_EQ(chat->Finish().code(), absl::StatusCode::kCancelled);
    }
    EXPECT_TRUE(over.WaitFor(2));
    *server = nullptr;
    server_ = nullptr;
  }
}

INSTANTIATE_TEST_SUITE_P(Transport, DestroyingCallbackTest, testing::ValuesIn(TransportCases()), CaseName);

}  // namespace
}  // namespace shmrpc::conformance
