// What a stream is, over every transport and with a server of every style: order, ends, metadata, cancellation. The
// client is synchronous.

#include <thread>

#include "absl/time/clock.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::HasSubstr;

#define FOR_EVERY_STYLE(style)                  \
  for (const ServerStyle style : kServerStyles) \
    if (const testing::ScopedTrace trace(__FILE__, __LINE__, StyleName(style)); true)

TEST_P(ConformanceStreamTest, TheServersMessagesArriveInOrderAndThenTheStatus) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    for (const uint64_t count : {0, 1, 3, Scaled(5000)}) {
      ClientContext context;
      CountRequest request;
      request.set_count(count);
      request.set_payload_bytes(100);
      const auto reader = stub.Count(&context, request);
      uint64_t received = 0;
      for (Item item; reader->Read(&item); ++received) {
        ASSERT_EQ(item.number(), received);
        ASSERT_EQ(item.payload(), std::string(100, 'c'));
      }
      EXPECT_EQ(received, count);
      const absl::Status status = reader->Finish();
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

TEST_P(ConformanceStreamTest, TheClientsMessagesAreAllTakenBeforeTheReply) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    for (const uint64_t count : {0, 1, 3, Scaled(5000)}) {
      ClientContext context;
      SumReply reply;
      const auto writer = stub.Sum(&context, &reply);
      for (uint64_t i = 0; i < count; ++i) ASSERT_TRUE(writer->Write(MakeItem(i)));
      EXPECT_TRUE(writer->WritesDone());
      const absl::Status status = writer->Finish();
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(reply.count(), count);
      EXPECT_EQ(reply.sum(), count == 0 ? 0 : count * (count - 1) / 2);
    }
  }
}

TEST_P(ConformanceStreamTest, AChatGoesBackAndForth) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    ClientContext context;
    const auto chat = stub.Chat(&context);
    for (int i = 0; i < Scaled(500); ++i) {
      const Item sent = MakeItem(i, i % 300);
      ASSERT_TRUE(chat->Write(sent));
      Item received;
      ASSERT_TRUE(chat->Read(&received));
      ASSERT_EQ(received.number(), sent.number());
      ASSERT_EQ(received.payload(), sent.payload());
    }
    EXPECT_TRUE(chat->WritesDone());
    Item none;
    EXPECT_FALSE(chat->Read(&none));
    const absl::Status status = chat->Finish();
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_P(ConformanceStreamTest, MessagesOfEverySizeGoThroughAChat) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    ClientContext context;
    const auto chat = stub.Chat(&context);
    const size_t sizes[] = {0, 1, 60'000, 65'480, 65'500, 65'520, 65'540, 200'000, 1, 3'000'000, 0};
    std::thread writer([&] {
      uint64_t number = 0;
      for (const size_t size : sizes) EXPECT_TRUE(chat->Write(MakeItem(number++, size)));
      EXPECT_TRUE(chat->WritesDone());
    });
    uint64_t number = 0;
    for (const size_t size : sizes) {
      Item received;
      EXPECT_TRUE(chat->Read(&received));
      EXPECT_EQ(received.number(), number);
      EXPECT_TRUE(received.payload() == RandomBytes(size, number)) << size;
      ++number;
    }
    writer.join();
    const absl::Status status = chat->Finish();
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_P(ConformanceStreamTest, InitialMetadataComesBeforeTheMessagesAndTrailingMetadataWithTheEnd) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    CountRequest request;
    MetadataEntry* entry = request.add_initial_metadata();
    entry->set_key("first");
    entry->set_value("one");
    entry = request.add_trailing_metadata();
    entry->set_key("last");
    entry->set_value("two");
    request.set_count(1);
    request.set_wait_for_cancellation(true);
    {
      ClientContext context;
      const auto reader = stub.Count(&context, request);
      reader->WaitForInitialMetadata();  // while the handler still runs
      EXPECT_EQ(context.GetServerInitialMetadata().Find("first"), "one");
      Item item;
      EXPECT_TRUE(reader->Read(&item));
      context.TryCancel();
      EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kCancelled);
    }
    request.set_wait_for_cancellation(false);
    ClientContext context;
    const auto reader = stub.Count(&context, request);
    Item item;
    EXPECT_TRUE(reader->Read(&item));
    EXPECT_FALSE(reader->Read(&item));
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_EQ(context.GetServerInitialMetadata().Find("first"), "one");
    EXPECT_EQ(context.GetServerTrailingMetadata().Find("last"), "two");
  }
}

