// More than one would want to hold: ten thousand streams that nobody reads, messages of 1 GiB.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "case_selection.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

constexpr int64_t kKiB = 1024;

// Waits until `counter` has stood still for a while.
bool Settles(const Counter& counter) {
  const SteadyTime give_up = SteadyTime::Now() + 2 * kHangGuard;
  int last = -1;
  while (counter.value() != last) {
    if (give_up.HasPassed()) return false;
    last = counter.value();
    absl::SleepFor(absl::Milliseconds(UnderSanitizer() ? 500 : 200));
  }
  return true;
}

// Takes every stream of a client, and nothing that comes on it, until it is told to read, or the call is over.
class UnreadService final : public Streams::CallbackService {
 public:
  ServerReadReactor<Item>* Sum(ServerContext*, SumReply*) override { return new Reactor(this); }

  const Counter& begun() const { return begun_; }
  const Counter& over() const { return over_; }

 private:
  class Reactor final : public ServerReadReactor<Item> {
   public:
    explicit Reactor(UnreadService* service) : service_(service) { service_->begun_.Increment(); }
    void OnCancel() override { Finish(absl::CancelledError("never read")); }
    void OnDone() override {
      service_->over_.Increment();
      delete this;
    }

   private:
    UnreadService* const service_;
  };

  Counter begun_;
  Counter over_;
};

class UnreadStreamsTest : public ConformanceStreamTest {
 protected:
  // Ten thousand, or as many as a short test has the time for.
  static int NumberOfStreams(int short_number, int long_number = 10'000) {
#if SHMRPC_LONG_TESTS
    return Scaled(long_number);
#else
    return Scaled(short_number);
#endif
  }
  static bool OverGrpc() { return absl::StartsWith(GetParam().expected, "grpc"); }

  // What they may take, in KiB: of windows, and for themselves at both ends.
  static int64_t Bound(int streams, const FlowControlOptions& windows, size_t item_bytes) {
    // Over HTTP/2 there is no window for all streams together: each has its own, and 64 KiB to begin with.
    const size_t each =
        OverGrpc() ? std::max(windows.stream_bytes, size_t{64 * kKiB}) * 2 : windows.stream_bytes / 4 + item_bytes;
    return static_cast<int64_t>(2 * windows.connection_bytes + streams * (each + 24 * kKiB)) / kKiB +
           (UnderSanitizer() ? 1024 * 1024 : 64 * 1024);
  }
};

// Writes as long as there is room.
class Writer final : public ClientWriteReactor<Item> {
 public:
  Writer(Streams::Stub& stub, const Item& item, Counter* written, Counter* done)
      : item_(item), written_(written), done_(done) {
    stub.async().Sum(&context, &reply_, this);
    StartWrite(&item_);
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return;
    written_->Increment();
    StartWrite(&item_);
  }
  void OnDone(const absl::Status& status) override {
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    done_->Increment();
  }

  ClientContext context;

 private:
  const Item& item_;
  Counter* const written_;
  Counter* const done_;
  SumReply reply_;
};

