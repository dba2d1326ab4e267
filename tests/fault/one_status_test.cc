// Exactly one status, in every style: for deadlines of every kind, for a cancellation at any time, and when a deadline
// and the reply come at the same moment.

#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "case_selection.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

// One call of a style: `context` says when it ends; `held` whether its handler waits.
struct Style {
  const char* name;
  std::function<absl::Status(const std::shared_ptr<Channel>& channel, ClientContext* context, bool held)> call;
};

EchoRequest Request(bool held) {
  EchoRequest request;
  request.set_hold(held);
  return request;
}

CountRequest Items(bool held) {
  CountRequest request;
  request.set_count(1);
  request.set_wait_for_cancellation(held);
  return request;
}

// Ends once, or the test fails: a second end is counted too, as long as the test lasts.
class Ends {
 public:
  void Note(absl::Status status) {
    status_ = std::move(status);
    count_.Increment();
  }
  absl::Status Wait() {
    EXPECT_TRUE(count_.WaitFor(1));
    return status_;
  }
  int count() const { return count_.value(); }

 private:
  absl::Status status_;
  Counter count_;
};

class ReadingReactor final : public ClientReadReactor<Item> {
 public:
  ReadingReactor(const std::shared_ptr<Channel>& channel, ClientContext* context, const CountRequest& request) {
    Streams::Stub(channel).async().Count(context, &request, this);
    StartRead(&item_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (ok) StartRead(&item_);
  }
  void OnDone(const absl::Status& status) override { ends.Note(status); }

  Ends ends;

 private:
  Item item_;
};

const std::vector<Style>& Styles() {
  using ChannelPtr = std::shared_ptr<Channel>;
  static const auto* const styles = new std::vector<Style>{
      {"unary, waiting",
       [](const ChannelPtr& channel, ClientContext* context, bool held) {
         EchoReply reply;
         return Echo::Stub(channel).Echo(context, Request(held), &reply);
       }},
      {"unary, callback",
       [](const ChannelPtr& channel, ClientContext* context, bool held) {
         Ends ends;
         const EchoRequest request = Request(held);
         EchoReply reply;
         Echo::Stub(channel).async().Echo(context, &request, &reply,
                                          [&ends](absl::Status status) { ends.Note(std::move(status)); });
         return ends.Wait();
       }},
      {"unary, coroutine",
       [](const ChannelPtr& channel, ClientContext* context, bool held) {
         Echo::Stub stub(channel);
         const EchoRequest request = Request(held);
         const auto call = [&]() -> Task<absl::Status> {
           co_return (co_await stub.co().Echo(context, request)).status();
         };
         return SyncWait(call());
       }},
      {"stream, waiting",
       [](const ChannelPtr& channel, ClientContext* context, bool held) {
         const auto reader = Streams::Stub(channel).Count(context, Items(held));
         Item item;
         while (reader->Read(&item)) {
         }
         return reader->Finish();
       }},
      {"stream, reactor",
       [](const ChannelPtr& channel, ClientContext* context, bool held) {
         ReadingReactor reactor(channel, context, Items(held));
         return reactor.ends.Wait();
       }},
      {"stream, coroutine",
       [](const ChannelPtr& channel, ClientContext* context, bool held) {
         Streams::Stub stub(channel);
         const CountRequest request = Items(held);
         const auto call = [&]() -> Task<absl::Status> {
           CoClientReader<Item> reader = stub.co().Count(context, request);
           while (co_await reader.Read()) {
           }
           co_return co_await reader.Finish();
         };
         return SyncWait(call());
       }},
  };
  return *styles;
}

class OneStatusTest : public ConformanceStreamTest {
 protected:
  int handlers() const { return service_.started().value() + counters_->started.value(); }
};

TEST_P(OneStatusTest, DeadlinesOfZeroInThePastAndNever) {
  StartStreams(ServerStyle::kSynchronous);
  const auto channel = NewChannel();
  ExpectEcho(channel);
  int expected_handlers = handlers();
  for (const Style& style : Styles()) {
    SCOPED_TRACE(style.name);
    for (int i = 0; i < 4; ++i) {
      ClientContext context;
      if (i == 0) context.set_timeout(absl::ZeroDuration());
      if (i == 1) context.set_timeout(-absl::Seconds(1));
      if (i == 2) context.set_timeout(-absl::InfiniteDuration());
      if (i == 3) context.set_deadline(absl::UnixEpoch());
      const absl::Status status = style.call(channel, &context, /*held=*/false);
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    }
    for (int i = 0; i < 3; ++i) {
      ClientContext context;
      if (i == 0) context.set_timeout(absl::InfiniteDuration());
      if (i == 1) context.set_deadline(absl::InfiniteFuture());
      if (i == 2) context.set_timeout(absl::Hours(24 * 365 * 1000));  // more nanoseconds than fit 63 bits
      const absl::Status status = style.call(channel, &context, /*held=*/false);
      EXPECT_TRUE(status.ok()) << status;
      ++expected_handlers;
    }
  }
  EXPECT_EQ(handlers(), expected_handlers);
}

TEST_P(OneStatusTest, CancelBeforeDuringAndAfter) {
  StartStreams(ServerStyle::kSynchronous);
  const auto channel = NewChannel();
  ExpectEcho(channel);
  for (const Style& style : Styles()) {
    SCOPED_TRACE(style.name);
    const int before = handlers();
    {
      ClientContext context;
      context.TryCancel();
      const absl::Status status = style.call(channel, &context, /*held=*/true);
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    }
    {
      ClientContext context;
      std::thread canceller([&] {
        EXPECT_TRUE(Eventually([&] { return handlers() > before; }));
        context.TryCancel();
        context.TryCancel();
      });
      const absl::Status status = style.call(channel, &context, /*held=*/true);
      canceller.join();
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    }
    {
      ClientContext context;
      const absl::Status status = style.call(channel, &context, /*held=*/false);
      context.TryCancel();
      EXPECT_TRUE(status.ok()) << status;
    }
    EXPECT_EQ(handlers(), before + 2);
  }
  ExpectEcho(channel);
}

// Asynchronous calls, so that a second end would be noticed: the callbacks of all are counted until the channel and the
// server are gone.
TEST_P(OneStatusTest, ADeadlineAndTheReplyRaceTenThousandTimes) {
  StartStreams(ServerStyle::kCallback);
  auto channel = NewChannel();
  ExpectEcho(channel);
  struct Call {
    EchoRequest request;
    ClientContext context;
    EchoReply reply;
    Ends ends;
  };
  const int calls = Scaled(10'000);
  std::vector<std::unique_ptr<Call>> all;
  std::mt19937 random(1);
  int replies = 0;
  for (int i = 0; i < calls; ++i) {
    all.push_back(std::make_unique<Call>());
    Call& call = *all.back();
    call.request.set_payload(std::to_string(i));
    call.context.set_timeout(absl::Microseconds(random() % 400));
    Echo::Stub(channel).async().Echo(&call.context, &call.request, &call.reply,
                                     [&call](absl::Status status) { call.ends.Note(std::move(status)); });
    // Alone, or with others under way.
    if (i % 8 != 7) continue;
    for (int j = i - 7; j <= i; ++j) {
      const absl::Status status = all[j]->ends.Wait();
      if (status.ok()) {
        ++replies;
        ASSERT_EQ(all[j]->reply.payload(), all[j]->request.payload());
      } else {
        ASSERT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
      }
    }
  }
  std::vector<std::unique_ptr<ReadingReactor>> reactors;
  std::vector<std::unique_ptr<ClientContext>> contexts;
  for (int i = 0; i < calls / 10; ++i) {
    contexts.push_back(std::make_unique<ClientContext>());
    contexts.back()->set_timeout(absl::Microseconds(random() % 400));
    reactors.push_back(std::make_unique<ReadingReactor>(channel, contexts.back().get(), Items(/*held=*/false)));
    const absl::Status status = reactors.back()->ends.Wait();
    ASSERT_TRUE(status.ok() || absl::IsDeadlineExceeded(status)) << status;
  }
  ExpectEcho(channel);
  channel = nullptr;
  server_ = nullptr;
  for (const auto& call : all) EXPECT_EQ(call->ends.count(), 1);
  for (const auto& reactor : reactors) EXPECT_EQ(reactor->ends.count(), 1);
  EXPECT_EQ(counters_->ended.value(), counters_->started.value());
  RecordProperty("replies", replies);
}

INSTANTIATE_TEST_SUITE_P(Transport, OneStatusTest, testing::ValuesIn(TransportCases()), CaseName);

}  // namespace
}  // namespace shmrpc::conformance
