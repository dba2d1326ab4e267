// What bounds a stream: flow control, and that streams and calls of one connection do not hold each other up.

#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

// How much a sender can have got rid of when nobody reads: the window of one call, the message that goes beyond it, and
// what one message adds to its payload.
int MostItemsUnderWay(size_t payload_bytes) {
  return static_cast<int>(FlowControlOptions().stream_bytes / payload_bytes) + 2;
}

// Waits until `counter` has stood still for a while.
void WaitUntilSettled(const Counter& counter) {
  int last = -1;
  while (counter.value() != last) {
    last = counter.value();
    absl::SleepFor(absl::Milliseconds(UnderSanitizer() ? 300 : 50));
  }
}

TEST_P(ConformanceStreamTest, FlowAReaderThatStopsStopsItsServerAndNobodyElse) {
  for (const ServerStyle style : kServerStyles) {
    StartStreams(style);
    const auto channel = NewChannel();
    Streams::Stub stub(channel);
    CountRequest request;
    request.set_count(Scaled(3000));
    request.set_payload_bytes(1000);
    ClientContext context;
    const auto stalled = stub.Count(&context, request);
    ASSERT_TRUE(counters_->items_sent.WaitFor(100));
    // Another stream of the same connection, longer than all windows together, and other calls.
    ClientContext other_context;
    const auto chat = stub.Chat(&other_context);
    Item item;
    for (int i = 0; i < Scaled(2000); ++i) {
      ASSERT_TRUE(chat->Write(MakeItem(i, 5000)));
      ASSERT_TRUE(chat->Read(&item));
      ASSERT_EQ(item.number(), static_cast<uint64_t>(i));
    }
    EXPECT_TRUE(chat->Finish().ok());
    ExpectEcho(channel, RandomBytes(3'000'000, 1));
    // The handler of the first one waits.
    WaitUntilSettled(counters_->items_sent);
    const int of_chat = Scaled(2000);
    EXPECT_LE(counters_->items_sent.value() - of_chat, MostItemsUnderWay(1000)) << StyleName(style);
    uint64_t received = 0;
    while (stalled->Read(&item)) ASSERT_EQ(item.number(), received++);
    EXPECT_EQ(received, request.count());
    EXPECT_TRUE(stalled->Finish().ok());
  }
}

