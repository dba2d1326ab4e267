#include "shmrpc/metadata.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(MetadataTest, KeepsPairsInOrder) {
  Metadata metadata = {{"b", "1"}, {"a", "2"}};
  metadata.Add("b", "3");
  EXPECT_EQ(metadata.size(), 3u);
  EXPECT_EQ(metadata.Find("b"), std::optional<std::string_view>("1"));
  EXPECT_EQ(metadata.Find("c"), std::nullopt);
  EXPECT_THAT(metadata.FindAll("b"), ElementsAre("1", "3"));
  EXPECT_TRUE(metadata.FindAll("c").empty());
  EXPECT_EQ(metadata, (Metadata{{"b", "1"}, {"a", "2"}, {"b", "3"}}));
  metadata.clear();
  EXPECT_TRUE(metadata.empty());
}

TEST(MetadataTest, CountsBytesAsHttp2Does) {
  EXPECT_EQ(Metadata().ByteSize(), 0u);
  EXPECT_EQ((Metadata{{"key", "value"}, {"k", ""}}).ByteSize(), 3u + 5 + 32 + 1 + 0 + 32);
}

TEST(MetadataTest, AcceptsWhatTheRulesAllow) {
  const Metadata metadata = {{"a-z_0.9", " ~"}, {"empty", ""}, {"x-bin", std::string("\0\xff\n", 3)}, {"grpc", "x"}};
  EXPECT_EQ(metadata.Validate(), absl::OkStatus());
  EXPECT_EQ(Metadata().Validate(), absl::OkStatus());
}

TEST(MetadataTest, NamesThePairThatBreaksARule) {
  struct {
    Metadata::Entry entry;
    std::string named;
    std::string why;
  } const cases[] = {
      {{"", "the value"}, "the value", "empty key"},
      {{"Upper", "x"}, "Upper", "'U'"},
      {{"a b", "x"}, "a b", "' '"},
      {{"umlaut\xc3\xa4", "x"}, "umlaut\\xc3\\xa4", "a-z"},
      {{"grpc-status", "x"}, "grpc-status", "reserved"},
      {{"shmrpc-x-bin", "x"}, "shmrpc-x-bin", "reserved"},
      {{"key", "tab\t"}, "\"key\"", "\"-bin\""},
      {{"key", "\x7f"}, "\"key\"", "printable"},
      {{"key", std::string("a\0", 2)}, "\"key\"", "a\\x00"},
      {{"bin", "\xff"}, "\"bin\"", "printable"},
  };
  for (const auto& bad : cases) {
    Metadata metadata = {{"good", "x"}};
    metadata.Add(bad.entry.first, bad.entry.second);
    const absl::Status status = metadata.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.named));
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.why));
  }
}

TEST(MetadataTest, LimitsTheSizeExactly) {
  Metadata metadata = {{"k", std::string(Metadata::kMaxByteSize - 33, 'x')}};
  EXPECT_EQ(metadata.ByteSize(), Metadata::kMaxByteSize);
  EXPECT_EQ(metadata.Validate(), absl::OkStatus());
  metadata = {{"k", std::string(Metadata::kMaxByteSize - 32, 'x')}};
  EXPECT_EQ(metadata.Validate().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(metadata.Validate().message()), HasSubstr("8193"));
}

}  // namespace
}  // namespace shmrpc