TEST_P(ConformanceStreamTest, AnErrorComesAfterTheMessagesBeforeIt) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    CountRequest request;
    request.set_count(10);
    *request.mutable_end() = ToProto(absl::DataLossError("that was all"));
    ClientContext context;
    const auto reader = stub.Count(&context, request);
    int received = 0;
    for (Item item; reader->Read(&item);) ++received;
    EXPECT_EQ(received, 10);
    EXPECT_EQ(reader->Finish(), absl::DataLossError("that was all"));
  }
}

TEST_P(ConformanceStreamTest, AServerMayEndACallWhoseClientStillWrites) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    ClientContext context;
    SumReply reply;
    const auto writer = stub.Sum(&context, &reply);
    Item last = MakeItem(1);
    *last.mutable_end() = ToProto(absl::AbortedError("enough"));
    EXPECT_TRUE(writer->Write(last));
    EXPECT_TRUE(Eventually([&] { return !writer->Write(MakeItem(2, 1000)); })) << "Write goes on for ever";
    EXPECT_EQ(writer->Finish(), absl::AbortedError("enough"));
    ExpectEcho(NewChannel());
  }
}

TEST_P(ConformanceStreamTest, FinishDropsWhatWasNotRead) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    CountRequest request;
    request.set_count(Scaled(2000));
    request.set_payload_bytes(1000);  // several windows
    ClientContext context;
    const auto reader = stub.Count(&context, request);
    Item item;
    EXPECT_TRUE(reader->Read(&item));
    const absl::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(counters_->items_sent.value(), Scaled(2000));
  }
}

// The server has ended the stream with OK, and the client has not read all of it: cancelled now, the stream may not end
// with that OK, which would pass a part of it off as the whole.
TEST_P(ConformanceStreamTest, ACancellationThatLosesMessagesIsTheStatus) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    const auto channel = NewChannel();
    Streams::Stub stub(channel);
    for (int i = 1; i <= 20; ++i) {
      ClientContext context;
      CountRequest request;
      request.set_count(3);
      const auto reader = stub.Count(&context, request);
      Item item;
      ASSERT_TRUE(reader->Read(&item));
      ASSERT_TRUE(counters_->ended.WaitFor(i));
      // The end may be at the client, or under way.
      if (i % 2 == 0) ExpectEcho(channel);
      if (i % 4 == 0) absl::SleepFor(absl::Milliseconds(3));
      context.TryCancel();
      int received = 1;
      while (reader->Read(&item)) ++received;
      const absl::Status status = reader->Finish();
      if (received == 3 && status.ok()) continue;
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << received << " of 3 items: " << status;
    }
  }
}

TEST_P(ConformanceStreamTest, TheHandlerLearnsOfACancellation) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    {  // while it reads
      ClientContext context;
      SumReply reply;
      const auto writer = stub.Sum(&context, &reply);
      EXPECT_TRUE(writer->Write(MakeItem(1)));
      ASSERT_TRUE(counters_->items_read.WaitFor(1));
      context.TryCancel();
      ASSERT_TRUE(counters_->cancelled.WaitFor(1));
      EXPECT_EQ(writer->Finish().code(), absl::StatusCode::kCancelled);
    }
    {  // while it waits for room
      ClientContext context;
      CountRequest request;
      request.set_count(1'000'000'000);
      request.set_payload_bytes(10'000);
      const auto reader = stub.Count(&context, request);
      Item item;
      EXPECT_TRUE(reader->Read(&item));
      context.TryCancel();
      ASSERT_TRUE(counters_->cancelled.WaitFor(2));
      EXPECT_FALSE(reader->Read(&item));
      EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kCancelled);
    }
    {  // when the client throws the stream away
      ClientContext context;
      auto chat = stub.Chat(&context);
      EXPECT_TRUE(chat->Write(MakeItem(1)));
      Item item;
      EXPECT_TRUE(chat->Read(&item));
      chat.reset();
      ASSERT_TRUE(counters_->cancelled.WaitFor(3));
    }
    EXPECT_TRUE(counters_->ended.WaitFor(3));
  }
}

TEST_P(ConformanceStreamTest, ADeadlineEndsAStreamOnBothSides) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    const auto channel = NewChannel();
    ExpectEcho(channel);
    Streams::Stub stub(channel);
    ClientContext context;
    context.set_timeout(absl::Milliseconds(100));
    const auto chat = stub.Chat(&context);
    EXPECT_TRUE(chat->Write(MakeItem(1)));
    Item item;
    EXPECT_TRUE(chat->Read(&item));
    EXPECT_FALSE(chat->Read(&item));
    EXPECT_EQ(chat->Finish().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_TRUE(counters_->cancelled.WaitFor(1));
  }
}

