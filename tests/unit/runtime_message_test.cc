#include "shmrpc/message.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "runtime/src/client_call_parameters.h"
#include "runtime/src/parse_failure.h"

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

std::vector<absl::string_view> Cut(absl::string_view bytes, size_t piece_size) {
  std::vector<absl::string_view> pieces;
  for (size_t i = 0; i < bytes.size(); i += piece_size) pieces.push_back(bytes.substr(i, piece_size));
  return pieces;
}

TEST(IncomingMessageTest, ParsesAnyNumberOfPieces) {
  const ListValue expected = MakeList();
  const std::string bytes = expected.SerializeAsString();
  for (size_t piece_size : {size_t{1}, size_t{2}, size_t{7}, size_t{64}, bytes.size() - 1, bytes.size()}) {
    const std::vector<absl::string_view> pieces = Cut(bytes, piece_size);
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
    const absl::string_view cut = absl::string_view(bytes).substr(0, size);
    EXPECT_FALSE(IncomingMessage(absl::MakeConstSpan(&cut, 1)).ParseTo(&text)) << size;
    const std::vector<absl::string_view> pieces = Cut(cut, 3);
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

// A list in a list, and so on: each takes two levels of nesting, a ListValue and a Value.
std::string NestedLists(int lists) {
  std::string bytes;
  for (int i = 0; i < lists; ++i) {
    for (const char field : {'\x32', '\x0a'}) {  // Value.list_value, ListValue.values
      std::string length;
      for (size_t left = bytes.size();; left >>= 7) {
        length += static_cast<char>((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
        if (left <= 0x7f) break;
      }
      bytes = field + length + bytes;
    }
  }
  return bytes;
}

TEST(IncomingMessageTest, WhatIsNestedTooDeeplyIsToldWithItsDepthAndTheLimit) {
  for (const size_t piece_size : {size_t{7}, size_t{100'000}}) {
    const std::string fits = NestedLists(50), too_deep = NestedLists(51);
    ListValue parsed;
    EXPECT_TRUE(IncomingMessage(Cut(fits, piece_size)).ParseTo(&parsed));
    const std::vector<absl::string_view> pieces = Cut(too_deep, piece_size);
    const IncomingMessage message(pieces);
    ASSERT_FALSE(message.ParseTo(&parsed));
    const std::string why = internal::WhyNotParsed(message, parsed);
    EXPECT_TRUE(absl::StrContains(why, "nested 102 levels deep, more than the 100")) << why;
    EXPECT_FALSE(absl::StrContains(why, ".proto files")) << why;
  }
}

TEST(IncomingMessageTest, WhatIsNestedBeyondAllBoundsIsNotCountedOut) {
  const std::string bytes = NestedLists(20'000);
  const std::vector<absl::string_view> pieces = Cut(bytes, bytes.size());
  EXPECT_TRUE(absl::StrContains(internal::WhyNotParsed(IncomingMessage(pieces), ListValue()), "10000 or more"));
}

TEST(IncomingMessageTest, WhatIsMalformedOtherwiseIsNotCalledNested) {
  std::string bytes = NestedLists(60);
  bytes.pop_back();
  for (const std::string& broken : {bytes, std::string("\xff\xff\xff"), std::string("\x0a\x05")}) {
    const std::vector<absl::string_view> pieces = Cut(broken, broken.size());
    const IncomingMessage message(pieces);
    ListValue parsed;
    ASSERT_FALSE(message.ParseTo(&parsed));
    EXPECT_TRUE(absl::StrContains(internal::WhyNotParsed(message, parsed), "is not a google.protobuf.ListValue"));
  }
}

// Whatever the options allow: the sender is told before anything is sent.
TEST(MessageLimitTest, WhatProtobufCouldNotParseIsNotSent) {
  ChannelOptions options;
  options.max_send_message_bytes = options.max_receive_message_bytes = std::numeric_limits<int>::max();
  const CallParameters parameters("/a.Service/Method", MethodKind::kUnary, nullptr, options);
  constexpr size_t kLargest = (size_t{1} << 31) - 17;
  EXPECT_TRUE(parameters.CheckRequestSize(kLargest).ok());
  const absl::Status too_large = parameters.CheckRequestSize(kLargest + 1);
  EXPECT_EQ(too_large.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(too_large.message(), "2147483631")) << too_large;
  EXPECT_EQ(parameters.ToSpec().max_receive_message_bytes, kLargest);
}

TEST(OutgoingProtoDeathTest, AMessageThatChangesWhileItIsSentEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const char* later : {"", "longer"}) {
    StringValue message;
    message.set_value("text");
    const OutgoingProto outgoing(message);
    message.set_value(later);
    uint8_t target[64];
    EXPECT_DEATH(outgoing.SerializeToArray(target), "google.protobuf.StringValue had 6 bytes");
  }
}

}  // namespace
}  // namespace shmrpc
