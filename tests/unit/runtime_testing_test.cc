// Streams without a channel.

#include "shmrpc/testing.h"

#include <memory>
#include <optional>
#include <utility>

#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/task.h"

namespace shmrpc {
namespace {

using google::protobuf::StringValue;
using ::testing::_;
using ::testing::DoAll;
using ::testing::Return;
using ::testing::SetArgPointee;

StringValue Text(const char* text) {
  StringValue message;
  message.set_value(text);
  return message;
}

template <typename R>
std::unique_ptr<testing::MockClientReader<R>> OneText() {
  auto reader = std::make_unique<testing::MockClientReader<R>>();
  EXPECT_CALL(*reader, Read(_)).WillOnce(DoAll(SetArgPointee<0>(Text("a")), Return(true))).WillOnce(Return(false));
  EXPECT_CALL(*reader, Finish()).WillOnce(Return(absl::NotFoundError("no more")));
  return reader;
}

TEST(TestingTest, AReaderIsScripted) {
  ClientReader<StringValue> reader(OneText<StringValue>());
  StringValue message;
  EXPECT_TRUE(reader.Read(&message));
  EXPECT_EQ(message.value(), "a");
  EXPECT_FALSE(reader.Read(&message));
  EXPECT_EQ(reader.Finish(), absl::NotFoundError("no more"));
}

TEST(TestingTest, ACoroutinesReaderIsScripted) {
  const auto read_all = [](CoClientReader<StringValue> reader) -> Task<absl::Status> {
    StringValue message;
    EXPECT_TRUE(co_await reader.Read(&message));
    EXPECT_EQ(message.value(), "a");
    EXPECT_FALSE((co_await reader.Read()).has_value());
    co_return co_await reader.Finish();
  };
  EXPECT_EQ(SyncWait(read_all(CoClientReader<StringValue>(OneText<StringValue>()))), absl::NotFoundError("no more"));
}

TEST(TestingTest, AWriterIsScripted) {
  auto writer = std::make_unique<testing::MockClientWriter<StringValue>>();
  EXPECT_CALL(*writer, Write(_, false)).WillOnce(Return(true));
  EXPECT_CALL(*writer, WritesDone()).WillOnce(Return(true));
  EXPECT_CALL(*writer, Finish()).WillOnce(Return(absl::OkStatus()));
  const auto write = [](CoClientWriter<StringValue, StringValue> stream) -> Task<absl::StatusOr<StringValue>> {
    EXPECT_TRUE(co_await stream.Write(Text("x")));
    EXPECT_TRUE(co_await stream.WritesDone());
    co_return co_await stream.Finish();
  };
  const absl::StatusOr<StringValue> reply =
      SyncWait(write(CoClientWriter<StringValue, StringValue>(std::move(writer), Text("reply"))));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->value(), "reply");
}

TEST(TestingTest, BothDirectionsAreScripted) {
  using Mock = testing::MockClientReaderWriter<StringValue, StringValue>;
  const auto make = [] {
    auto both = std::make_unique<Mock>();
    EXPECT_CALL(*both, Write(_, true)).WillOnce(Return(true));
    EXPECT_CALL(*both, Read(_)).WillOnce(Return(false));
    EXPECT_CALL(*both, Finish()).WillOnce(Return(absl::OkStatus()));
    return both;
  };
  ClientReaderWriter<StringValue, StringValue> waits(make());
  StringValue message;
  EXPECT_TRUE(waits.WriteLast(Text("x")));
  EXPECT_FALSE(waits.Read(&message));
  EXPECT_EQ(waits.Finish(), absl::OkStatus());
  const auto talk = [](CoClientReaderWriter<StringValue, StringValue> stream) -> Task<absl::Status> {
    EXPECT_TRUE(co_await stream.WriteLast(Text("x")));
    EXPECT_FALSE((co_await stream.Read()).has_value());
    co_return co_await stream.Finish();
  };
  EXPECT_EQ(SyncWait(talk(CoClientReaderWriter<StringValue, StringValue>(make()))), absl::OkStatus());
}

}  // namespace
}  // namespace shmrpc
