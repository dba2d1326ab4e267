// The client's styles, callbacks and coroutines, over every transport.

#include <atomic>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

// ---- Callbacks.

class CountReader final : public ClientReadReactor<Item> {
 public:
  CountReader(Streams::Stub& stub, uint64_t count, size_t payload_bytes) {
    request_.set_count(count);
    request_.set_payload_bytes(payload_bytes);
    stub.async().Count(&context, &request_, this);
    StartRead(&item_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (item_.number() == received) ++received;
    StartRead(&item_);
  }
  void OnDone(const absl::Status& status) override {
    ++ends;
    result = status;
    done.Set();
  }

  ClientContext context;
  uint64_t received = 0;
  int ends = 0;
  absl::Status result;
  Event done;

 private:
  CountRequest request_;
  Item item_;
};

TEST_P(ConformanceStreamTest, ReactorReads) {
  StartStreams(ServerStyle::kSynchronous);
  Streams::Stub stub(NewChannel());
  for (const uint64_t count : {0, 1, Scaled(3000)}) {
    CountReader reader(stub, count, 500);
    ASSERT_TRUE(reader.done.Wait());
    EXPECT_TRUE(reader.result.ok()) << reader.result;
    EXPECT_EQ(reader.received, count);
    EXPECT_EQ(reader.ends, 1);
  }
}

class SumWriter final : public ClientWriteReactor<Item> {
 public:
  SumWriter(Streams::Stub& stub, int count) : left_(count) {
    stub.async().Sum(&context, &reply, this);
    Next();
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (ok) Next();
  }
  void OnDone(const absl::Status& status) override {
    result = status;
    done.Set();
  }

  ClientContext context;
  SumReply reply;
  absl::Status result;
  Event done;

 private:
  void Next() {
    if (left_ == 0) return StartWritesDone();
    item_ = MakeItem(left_--, 700);
    StartWrite(&item_);
  }

  int left_;
  Item item_;
};

TEST_P(ConformanceStreamTest, ReactorWrites) {
  StartStreams(ServerStyle::kCallback);
  Streams::Stub stub(NewChannel());
  for (const int count : {0, 1, Scaled(3000)}) {
    SumWriter writer(stub, count);
    ASSERT_TRUE(writer.done.Wait());
    EXPECT_TRUE(writer.result.ok()) << writer.result;
    EXPECT_EQ(writer.reply.count(), static_cast<uint64_t>(count));
  }
}

// Deletes itself, its stub and its channel in OnDone.
class LastOfItsChannel final : public ClientBidiReactor<Item, Item> {
 public:
  LastOfItsChannel(std::shared_ptr<Channel> channel, int rounds, std::shared_ptr<Event> done)
      : stub_(std::move(channel)), left_(rounds), done_(std::move(done)) {
    stub_.async().Chat(&context_, this);
    Next();
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (ok && !half_closed_) StartRead(&received_);
  }
  void OnReadDone(bool ok) override {
    if (ok) Next();
  }
  void OnDone(const absl::Status& status) override {
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(left_, -1);
    const std::shared_ptr<Event> done = std::move(done_);
    delete this;
    done->Set();
  }

 private:
  void Next() {
    if (left_-- == 0) {
      half_closed_ = true;
      return StartWritesDone();
    }
    sent_ = MakeItem(left_, 100);
    StartWrite(&sent_);
  }

