#include "transports/framed/frame.h"

#include <random>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/wire.pb.h"

namespace shmrpc::framed {
namespace {

// A whole frame as the receiver sees it.
std::string Frame(FrameHeader header, const std::string& control, const std::string& message) {
  header.length = static_cast<uint32_t>(kFrameHeaderBytes + control.size() + message.size());
  std::string frame(reinterpret_cast<const char*>(&header), sizeof header);
  return frame + control + message;
}

FrameHeader HeaderOf(const std::string& frame) {
  return LoadFrameHeader(reinterpret_cast<const uint8_t*>(frame.data()));
}

std::string RequestFrame(SteadyTime deadline, const Metadata& metadata, const std::string& message) {
  FrameHeader header;
  header.type = FrameType::kRequest;
  std::string control;
  EncodeRequestControl(deadline, &metadata, &header.flags, &control);
  return Frame(header, control, message);
}

std::string ResponseFrame(const Metadata& initial, const absl::Status& status, const Metadata& trailing,
                          const std::string& message) {
  FrameHeader header;
  header.type = FrameType::kResponse;
  std::string control;
  EncodeResponseControl(&initial, status, &trailing, &header.flags, &header.code, &control);
  return Frame(header, control, message);
}

TEST(FrameTest, HeaderIsSixteenBytesInTheSpecifiedOrder) {
  FrameHeader header;
  header.type = FrameType::kFragment;
  header.flags = kFlagMore;
  header.code = 0x0203;
  header.call_id = 0x0405060708090a0b;
  uint8_t bytes[kFrameHeaderBytes] = {0x10};
  StoreFrameHeader(bytes, header);
  const uint8_t expected[kFrameHeaderBytes] = {0x10, 0, 0, 0, 4, 1, 3, 2, 0xb, 0xa, 9, 8, 7, 6, 5, 4};
  EXPECT_EQ(std::memcmp(bytes, expected, sizeof bytes), 0);
}

TEST(FrameTest, APlainRequestHasNothingBetweenHeaderAndMessage) {
  const std::string frame = RequestFrame(SteadyTime::InfiniteFuture(), Metadata(), "message");
  EXPECT_EQ(frame.size(), kFrameHeaderBytes + 7);
  RequestControl control;
  ASSERT_TRUE(DecodeRequestControl(frame, HeaderOf(frame), &control).ok());
  EXPECT_EQ(control.deadline, SteadyTime::InfiniteFuture());
  EXPECT_TRUE(control.metadata.empty());
  EXPECT_EQ(frame.substr(control.message_offset), "message");
  EXPECT_EQ(control.message_bytes, 7u);
}

TEST(FrameTest, TheFirstPieceOfAMessageBeginsWithItsSize) {
  FrameHeader header;
  header.type = FrameType::kRequest;
  header.flags = kFlagMore;
  const std::string frame = Frame(header, std::string("\x08\0\0\0", 4), "message");
  RequestControl control;
  ASSERT_TRUE(DecodeRequestControl(frame, HeaderOf(frame), &control).ok());
  EXPECT_EQ(control.message_bytes, 8u);
  EXPECT_EQ(frame.substr(control.message_offset), "message");
  for (const char announced : {'\0', '\x06', '\x07'}) {
    std::string wrong = frame;
    wrong[kFrameHeaderBytes] = announced;
    EXPECT_TRUE(absl::IsInternal(DecodeRequestControl(wrong, HeaderOf(wrong), &control))) << int{announced};
  }
}

TEST(FrameTest, RequestWithDeadlineAndMetadata) {
  const Metadata metadata = {{"key", "value"}, {"key", "again"}, {"some-bin", std::string("\0\xff\n", 3)}};
  const SteadyTime deadline = SteadyTime::Now() + absl::Seconds(5);
  const std::string frame = RequestFrame(deadline, metadata, "");
  RequestControl control;
  ASSERT_TRUE(DecodeRequestControl(frame, HeaderOf(frame), &control).ok());
  EXPECT_EQ(control.metadata, metadata);
  EXPECT_GE(control.deadline, deadline);
  EXPECT_LT(control.deadline, deadline + absl::Seconds(2)) << "as time left, so later by what it took to get here";
  EXPECT_EQ(control.message_offset, frame.size());
}

TEST(FrameTest, ADeadlineThatHasPassedTravelsAsZeroLeft) {
  const std::string frame = RequestFrame(SteadyTime::InfinitePast(), Metadata(), "");
  RequestControl control;
  ASSERT_TRUE(DecodeRequestControl(frame, HeaderOf(frame), &control).ok());
  EXPECT_LE(control.deadline, SteadyTime::Now());
}

TEST(FrameTest, ResponseWithEverything) {
  absl::Status status(absl::StatusCode::kAborted, "tab\t, newline\n, \xc3\xa9 and \xff");
  status.SetPayload("type.googleapis.com/x", absl::Cord(std::string("\0\1\2", 3)));
  const Metadata initial = {{"a", "1"}}, trailing = {{"b-bin", std::string(1, '\0')}};
  const std::string frame = ResponseFrame(initial, status, trailing, "");
  ResponseControl control;
  ASSERT_TRUE(DecodeResponseControl(frame, HeaderOf(frame), &control).ok());
  EXPECT_EQ(control.status, status);
  EXPECT_EQ(control.initial_metadata, initial);
  EXPECT_EQ(control.trailing_metadata, trailing);
}

TEST(FrameTest, TooLongAStatusIsCutAndSaysSo) {
  absl::Status status(absl::StatusCode::kUnknown, std::string(1 << 20, 'x'));
  status.SetPayload("t", absl::Cord(std::string(1 << 20, 'y')));
  const std::string frame = ResponseFrame(Metadata(), status, Metadata(), "");
  EXPECT_LT(frame.size(), kMaxControlBytes);
  ResponseControl control;
  ASSERT_TRUE(DecodeResponseControl(frame, HeaderOf(frame), &control).ok());
  EXPECT_EQ(control.status.code(), absl::StatusCode::kUnknown);
  EXPECT_TRUE(absl::StrContains(control.status.message(), "cut"));
  EXPECT_TRUE(absl::StrContains(control.status.message(), "details"));
}

// A frame in which `control` is all there is between header and message.
std::string RawFrame(FrameType type, uint8_t flags, const std::string& control) {
  FrameHeader header;
  header.type = type;
  header.flags = flags;
  return Frame(header, control, "");
}
std::string Block(const google::protobuf::MessageLite& message) {
  const std::string bytes = message.SerializeAsString();
  const uint32_t size = static_cast<uint32_t>(bytes.size());
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + bytes;
}

// Whatever a handler makes of its status: many small details, long texts, as much metadata as the rules allow and more.
TEST(FrameTest, AStatusThatAHandlerPassesOnFitsAFrame) {
  for (const size_t message_bytes : {0, 16384, 20000}) {
    for (const int payloads : {0, 64, 65, 6100}) {
      for (const size_t metadata_bytes : {0, 8150, 30000, 70000}) {
        for (const absl::StatusCode code : {absl::StatusCode::kOk, absl::StatusCode::kAborted}) {
          absl::Status status(code, std::string(message_bytes, 'm'));
          for (int i = 0; i < payloads; ++i) {
            const char url[2] = {static_cast<char>(i), static_cast<char>(i >> 8)};
            status.SetPayload(absl::string_view(url, 2), absl::Cord(""));
          }
          Metadata initial, trailing;
          if (metadata_bytes > 0) initial.Add("a", std::string(metadata_bytes, 'i'));
          if (metadata_bytes > 0) trailing.Add("b", std::string(metadata_bytes, 't'));
          const std::string frame = ResponseFrame(initial, status, trailing, "");
          ASSERT_LE(frame.size(), kFrameHeaderBytes + kMaxEncodedControlBytes);
          ResponseControl control;
          ASSERT_EQ(DecodeResponseControl(frame, HeaderOf(frame), &control), absl::OkStatus());
          const bool fits = metadata_bytes <= Metadata::kMaxByteSize;
          EXPECT_EQ(control.initial_metadata, fits ? initial : Metadata());
          EXPECT_EQ(control.trailing_metadata, fits ? trailing : Metadata());
          if (code == absl::StatusCode::kOk) {
            EXPECT_EQ(control.status.code(), fits ? code : absl::StatusCode::kInternal);
          } else {
            EXPECT_EQ(control.status.code(), code);
            EXPECT_EQ(absl::StrContains(control.status.message(), "cut"), message_bytes > 16384);
            EXPECT_EQ(absl::StrContains(control.status.message(), "details"), payloads > 64);
          }
          if (!fits) {
            EXPECT_TRUE(absl::StrContains(control.status.message(), "metadata was too large"));
          }
        }
      }
    }
  }
}

TEST(FrameTest, AReceiverCutsAStatusToo) {
  wire::StatusBlock block;
  block.set_message(std::string(20000, 'm'));
  for (int i = 0; i < 10000; ++i) block.add_payloads();
  const std::string frame = RawFrame(FrameType::kResponse, kFlagStatus | kFlagNoMessage, Block(block));
  FrameHeader header = HeaderOf(frame);
  header.code = 10;
  ResponseControl control;
  ASSERT_EQ(DecodeResponseControl(frame, header, &control), absl::OkStatus());
  EXPECT_EQ(control.status.code(), absl::StatusCode::kAborted);
  EXPECT_LT(control.status.message().size(), kMaxStatusMessageBytes + 256);
  EXPECT_TRUE(absl::StrContains(control.status.message(), "cut"));
  EXPECT_TRUE(absl::StrContains(control.status.message(), "details"));
  int payloads = 0;
  control.status.ForEachPayload([&](absl::string_view, const absl::Cord&) { ++payloads; });
  EXPECT_EQ(payloads, 0);
}

TEST(FrameTest, AControlPartBeyondTheLimitIsMalformed) {
  for (const size_t bytes : {kMaxControlBytes, kMaxControlBytes + 1}) {
    wire::StatusBlock block;
    const size_t overhead = 4 + 1 + 3;  // the block's size, and the field's tag and length
    block.set_message(std::string(bytes - overhead, 'm'));
    const std::string frame = RawFrame(FrameType::kResponse, kFlagStatus | kFlagNoMessage, Block(block));
    ASSERT_EQ(frame.size(), kFrameHeaderBytes + bytes);
    ResponseControl response;
    EXPECT_EQ(DecodeResponseControl(frame, HeaderOf(frame), &response).code(),
              bytes <= kMaxControlBytes ? absl::StatusCode::kOk : absl::StatusCode::kInternal);
  }
  wire::MetadataBlock block;
  block.add_entries()->set_value(std::string(kMaxControlBytes, 'v'));
  const std::string request = RawFrame(FrameType::kRequest, kFlagMetadata, Block(block));
  RequestControl control;
  EXPECT_EQ(DecodeRequestControl(request, HeaderOf(request), &control).code(), absl::StatusCode::kInternal);
  const std::string headers = RawFrame(FrameType::kHeaders, kFlagMetadata, Block(block));
  Metadata metadata;
  EXPECT_EQ(DecodeHeaders(headers, HeaderOf(headers), &metadata).code(), absl::StatusCode::kInternal);
}

// A block of which each entry costs two bytes is not read to its end.
TEST(FrameTest, MetadataMadeOfManyEmptyEntriesIsRefusedAfterAsManyAsMayBe) {
  for (const int entries : {257, 5000, 20000}) {
    wire::MetadataBlock block;
    for (int i = 0; i < entries; ++i) block.add_entries();
    const std::string frame = RawFrame(FrameType::kRequest, kFlagMetadata, Block(block));
    RequestControl control;
    EXPECT_EQ(DecodeRequestControl(frame, HeaderOf(frame), &control).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_LE(control.metadata.size(), 257u);
    EXPECT_EQ(control.message_offset, frame.size());
  }
}

// Every encoding of metadata that keeps the rules is within the bound for a block.
TEST(FrameTest, AsMuchMetadataAsMayBeArrives) {
  Metadata many, large;
  for (int i = 0; i < 8192 / 33; ++i) many.Add("k", "");
  large.Add("key", std::string(8192 - 32 - 3, 'v'));
  for (const Metadata& metadata : {many, large}) {
    ASSERT_EQ(metadata.Validate(), absl::OkStatus());
    const std::string frame = RequestFrame(SteadyTime::InfiniteFuture(), metadata, "");
    RequestControl control;
    EXPECT_EQ(DecodeRequestControl(frame, HeaderOf(frame), &control), absl::OkStatus());
    EXPECT_EQ(control.metadata, metadata);
  }
}

TEST(FrameTest, UnknownFieldsOfABlockArePassedOver) {
  // An entry with the fields 3 (a number), 4 (eight bytes), 5 (four bytes) and 6 (a text) around the value.
  const std::string entry = std::string("\x0a\x01k\x18\x96\x01\x21", 7) + std::string(8, 'x') + "\x2d" +
                            std::string(4, 'x') + std::string("\x32\x02yy\x12\x01v", 7);
  std::string block = std::string("\x10\x01\x0a", 3) + static_cast<char>(entry.size()) + entry;
  const uint32_t size = static_cast<uint32_t>(block.size());
  block.insert(0, reinterpret_cast<const char*>(&size), sizeof size);
  const std::string frame = RawFrame(FrameType::kRequest, kFlagMetadata, block);
  RequestControl control;
  ASSERT_EQ(DecodeRequestControl(frame, HeaderOf(frame), &control), absl::OkStatus());
  EXPECT_EQ(control.metadata, (Metadata{{"k", "v"}}));
}

TEST(FrameTest, ACreditForNothingIsMalformed) {
  for (const Credit& credit : {Credit{0, 0}, Credit{0, 1}, Credit{1, 0}}) {
    char body[kCreditBytes];
    EncodeCredit(credit, body);
    const std::string frame = RawFrame(FrameType::kCredit, 0, std::string(body, sizeof body));
    Credit decoded;
    EXPECT_EQ(DecodeCredit(frame, HeaderOf(frame), &decoded).ok(), !credit.empty());
  }
}

TEST(FrameTest, AnUnknownStatusCodeBecomesUnknown) {
  std::string frame = ResponseFrame(Metadata(), absl::InternalError("x"), Metadata(), "");
  frame[6] = 17;
  ResponseControl control;
  ASSERT_TRUE(DecodeResponseControl(frame, HeaderOf(frame), &control).ok());
  EXPECT_EQ(control.status.code(), absl::StatusCode::kUnknown);
}

TEST(FrameTest, ACallThatWasNotProcessedHasNoResult) {
  const std::string frame = ResponseFrame({}, absl::UnavailableError("draining"), {}, "");
  FrameHeader header = HeaderOf(frame);
  header.flags |= kFlagNoMessage;
  ResponseControl control;
  ASSERT_TRUE(DecodeResponseControl(frame, header, &control).ok());
  EXPECT_FALSE(control.not_processed);
  header.flags |= kFlagNotProcessed;
  ASSERT_TRUE(DecodeResponseControl(frame, header, &control).ok());
  EXPECT_TRUE(control.not_processed);
  EXPECT_EQ(control.status, absl::UnavailableError("draining"));

  // With the status OK, a message, or initial metadata it is no such frame.
  FrameHeader ok = header;
  ok.code = 0;
  EXPECT_EQ(DecodeResponseControl(frame, ok, &control).code(), absl::StatusCode::kInternal);
  FrameHeader message = header;
  message.flags &= static_cast<uint8_t>(~kFlagNoMessage);
  EXPECT_EQ(DecodeResponseControl(frame, message, &control).code(), absl::StatusCode::kInternal);
  const std::string with_metadata = ResponseFrame({{"key", "value"}}, absl::UnavailableError("draining"), {}, "");
  FrameHeader metadata = HeaderOf(with_metadata);
  metadata.flags |= kFlagNoMessage | kFlagNotProcessed;
  EXPECT_EQ(DecodeResponseControl(with_metadata, metadata, &control).code(), absl::StatusCode::kInternal);
}

TEST(FrameTest, AGoAwayIsTheLastFrameOrNot) {
  FrameHeader header;
  header.type = FrameType::kGoAway;
  bool last = true;
  ASSERT_TRUE(DecodeGoAway(header, &last).ok());
  EXPECT_FALSE(last);
  header.flags = kFlagNotProcessed;
  ASSERT_TRUE(DecodeGoAway(header, &last).ok());
  EXPECT_TRUE(last);
  header.flags = kFlagMore;
  EXPECT_EQ(DecodeGoAway(header, &last).code(), absl::StatusCode::kInternal);
}

TEST(FrameTest, ARequestMayTellItsEarlierAttempts) {
  const auto decode = [](const Metadata& metadata, Metadata* out) {
    const std::string frame = RequestFrame(SteadyTime::InfiniteFuture(), metadata, "message");
    RequestControl control;
    const absl::Status status = DecodeRequestControl(frame, HeaderOf(frame), &control);
    *out = control.metadata;
    return status.code();
  };
  Metadata decoded;
  EXPECT_EQ(decode({{"grpc-previous-rpc-attempts", "2"}, {"key", "value"}}, &decoded), absl::StatusCode::kOk);
  EXPECT_EQ(decoded, (Metadata{{"key", "value"}, {"grpc-previous-rpc-attempts", "2"}}));
  for (const char* value : {"0", "-1", "x", "", "99999999999"}) {
    EXPECT_EQ(decode({{"grpc-previous-rpc-attempts", value}}, &decoded), absl::StatusCode::kInvalidArgument) << value;
  }
  EXPECT_EQ(decode({{"grpc-previous-rpc-attempts", "1"}, {"grpc-previous-rpc-attempts", "1"}}, &decoded),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decode({{"grpc-other", "1"}}, &decoded), absl::StatusCode::kInvalidArgument);
  const std::string response = ResponseFrame({{"grpc-previous-rpc-attempts", "1"}}, absl::OkStatus(), {}, "message");
  ResponseControl control;
  EXPECT_EQ(DecodeResponseControl(response, HeaderOf(response), &control).code(), absl::StatusCode::kInvalidArgument);
}

TEST(FrameTest, MetadataThatBreaksTheRulesEndsTheCallOnly) {
  const std::string frame = RequestFrame(SteadyTime::InfiniteFuture(), {{"Upper-Case", "x"}}, "");
  RequestControl control;
  EXPECT_TRUE(absl::IsInvalidArgument(DecodeRequestControl(frame, HeaderOf(frame), &control)));
  EXPECT_EQ(control.message_offset, frame.size()) << "so that the rest of the message can be skipped";
}

TEST(FrameTest, MalformedFramesAreErrors) {
  const std::string good = RequestFrame(SteadyTime::Now(), {{"key", "value"}}, "message");
  RequestControl control;
  const size_t message_offset = good.size() - 7;
  for (size_t length = kFrameHeaderBytes; length < message_offset; ++length) {
    EXPECT_TRUE(absl::IsInternal(DecodeRequestControl(good.substr(0, length), HeaderOf(good), &control))) << length;
  }
  std::string unknown_flag = good;
  unknown_flag[5] |= static_cast<char>(0x80);
  EXPECT_TRUE(absl::IsInternal(DecodeRequestControl(unknown_flag, HeaderOf(unknown_flag), &control)));
  std::string huge_block = good;
  huge_block.replace(kFrameHeaderBytes + 8, 4, "\xff\xff\xff\xff");
  EXPECT_TRUE(absl::IsInternal(DecodeRequestControl(huge_block, HeaderOf(huge_block), &control)));
  std::string contradiction = ResponseFrame(Metadata(), absl::OkStatus(), Metadata(), "x");
  contradiction[5] |= static_cast<char>(kFlagNoMessage);
  ResponseControl response;
  EXPECT_TRUE(absl::IsInternal(DecodeResponseControl(contradiction, HeaderOf(contradiction), &response)));
}

// Any bytes at all: an error or a result, within bounds (which the sanitizers watch).
TEST(FrameTest, RandomBytesNeverLeaveTheFrame) {
  std::minstd_rand random(4);
  const std::string request = RequestFrame(SteadyTime::Now(), {{"key", "value"}, {"x-bin", "\1"}}, "message");
  const std::string response = ResponseFrame({{"k", "v"}}, absl::InternalError("why"), {{"t", "u"}}, "");
  for (int i = 0; i < 20'000; ++i) {
    std::string frame = i % 2 == 0 ? request : response;
    for (unsigned changes = 1 + random() % 4; changes > 0; --changes) {
      frame[4 + random() % (frame.size() - 4)] = static_cast<char>(random());
    }
    const std::string exact(frame.data(), frame.size());
    RequestControl request_control;
    ResponseControl response_control;
    (void)DecodeRequestControl(exact, HeaderOf(exact), &request_control);
    (void)DecodeResponseControl(exact, HeaderOf(exact), &response_control);
    EXPECT_LE(request_control.message_offset, exact.size());
    EXPECT_LE(response_control.message_offset, exact.size());
  }
}

}  // namespace
}  // namespace shmrpc::framed