TEST_P(ConformanceStreamTest, FlowAServerThatDoesNotReadStopsItsClient) {
  StartStreams(ServerStyle::kSynchronous);
  Streams::Stub stub(NewChannel());
  // A chat whose client does not read stops its server, which then does not read either.
  ClientContext context;
  context.set_timeout(kHangGuard);
  const auto chat = stub.Chat(&context);
  Counter written;
  const int count = Scaled(3000);
  std::thread writer([&] {
    for (int i = 0; i < count; ++i) {
      if (!chat->Write(MakeItem(i, 1000))) break;
      written.Increment();
    }
    chat->WritesDone();
  });
  WaitUntilSettled(written);
  EXPECT_LE(written.value(), 2 * MostItemsUnderWay(1000) + 2);
  Item item;
  int received = 0;
  while (chat->Read(&item)) {
    ASSERT_EQ(item.number(), static_cast<uint64_t>(received));
    ++received;
  }
  writer.join();
  EXPECT_EQ(received, count);
  const absl::Status status = chat->Finish();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(ConformanceStreamTest, FlowAMillionMessagesEachWayArriveInOrderAndInFlatMemory) {
  StartStreams(ServerStyle::kSynchronous);
  Streams::Stub stub(NewChannel());
  ClientContext context;
  const auto chat = stub.Chat(&context);
  const uint64_t count = static_cast<uint64_t>(Scaled(Scaled(Scaled(1'000'000))));
  std::thread writer([&] {
    Item item;
    item.set_payload(std::string(56, 'x'));
    for (uint64_t i = 0; i < count; ++i) {
      item.set_number(i);
      ASSERT_TRUE(chat->Write(item));
    }
    EXPECT_TRUE(chat->WritesDone());
  });
  Item item;
  uint64_t received = 0;
  int64_t early = 0, most = 0;
  while (chat->Read(&item)) {
    ASSERT_EQ(item.number(), received);
    ++received;
    if (received == count / 10) early = ResidentKiB();
    if (received % 10'000 == 0) most = std::max(most, ResidentKiB());
  }
  writer.join();
  EXPECT_EQ(received, count);
  const absl::Status status = chat->Finish();
  EXPECT_TRUE(status.ok()) << status;
  RecordProperty("resident_kib_early", static_cast<int>(early));
  RecordProperty("resident_kib_most", static_cast<int>(most));
  if (!UnderSanitizer()) {
    EXPECT_LT(most, early + 16 * 1024);
  }
}

TEST_P(ConformanceStreamTest, FlowEmptyMessagesAreBoundedToo) {
  StartStreams(ServerStyle::kSynchronous);
  Streams::Stub stub(NewChannel());
  CountRequest request;
  request.set_count(1'000'000'000);
  ClientContext context;
  const auto reader = stub.Count(&context, request);
  ASSERT_TRUE(counters_->items_sent.WaitFor(100));
  WaitUntilSettled(counters_->items_sent);
  EXPECT_LE(counters_->items_sent.value(),
            static_cast<int>(FlowControlOptions().stream_bytes / GetParam().message_overhead_bytes) + 2);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kCancelled);
}

TEST_P(ConformanceStreamTest, FlowFullRingsInBothDirectionsDoNotDeadlock) {
  for (const ServerStyle style : kServerStyles) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    ClientContext context;
    context.set_timeout(2 * kHangGuard);
    const auto chat = stub.Chat(&context);
    const int count = Scaled(300);
    std::thread writer([&] {
      for (int i = 0; i < count; ++i) ASSERT_TRUE(chat->Write(MakeItem(i, 200'000)));
      EXPECT_TRUE(chat->WritesDone());
    });
    absl::SleepFor(absl::Milliseconds(50));
    Item item;
    int received = 0;
    while (chat->Read(&item)) {
      EXPECT_EQ(item.number(), static_cast<uint64_t>(received));
      EXPECT_EQ(item.payload().size(), 200'000u);
      ++received;
    }
    writer.join();
    EXPECT_EQ(received, count);
    const absl::Status status = chat->Finish();
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_P(ConformanceStreamTest, FlowManyStalledStreamsLeaveRoomForOneMore) {
  StartStreams(ServerStyle::kCoroutine);
  const auto channel = NewChannel();
  Streams::Stub stub(channel);
  CountRequest request;
  request.set_count(1'000'000'000);
  request.set_payload_bytes(5000);
  constexpr int kStalled = 40;  // times a window is more than the connection's
  std::vector<ClientContext> contexts(kStalled);
  std::vector<std::unique_ptr<ClientReader<Item>>> stalled;
  for (ClientContext& context : contexts) stalled.push_back(stub.Count(&context, request));
  WaitUntilSettled(counters_->items_sent);
  EXPECT_LE(counters_->items_sent.value() * 5000.0,
            FlowControlOptions().connection_bytes + kStalled * (FlowControlOptions().stream_bytes / 4 + 6000.0));
  request.set_count(Scaled(1000));
  ClientContext context;
  const auto reader = stub.Count(&context, request);
  Item item;
  uint64_t received = 0;
  while (reader->Read(&item)) ASSERT_EQ(item.number(), received++);
  EXPECT_EQ(received, request.count());
  const absl::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status;
  for (ClientContext& each : contexts) each.TryCancel();
  for (auto& each : stalled) EXPECT_EQ(each->Finish().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(counters_->ended.WaitFor(kStalled + 1));
}

TEST_P(ConformanceStreamTest, FlowWindowsAreWhatTheServerSays) {
  StartStreams(ServerStyle::kSynchronous, [](ServerBuilder& builder) {
    FlowControlOptions options;
    options.stream_bytes = FlowControlOptions::kMinStreamBytes;
    options.connection_bytes = FlowControlOptions::kMinStreamBytes;
    builder.SetFlowControl(options);
  });
  Streams::Stub stub(NewChannel());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      ClientContext context;
      SumReply reply;
      const auto writer = stub.Sum(&context, &reply);
      for (int i = 0; i < Scaled(500); ++i) ASSERT_TRUE(writer->Write(MakeItem(1, i * 37 % 30'000)));
      const absl::Status status = writer->Finish();
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_EQ(reply.count(), static_cast<uint64_t>(Scaled(500)));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(ConformanceStreamTest, FlowALargerWindowTakesMoreOfAClientBeforeItIsRead) {
  constexpr size_t kWindow = 1 << 20;
  StartStreams(ServerStyle::kSynchronous, [](ServerBuilder& builder) {
    FlowControlOptions options;
    options.stream_bytes = kWindow;
    options.connection_bytes = 2 * kWindow;
    builder.SetFlowControl(options);
  });
  Streams::Stub stub(NewChannel());
  ClientContext context;
  const auto chat = stub.Chat(&context);
  Counter written;
  std::thread writer([&] {
    for (int i = 0; i < 10'000 && chat->Write(MakeItem(i, 1000)); ++i) written.Increment();
  });
  // Over some transports half of it is for messages that are on their way; the rest of what the options say is there.
  EXPECT_TRUE(written.WaitFor(static_cast<int>(kWindow / 2 / 1000)));
  WaitUntilSettled(written);
  EXPECT_LE(written.value() * 1000, static_cast<int>(kWindow + FlowControlOptions().stream_bytes) + 50'000);
  context.TryCancel();
  writer.join();
  EXPECT_EQ(chat->Finish().code(), absl::StatusCode::kCancelled);
}

TEST_P(ConformanceStreamTest, FlowStreamsAndCallsOfManyThreadsShareAConnection) {
  for (const ServerStyle style : kServerStyles) {
    StartStreams(style);
    const auto channel = NewChannel();
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        Streams::Stub stub(channel);
        for (int round = 0; round < Scaled(20); ++round) {
          ClientContext context;
          if (t % 4 == 0) {
            const auto chat = stub.Chat(&context);
            Item item;
            for (int i = 0; i < 20; ++i) {
              ASSERT_TRUE(chat->Write(MakeItem(i, i * 1000)));
              ASSERT_TRUE(chat->Read(&item));
              ASSERT_EQ(item.payload().size(), static_cast<size_t>(i * 1000));
            }
            ASSERT_TRUE(chat->Finish().ok());
          } else if (t % 4 == 1) {
            CountRequest request;
            request.set_count(200);
            request.set_payload_bytes(round * 500);
            const auto reader = stub.Count(&context, request);
            Item item;
            uint64_t received = 0;
            while (reader->Read(&item)) ASSERT_EQ(item.number(), received++);
            ASSERT_EQ(received, 200u);
            ASSERT_TRUE(reader->Finish().ok());
          } else if (t % 4 == 2) {
            SumReply reply;
            const auto writer = stub.Sum(&context, &reply);
            for (int i = 0; i < 200; ++i) ASSERT_TRUE(writer->Write(MakeItem(i, 300)));
            ASSERT_TRUE(writer->Finish().ok());
            ASSERT_EQ(reply.sum(), 199u * 100);
          } else {
            ExpectEcho(channel, RandomBytes(round * 3000, round));
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

// Handlers that wait, each for its own stream, and calls between them: whichever of the server's threads receives gets
// what is another's, after it has slept or while it still looks.
TEST_P(ConformanceStreamTest, FlowStreamsAndCallsTakeTurnsOnAConnection) {
  for (const ServerStyle style : kServerStyles) {
    StartStreams(style);
    const auto channel = NewChannel();
    Streams::Stub stub(channel);
    ClientContext contexts[3];
    std::vector<std::unique_ptr<ClientReaderWriter<Item, Item>>> chats;
    for (ClientContext& context : contexts) chats.push_back(stub.Chat(&context));
    for (int i = 0; i < Scaled(100); ++i) {
      if (i % 10 == 9) absl::SleepFor(absl::Milliseconds(5));  // they go to sleep
      // One after the other, one alone, none.
      for (size_t chat = 0; chat < chats.size() && i % 4 != 3; ++chat) {
        if (i % 4 == 1 && chat != 1) continue;
        Item item;
        ASSERT_TRUE(chats[chat]->Write(MakeItem(i, i)));
        ASSERT_TRUE(chats[chat]->Read(&item));
        ASSERT_EQ(item.number(), static_cast<uint64_t>(i));
      }
      ExpectEcho(channel, RandomBytes(i * 10, i));
    }
    for (const auto& chat : chats) EXPECT_TRUE(chat->Finish().ok());
  }
}

// Exactly one end, whoever is first; the counters tell that every handler has ended.
TEST_P(ConformanceStreamTest, FlowCancellationAndReplyRace) {
  for (const ServerStyle style : kServerStyles) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    const int rounds = Scaled(2000);
    int ok = 0, cancelled = 0;
    for (int i = 0; i < rounds; ++i) {
      ClientContext context;
      const auto chat = stub.Chat(&context);
      std::thread canceller;
      if (i % 8 == 0) {  // a thread costs more than the call
        canceller = std::thread([&] { context.TryCancel(); });
      }
      (void)chat->WriteLast(MakeItem(1));
      if (i % 8 == 1) context.TryCancel();
      Item item;
      (void)chat->Read(&item);
      if (i % 8 == 2) context.TryCancel();
      const absl::Status status = chat->Finish();
      status.ok() ? ++ok : ++cancelled;
      if (!status.ok()) {
        ASSERT_EQ(status.code(), absl::StatusCode::kCancelled);
      }
      if (canceller.joinable()) canceller.join();
    }
    EXPECT_EQ(ok + cancelled, rounds);
    EXPECT_GT(ok, 0);
    EXPECT_GT(cancelled, 0);
    server_->Shutdown(absl::InfiniteFuture());
    EXPECT_EQ(counters_->started.value(), counters_->ended.value());
  }
}

}  // namespace
}  // namespace shmrpc::conformance