  Streams::Stub stub_;
  ClientContext context_;
  int left_;
  bool half_closed_ = false;
  std::shared_ptr<Event> done_;
  Item sent_, received_;
};

TEST_P(ConformanceStreamTest, ReactorMayDeleteEverythingWhenDone) {
  StartStreams(ServerStyle::kSynchronous);
  for (int i = 0; i < Scaled(50); ++i) {
    auto done = std::make_shared<Event>();
    new LastOfItsChannel(NewChannel(), 10, done);
    ASSERT_TRUE(done->Wait());
  }
}

TEST_P(ConformanceStreamTest, ReactorIsToldOfCancellationDeadlineAndALostChannel) {
  StartStreams(ServerStyle::kCoroutine);
  {
    Streams::Stub stub(NewChannel());
    CountReader reader(stub, 1'000'000'000, 10);
    ASSERT_TRUE(counters_->items_sent.WaitFor(10));
    reader.context.TryCancel();
    ASSERT_TRUE(reader.done.Wait());
    EXPECT_EQ(reader.result.code(), absl::StatusCode::kCancelled);
  }
  {
    auto channel = NewChannel();
    Streams::Stub stub(channel);
    CountReader reader(stub, 1'000'000'000, 10);
    ASSERT_TRUE(counters_->started.WaitFor(2));
    stub = Streams::Stub(nullptr);
    channel.reset();
    ASSERT_TRUE(reader.done.Wait(absl::Seconds(2)) || (reader.context.TryCancel(), reader.done.Wait()));
    EXPECT_EQ(reader.result.code(), absl::StatusCode::kCancelled) << reader.result;
  }
  EXPECT_TRUE(counters_->ended.WaitFor(2));
}

// ---- Coroutines.

Task<absl::Status> CoChat(Streams::Stub& stub, int rounds) {
  ClientContext context;
  auto chat = stub.co().Chat(&context);
  for (int i = 0; i < rounds; ++i) {
    const Item sent = MakeItem(i, i % 50);
    if (!co_await chat.Write(sent)) co_return co_await chat.Finish();
    const std::optional<Item> received = co_await chat.Read();
    if (!received.has_value()) co_return co_await chat.Finish();
    if (received->number() != sent.number() || received->payload() != sent.payload()) {
      co_return absl::DataLossError("another item came back");
    }
  }
  if (!co_await chat.WritesDone()) co_return absl::DataLossError("no half-close");
  const std::optional<Item> none = co_await chat.Read();
  if (none.has_value()) co_return absl::DataLossError("an item too many");
  co_return co_await chat.Finish();
}

Task<absl::Status> CoCountAndSum(Streams::Stub& stub, uint64_t count) {
  ClientContext count_context;
  CountRequest request;
  request.set_count(count);
  request.set_payload_bytes(1000);
  auto reader = stub.co().Count(&count_context, request);
  ClientContext sum_context;
  auto writer = stub.co().Sum(&sum_context);
  for (uint64_t expected = 0;; ++expected) {
    const std::optional<Item> item = co_await reader.Read();
    if (!item.has_value()) break;
    if (item->number() != expected) co_return absl::DataLossError("out of order");
    if (!co_await writer.Write(*item)) co_return absl::DataLossError("not written");
  }
  const absl::Status counted = co_await reader.Finish();
  if (!counted.ok()) co_return counted;
  const absl::StatusOr<SumReply> reply = co_await writer.Finish();
  if (!reply.ok()) co_return reply.status();
  co_return reply->count() == count ? absl::OkStatus() : absl::DataLossError("a wrong sum");
}

TEST_P(ConformanceStreamTest, CoroutinesStream) {
  for (const ServerStyle style : kServerStyles) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    absl::Status status = SyncWait(CoChat(stub, Scaled(500)));
    EXPECT_TRUE(status.ok()) << status;
    status = SyncWait(CoCountAndSum(stub, Scaled(2000)));
    EXPECT_TRUE(status.ok()) << status;
  }
}

Task<void> CountDown(Task<absl::Status> task, Counter* ended, std::atomic<int>* failed) {
  const absl::Status status = co_await std::move(task);
  if (!status.ok()) ++*failed;
  ended->Increment();
}

TEST_P(ConformanceStreamTest, CoroutinesByTheHundredShareAConnection) {
  StartStreams(ServerStyle::kCoroutine);
  Streams::Stub stub(NewChannel());
  Counter ended;
  std::atomic<int> failed{0};
  const int count = Scaled(300);
  for (int i = 0; i < count; ++i) Spawn(CountDown(CoChat(stub, 10), &ended, &failed));
  ASSERT_TRUE(ended.WaitFor(count));
  EXPECT_EQ(failed, 0);
}

// A service whose handlers are coroutines that sleep.
class SleepyEcho final : public Echo::CoService {
 public:
  Task<absl::Status> Echo(ServerContext*, const EchoRequest* request, EchoReply* reply) override {
    co_await Sleep(absl::Milliseconds(100));
    reply->set_payload(request->payload());
    co_return absl::OkStatus();
  }
};

Task<absl::Status> CallSleepyEcho(Echo::Stub& stub, int number) {
  EchoRequest request;
  request.set_payload(std::to_string(number));
  const absl::StatusOr<EchoReply> reply = co_await stub.co().Echo(request);
  if (!reply.ok()) co_return reply.status();
  co_return reply->payload() == request.payload() ? absl::OkStatus() : absl::DataLossError("another's reply");
}

TEST_P(ConformanceTest, TenThousandCoroutineCallsNeedFewThreads) {
  SleepyEcho sleepy;
  absl::StatusOr<std::unique_ptr<Server>> server =
      ServerBuilder(GetParam().transports()).Listen(listen_address()).Register(&sleepy).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  Echo::Stub stub(NewChannel());
  Counter ended;
  std::atomic<int> failed{0};
  const int count = Scaled(10'000);
  const absl::Time begin = absl::Now();
  for (int i = 0; i < count; ++i) Spawn(CountDown(CallSleepyEcho(stub, i), &ended, &failed));
  const int threads = CountThreads();
  ASSERT_TRUE(ended.WaitFor(count));
  RecordProperty("milliseconds", static_cast<int>(absl::ToInt64Milliseconds(absl::Now() - begin)));
  EXPECT_EQ(failed, 0);
  // Those of the client, of the server, and of the process: nine, and some more where a busy machine makes tasks look
  // as if they took long.
  EXPECT_LT(std::max(threads, CountThreads()), 20 + GetParam().library_threads);
  server_.reset();
}

}  // namespace
}  // namespace shmrpc::conformance