TEST_P(UnreadStreamsTest, AServerThatReadsNoneStopsThemAllAndTakesOtherCalls) {
  UnreadService unread;
  FlowControlOptions windows;
  windows.stream_bytes = FlowControlOptions::kMinStreamBytes;
  windows.connection_bytes = 1024 * kKiB;
  StartServer(NewServerBuilder().Register(&unread).SetFlowControl(windows), listen_address());
  const auto channel = NewChannel();
  ExpectEcho(channel, RandomBytes(1024 * kKiB, 1));
  // Over gRPC a connection has 1000 calls, and one more waits.
  const int streams = OverGrpc() ? NumberOfStreams(900, 900) : NumberOfStreams(10'000);
  constexpr size_t kItemBytes = 1000;
  const Item item = MakeItem(1, kItemBytes);
  Counter written, done;
  const int64_t before = ResidentKiB();
  std::vector<std::unique_ptr<Writer>> writers;
  {
    Streams::Stub stub(channel);
    for (int i = 0; i < streams; ++i) writers.push_back(std::make_unique<Writer>(stub, item, &written, &done));
  }
  EXPECT_TRUE(unread.begun().WaitFor(streams));
  EXPECT_TRUE(Settles(written));
  const int64_t taken = ResidentKiB() - before;
  RecordProperty("written", written.value());
  RecordProperty("resident_kib", absl::StrCat(taken));
  EXPECT_GT(written.value(), 0);
  EXPECT_LT(taken, Bound(streams, windows, kItemBytes)) << written.value() << " items were written";
  EXPECT_EQ(done.value(), 0);
  ExpectEcho(channel, RandomBytes(100'000, 2));
  ExpectEcho(NewChannel(), RandomBytes(100'000, 3));

  for (const auto& writer : writers) writer->context.TryCancel();
  EXPECT_TRUE(done.WaitFor(streams));
  EXPECT_TRUE(unread.over().WaitFor(streams));
  ExpectEcho(channel);
  server_ = nullptr;  // before its service
}

TEST_P(UnreadStreamsTest, AClientThatReadsNoneStopsThemAllAndMakesOtherCalls) {
  StartStreams(ServerStyle::kCallback);
  const auto channel = NewChannel();
  ExpectEcho(channel, RandomBytes(1024 * kKiB, 1));
  // Each may have a quarter of its window under way, 64 KiB; over gRPC twice as much, and slowly.
  const int streams = OverGrpc() ? NumberOfStreams(200, 900) : NumberOfStreams(2000);
  CountRequest request;
  constexpr size_t kItemBytes = 1000;
  request.set_count(uint64_t{1} << 40);
  request.set_payload_bytes(kItemBytes);
  std::vector<ClientContext> contexts(streams);
  std::vector<std::unique_ptr<ClientReader<Item>>> readers;
  const int64_t before = ResidentKiB();
  {
    Streams::Stub stub(channel);
    for (ClientContext& context : contexts) readers.push_back(stub.Count(&context, request));
  }
  // Nobody may be there to receive: a call gets everything that is due before its own reply.
  ExpectEcho(channel, RandomBytes(100'000, 2));
  EXPECT_TRUE(counters_->started.WaitFor(streams));
  EXPECT_TRUE(Settles(counters_->items_sent));
  const int64_t taken = ResidentKiB() - before;
  RecordProperty("sent", counters_->items_sent.value());
  RecordProperty("resident_kib", absl::StrCat(taken));
  EXPECT_GT(counters_->items_sent.value(), 0);
  EXPECT_LT(taken, Bound(streams, FlowControlOptions(), kItemBytes))
      << counters_->items_sent.value() << " items were sent";
  ExpectEcho(channel, RandomBytes(100'000, 3));
  ExpectEcho(NewChannel(), RandomBytes(100'000, 4));
  EXPECT_EQ(counters_->ended.value(), 0);

  for (ClientContext& context : contexts) context.TryCancel();
  for (const auto& reader : readers) EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(counters_->ended.WaitFor(streams));
  ExpectEcho(channel);
}

INSTANTIATE_TEST_SUITE_P(Transport, UnreadStreamsTest, testing::ValuesIn(TransportCases()), CaseName);

#if SHMRPC_LONG_TESTS
constexpr int64_t kGiB = kKiB * kKiB * kKiB;

class LargeMessageTest : public ConformanceTest {};

TEST_P(LargeMessageTest, OneGiBEachWay) {
  if (UnderSanitizer()) GTEST_SKIP() << "takes too much memory under a sanitizer";
  StartServer(
      NewServerBuilder().SetMaxReceiveMessageBytes(kMaxMaxMessageBytes).SetMaxSendMessageBytes(kMaxMaxMessageBytes),
      listen_address());
  ChannelOptions options = NewChannelOptions();
  options.max_send_message_bytes = kMaxMaxMessageBytes;
  options.max_receive_message_bytes = kMaxMaxMessageBytes;
  const auto channel = NewChannel(options);
  Echo::Stub stub(channel);
  {
    EchoRequest request;
    request.set_payload(std::string(kGiB, 'x'));
    request.set_reply_bytes(1);
    const absl::StatusOr<EchoReply> reply = stub.Echo(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->payload(), "r");
  }
  {
    EchoRequest request;
    request.set_reply_bytes(kGiB);
    const absl::StatusOr<EchoReply> reply = stub.Echo(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->payload().size(), static_cast<size_t>(kGiB));
    EXPECT_EQ(std::count(reply->payload().begin(), reply->payload().end(), 'r'), kGiB);
  }
  ExpectEcho(channel);
}

INSTANTIATE_TEST_SUITE_P(Transport, LargeMessageTest, testing::ValuesIn(TransportCases()), CaseName);
#endif

}  // namespace
}  // namespace shmrpc::conformance
