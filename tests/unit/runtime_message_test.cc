#include "shmrpc/message.h"

#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"

namespace shmrpc {
namespace {

using google::protobuf::ListValue;
using google::protobuf::StringValue;

// Has nested messages, so that pieces end inside tags, lengths and strings.
ListValue MakeList() {
  ListValue list;
  for (int i = 0; i < 20; ++i) {
    list.add_values()->set_string_value(std::string(static_cast<size_t>(i) * 13, 'a'));
    list.add_values()->set_number_value(i);
  }
  return list;
}

std::vector<std::string_view> Cut(std::string_view bytes, size_t piece_size) {
  std::vector<std::string_view> pieces;
  for (size_t i = 0; i < bytes.size(); i += piece_size) pieces.push_back(bytes.substr(i, piece_size));
  return pieces;
}

TEST(IncomingMessageTest, ParsesAnyNumberOfPieces) {
  const ListValue expected = MakeList();
  const std::string bytes = expected.SerializeAsString();
  for (size_t piece_size : {size_t{1}, size_t{2}, size_t{7}, size_t{64}, bytes.size() - 1, bytes.size()}) {
    const std::vector<std::string_view> pieces = Cut(bytes, piece_size);
    const IncomingMessage message(pieces);
    EXPECT_EQ(message.size(), bytes.size());
    ListValue parsed;
    parsed.add_values()->set_string_value("is replaced");
    ASSERT_TRUE(message.ParseTo(&parsed)) << piece_size;
    EXPECT_EQ(parsed.SerializeAsString(), bytes) << piece_size;
  }
}

TEST(IncomingMessageTest, NoPieceIsAnEmptyMessage) {
  const IncomingMessage message({});
  StringValue parsed;
  parsed.set_value("is replaced");
  EXPECT_TRUE(message.ParseTo(&parsed));
  EXPECT_EQ(parsed.value(), "");
}

TEST(IncomingMessageTest, RefusesWhatIsNoMessage) {
  StringValue text;
  text.set_value("0123456789");
  const std::string bytes = text.SerializeAsString();
  for (size_t size = 1; size < bytes.size(); ++size) {
    const std::string_view cut = std::string_view(bytes).substr(0, size);
    EXPECT_FALSE(IncomingMessage(std::span(&cut, 1)).ParseTo(&text)) << size;
    const std::vector<std::string_view> pieces = Cut(cut, 3);
    EXPECT_FALSE(IncomingMessage(pieces).ParseTo(&text)) << size;
  }
}

TEST(OutgoingProtoTest, WritesTheSameEitherWay) {
  const ListValue list = MakeList();
  const OutgoingProto message(list);
  const std::string expected = list.SerializeAsString();
  ASSERT_EQ(message.size(), expected.size());

  std::string array(message.size(), '\0');
  message.SerializeToArray(reinterpret_cast<uint8_t*>(array.data()));
  EXPECT_EQ(array, expected);

  for (int block_size : {1, 3, 16, 4096}) {
    std::string streamed(message.size(), '\0');
    google::protobuf::io::ArrayOutputStream stream(streamed.data(), static_cast<int>(streamed.size()), block_size);
    EXPECT_TRUE(message.SerializeToStream(&stream));
    EXPECT_EQ(stream.ByteCount(), static_cast<int64_t>(expected.size()));
    EXPECT_EQ(streamed, expected);
  }
}

TEST(OutgoingProtoTest, ReportsAStreamThatEndsEarly) {
  const ListValue list = MakeList();
  const OutgoingProto message(list);
  std::string room(message.size() - 1, '\0');
  google::protobuf::io::ArrayOutputStream stream(room.data(), static_cast<int>(room.size()));
  EXPECT_FALSE(message.SerializeToStream(&stream));
}

}  // namespace
}  // namespace shmrpc