TEST_P(ConformanceStreamTest, AnUnknownMethodSaysSo) {
  StartServer();  // without Streams
  Streams::Stub stub(NewChannel());
  ClientContext context;
  const auto chat = stub.Chat(&context);
  Item item;
  EXPECT_FALSE(chat->Read(&item));
  const absl::Status status = chat->Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("shmrpc.conformance.Streams"));
}

TEST_P(ConformanceStreamTest, AMessageBeyondALimitEndsItsCallOnly) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style, [](ServerBuilder& builder) { builder.SetMaxReceiveMessageBytes(100'000); });
    const auto channel = NewChannel();
    Streams::Stub stub(channel);
    for (const size_t size : {100'200, 1'000'000}) {  // in one piece for no transport, and in many
      ClientContext context;
      const auto chat = stub.Chat(&context);
      EXPECT_TRUE(chat->Write(MakeItem(1, 50'000)));
      Item item;
      EXPECT_TRUE(chat->Read(&item));
      (void)chat->Write(MakeItem(2, size));
      EXPECT_FALSE(chat->Read(&item));
      EXPECT_EQ(chat->Finish().code(), absl::StatusCode::kResourceExhausted) << "too large for the server";
    }
    {
      ClientContext context;
      context.set_max_receive_message_bytes(1000);
      CountRequest request;
      request.set_count(2);
      request.set_payload_bytes(2000);
      const auto reader = stub.Count(&context, request);
      Item item;
      EXPECT_FALSE(reader->Read(&item));
      EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kResourceExhausted) << "too large for the client";
    }
    {
      ClientContext context;
      context.set_max_send_message_bytes(1000);
      const auto chat = stub.Chat(&context);
      EXPECT_FALSE(chat->Write(MakeItem(1, 2000)));
      EXPECT_EQ(chat->Finish().code(), absl::StatusCode::kResourceExhausted) << "too large to be sent";
    }
    ExpectEcho(channel);
  }
}

TEST_P(ConformanceStreamTest, AMessageThatTheServerMayNotSendEndsItsCallOnly) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style, [](ServerBuilder& builder) { builder.SetMaxSendMessageBytes(1000); });
    const auto channel = NewChannel();
    Streams::Stub stub(channel);
    ClientContext context;
    const auto chat = stub.Chat(&context);
    EXPECT_TRUE(chat->Write(MakeItem(1, 500)));
    Item item;
    EXPECT_TRUE(chat->Read(&item));
    EXPECT_TRUE(chat->Write(MakeItem(2, 2000)));
    EXPECT_FALSE(chat->Read(&item));
    EXPECT_EQ(chat->Finish().code(), absl::StatusCode::kResourceExhausted);
    ExpectEcho(channel);
  }
}

TEST_P(ConformanceStreamTest, AShutdownWaitsForStreamsAndRefusesNewOnes) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    const auto channel = NewChannel();
    Streams::Stub stub(channel);
    ClientContext context;
    const auto chat = stub.Chat(&context);
    ASSERT_TRUE(chat->Write(MakeItem(1)));
    Item item;
    ASSERT_TRUE(chat->Read(&item));
    std::thread shutdown([&] { server_->Shutdown(absl::InfiniteFuture()); });
    EXPECT_TRUE(Eventually([&] {
      ClientContext other;
      CountRequest request;
      return stub.Count(&other, request)->Finish().code() == absl::StatusCode::kUnavailable;
    }));
    for (int i = 0; i < 10; ++i) {
      EXPECT_TRUE(chat->Write(MakeItem(i)));
      EXPECT_TRUE(chat->Read(&item));
    }
    EXPECT_TRUE(chat->WritesDone());
    const absl::Status status = chat->Finish();
    EXPECT_TRUE(status.ok()) << status;
    shutdown.join();
  }
}

TEST_P(ConformanceStreamTest, AShutdownAtItsDeadlineCancelsStreams) {
  FOR_EVERY_STYLE(style) {
    StartStreams(style);
    Streams::Stub stub(NewChannel());
    ClientContext context;
    const auto chat = stub.Chat(&context);
    ASSERT_TRUE(chat->Write(MakeItem(1)));
    Item item;
    ASSERT_TRUE(chat->Read(&item));
    server_->Shutdown(absl::Now() + absl::Milliseconds(20));
    EXPECT_EQ(counters_->ended.value(), 1) << "Shutdown waits for handlers";
    EXPECT_FALSE(chat->Read(&item));
    EXPECT_EQ(chat->Finish().code(), absl::StatusCode::kUnavailable);
  }
}

}  // namespace
}  // namespace shmrpc::conformance
