#include "runtime/src/large_message.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/dynamic_message.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/message.h"

namespace shmrpc::internal {
namespace {

using google::protobuf::Any;
using google::protobuf::BytesValue;
using google::protobuf::Descriptor;
using google::protobuf::Message;

constexpr size_t kLarge = LargeMessage::kLeastField;

// A message type with everything that can be inside or beside a large field.
constexpr char kFile[] = R"pb(
  name: "large.proto"
  package: "large"
  message_type {
    name: "Tree"
    field { name: "number" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
    field { name: "body" number: 2 type: TYPE_BYTES label: LABEL_OPTIONAL }
    field { name: "text" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "parts" number: 4 type: TYPE_BYTES label: LABEL_REPEATED }
    field { name: "child" number: 5 type: TYPE_MESSAGE type_name: ".large.Tree" label: LABEL_OPTIONAL }
    field { name: "children" number: 6 type: TYPE_MESSAGE type_name: ".large.Tree" label: LABEL_REPEATED }
    field { name: "one_body" number: 7 type: TYPE_BYTES label: LABEL_OPTIONAL oneof_index: 0 }
    field {
      name: "one_child"
      number: 8
      type: TYPE_MESSAGE
      type_name: ".large.Tree"
      label: LABEL_OPTIONAL
      oneof_index: 0
    }
    field { name: "by_name" number: 9 type: TYPE_MESSAGE type_name: ".large.Tree.ByNameEntry" label: LABEL_REPEATED }
    field { name: "fixed" number: 10 type: TYPE_FIXED32 label: LABEL_OPTIONAL }
    field { name: "real" number: 11 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
    field {
      name: "packed"
      number: 12
      type: TYPE_INT32
      label: LABEL_REPEATED
      options { packed: true }
    }
    field { name: "group" number: 13 type: TYPE_GROUP type_name: ".large.Tree.Group" label: LABEL_OPTIONAL }
    oneof_decl { name: "one" }
    nested_type {
      name: "ByNameEntry"
      field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "value" number: 2 type: TYPE_BYTES label: LABEL_OPTIONAL }
      options { map_entry: true }
    }
    nested_type {
      name: "Group"
      field { name: "body" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL }
    }
  }
)pb";

// The tags of the tree's fields.
constexpr char kBody = 2 << 3 | 2, kChild = 5 << 3 | 2, kOneBody = 7 << 3 | 2, kOneChild = 8 << 3 | 2;

std::string Varint(size_t value) {
  std::string bytes;
  for (; value > 0x7f; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}

std::string Field(char tag, const std::string& value) { return tag + Varint(value.size()) + value; }

class LargeMessageTest : public ::testing::Test {
 protected:
  LargeMessageTest() {
    google::protobuf::FileDescriptorProto file;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(kFile, &file));
    const google::protobuf::FileDescriptor* const built = pool_.BuildFile(file);
    tree_ = built == nullptr ? nullptr : built->FindMessageTypeByName("Tree");
    EXPECT_NE(tree_, nullptr);
  }

  std::unique_ptr<Message> NewTree() { return std::unique_ptr<Message>(factory_.GetPrototype(tree_)->New()); }

  size_t Size(size_t least, size_t most) { return std::uniform_int_distribution<size_t>(least, most)(random_); }
  bool OneIn(size_t n) { return Size(1, n) == 1; }

  std::string Bytes() {
    std::string bytes(OneIn(2) ? Size(0, 40) : Size(kLarge - 2, kLarge * 5 / 2), 'b');
    for (size_t i = 0; i < bytes.size(); i += 61) bytes[i] = static_cast<char>(random_());
    return bytes;
  }

  // The bytes of a tree, its fields in any order and any number of times each, as other libraries may send them.
  std::string Tree(int depth) {
    std::string bytes;
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream out(&stream);
    const auto put = [&](uint32_t number, const std::string& value) {
      out.WriteTag(number << 3 | 2);
      out.WriteVarint32(static_cast<uint32_t>(value.size()));
      out.WriteString(value);
    };
    for (size_t fields = Size(0, 5); fields > 0; --fields) {
      switch (const auto number = static_cast<uint32_t>(Size(1, 15)); number) {
        case 1:
          out.WriteTag(number << 3);
          out.WriteVarint64(random_());
          break;
        case 10:
          out.WriteTag(number << 3 | 5);
          out.WriteLittleEndian32(static_cast<uint32_t>(random_()));
          break;
        case 11:
          out.WriteTag(number << 3 | 1);
          out.WriteLittleEndian64(random_());
          break;
        case 3:
          put(number, std::string(Bytes().size(), 't'));
          break;
        case 5:
        case 6:
        case 8:
          if (depth > 0) put(number, Tree(depth - 1));
          break;
        case 9:
          put(number, absl::StrCat("\x0a\x01k\x12\x02", "vv"));
          break;
        case 12:
          put(number, std::string(OneIn(2) ? 3 : kLarge, '\x07'));
          break;
        case 13:
          if (!OneIn(4)) break;
          out.WriteTag(number << 3 | 3);
          put(1, Bytes());
          out.WriteTag(number << 3 | 4);
          break;
        default:  // bytes, and unknown fields
          put(number, Bytes());
      }
    }
    out.Trim();
    return bytes;
  }

  // Lets a LargeMessage take `bytes` in pieces of any size.
  void AppendTo(LargeMessage* large, std::string_view bytes, size_t largest_piece) {
    while (!bytes.empty()) {
      const size_t piece = std::min(bytes.size(), Size(1, largest_piece));
      large->Append(bytes.substr(0, piece));
      bytes.remove_prefix(piece);
    }
  }

  // Expects the same of a LargeMessage as of protobuf. Returns whether `bytes` are a message.
  bool ExpectAsProtobuf(const std::string& bytes) {
    const std::unique_ptr<Message> expected = NewTree();
    const bool parsed = expected->ParsePartialFromString(bytes);
    for (const size_t largest_piece : {size_t{7}, kLarge, 4 * kLarge}) {
      LargeMessage large(tree_, bytes.size());
      AppendTo(&large, bytes, largest_piece);
      std::string joined;
      for (const std::string_view piece : large.Pieces()) joined.append(piece);
      EXPECT_TRUE(joined == bytes);
      const std::unique_ptr<Message> message = NewTree();
      EXPECT_EQ(large.ParseTo(message.get()), parsed);
      if (!parsed) continue;
      EXPECT_TRUE(Canonical(*message) == Canonical(*expected)) << bytes.size() << " bytes";
    }
    return parsed;
  }

  static std::string Canonical(const Message& message) {
    std::string bytes;
    {
      google::protobuf::io::StringOutputStream stream(&bytes);
      google::protobuf::io::CodedOutputStream out(&stream);
      out.SetSerializationDeterministic(true);
      EXPECT_TRUE(message.SerializePartialToCodedStream(&out));
    }
    return bytes;
  }

  // Of text that is not UTF-8, which proto2 takes, and of keys that come twice.
  const google::protobuf::LogSilencer no_complaints_;
  google::protobuf::DescriptorPool pool_;
  google::protobuf::DynamicMessageFactory factory_;
  const Descriptor* tree_ = nullptr;
  std::mt19937_64 random_{20260};
};

TEST_F(LargeMessageTest, IsWhatProtobufMakesOfTheWhole) {
  int large = 0;
  for (int i = 0; i < 400; ++i) {
    const std::string bytes = Tree(4);
    EXPECT_TRUE(ExpectAsProtobuf(bytes));
    if (bytes.size() > 2 * kLarge) ++large;
  }
  EXPECT_GT(large, 100);
}

TEST_F(LargeMessageTest, RefusesWhatProtobufRefuses) {
  int refused = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bytes = Tree(3);
    if (bytes.empty()) continue;
    // Where the headers are, mostly, or anywhere.
    const size_t place = OneIn(2) ? Size(0, std::min<size_t>(bytes.size() - 1, 30)) : Size(0, bytes.size() - 1);
    switch (Size(1, 4)) {
      case 1:
        bytes[place] = static_cast<char>(random_());
        break;
      case 2:
        bytes.insert(place, 1, static_cast<char>(random_()));
        break;
      case 3:
        bytes.erase(place, 1);
        break;
      case 4:
        bytes.resize(place);
        break;
    }
    if (!ExpectAsProtobuf(bytes)) ++refused;
  }
  EXPECT_GT(refused, 100);
}

// Fields that come last win, wherever large ones stand.
TEST_F(LargeMessageTest, LaterFieldsReplaceAndMergeAsProtobufSays) {
  const std::string big(kLarge, 'x');
  EXPECT_TRUE(ExpectAsProtobuf(Field(kBody, big) + Field(kBody, "last")));
  EXPECT_TRUE(ExpectAsProtobuf(Field(kBody, "first") + Field(kBody, big)));
  EXPECT_TRUE(ExpectAsProtobuf(Field(kBody, big) + Field(kBody, "")));
  EXPECT_TRUE(ExpectAsProtobuf(Field(kOneBody, big) + Field(kOneChild, "\x08\x01")));
  EXPECT_TRUE(ExpectAsProtobuf(Field(kOneChild, Field(kBody, big)) + Field(kOneBody, big)));
  EXPECT_TRUE(ExpectAsProtobuf(Field(kChild, Field(kBody, big) + "\x08\x01") + Field(kChild, "\x08\x02")));
  EXPECT_TRUE(ExpectAsProtobuf(Field(kChild, Field(kChild, Field(kBody, big)) + "\x08\x01") + "\x08\x02"));
}

TEST_F(LargeMessageTest, MoreFieldsAndLevelsThanItLooksAt) {
  std::string many = Field(kBody, std::string(kLarge, 'x'));
  for (int i = 0; i < 3000; ++i) many += "\x08\x05";
  EXPECT_TRUE(ExpectAsProtobuf(many));
  // Large at every level, so that the outer ones are entered, and nested deeper than protobuf takes.
  std::string deep = many;
  for (int i = 0; i < 110; ++i) {
    deep = Field(kChild, deep);
    EXPECT_EQ(ExpectAsProtobuf(deep), i < 100) << i;
  }
  // The large field is further out than what is nested too deep.
  std::string small;
  for (int i = 0; i < 110; ++i) {
    small = Field(kChild, small);
    const std::string inner = Field(kBody, std::string(kLarge, 'x')) + small;
    EXPECT_EQ(ExpectAsProtobuf(Field(kChild, Field(kChild, inner))), i < 98) << i;
  }
}

// A tag that takes more bytes than protobuf's five, a length that takes more than it needs.
TEST_F(LargeMessageTest, NumbersThatAreLongerThanTheyNeedBe) {
  const std::string big(kLarge, 'x');
  EXPECT_TRUE(ExpectAsProtobuf(std::string("\x92\x00\x80\x80\x01", 5) + big));
  EXPECT_TRUE(ExpectAsProtobuf(std::string("\x12\x80\x80\x81\x00", 5) + big));
  EXPECT_FALSE(ExpectAsProtobuf(std::string("\x92\x80\x80\x80\x80\x00\x80\x80\x01", 9) + big));
  EXPECT_FALSE(ExpectAsProtobuf(std::string("\x12\x80\x80\x81\x80\x80\x00", 7) + big));
}

TEST_F(LargeMessageTest, MovesTheLargeFieldOfAGeneratedMessage) {
  Any any;
  any.set_type_url("type.example.com/large");
  any.set_value(std::string(3 * kLarge, 'v'));
  const std::string bytes = any.SerializeAsString();
  LargeMessage large(Any::descriptor(), bytes.size());
  AppendTo(&large, bytes, kLarge);
  const std::span<const std::string_view> pieces = large.Pieces();
  ASSERT_EQ(pieces.size(), 2);
  const char* const value = pieces[1].data();
  Any parsed;
  parsed.set_type_url("is replaced");
  ASSERT_TRUE(large.ParseTo(&parsed));
  EXPECT_EQ(parsed.SerializeAsString(), bytes);
  EXPECT_EQ(parsed.value().data(), value);  // not copied again
}

TEST_F(LargeMessageTest, AnotherTypeThanExpectedAndNoTypeAtAll) {
  Any any;  // has its bytes where a tree has its body
  any.set_type_url("type.example.com/large");
  any.set_value(std::string(2 * kLarge, 'v'));
  const std::string bytes = any.SerializeAsString();
  for (const Descriptor* type : {tree_, static_cast<const Descriptor*>(nullptr), Any::descriptor()}) {
    LargeMessage large(type, bytes.size());
    AppendTo(&large, bytes, 1000);
    Any parsed;
    ASSERT_TRUE(large.ParseTo(&parsed));
    EXPECT_EQ(parsed.SerializeAsString(), bytes);
  }
}

TEST_F(LargeMessageTest, IsSeenAsAnIncomingMessage) {
  BytesValue value;
  value.set_value(std::string(2 * kLarge, 'v'));
  const std::string bytes = value.SerializeAsString();
  LargeMessage large(BytesValue::descriptor(), bytes.size());
  AppendTo(&large, bytes, 1000);
  const IncomingMessage message(large);
  EXPECT_EQ(message.size(), bytes.size());
  BytesValue parsed;
  ASSERT_TRUE(message.ParseTo(&parsed));
  EXPECT_EQ(parsed.value(), value.value());
}

// What was announced and does not come must cost address space at most, and only so much of it.
TEST_F(LargeMessageTest, AnAnnouncementIsNotBelievedBeyondALimit) {
  const size_t announced = size_t{2000} << 20;
  const std::string begin = kBody + Varint(announced);
  LargeMessage large(tree_, announced + begin.size());
  large.Append(begin + std::string(100, 'x'));
  EXPECT_LE(large.reserved_bytes(), LargeMessage::kReservedAtOnce + 1000);
  LargeMessage unknown(nullptr, announced);
  unknown.Append(std::string(100, 'x'));
  EXPECT_LE(unknown.reserved_bytes(), LargeMessage::kReservedAtOnce + 1000);
}

}  // namespace
}  // namespace shmrpc::internal
