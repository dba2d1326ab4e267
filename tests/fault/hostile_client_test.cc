// A client that breaks a rule of the protocol on an established connection, over shared memory and over TCP. What it
// breaks ends its own session and its own calls; what is only odd is ignored or refused, and the session goes on.
// Either way HostileTest looks after the neighbours and what is left behind.

#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hostile_attack.h"
#include "hostile_fixture.h"

namespace shmrpc::fault {
namespace {

using conformance::CountRequest;
using conformance::EchoRequest;
using conformance::Item;

// Calls that are in progress during an attack: one to Echo that is held, and one to Chat, of which nothing was sent.
constexpr uint64_t kHeldCall = 1;
constexpr uint64_t kChatCall = 2;
constexpr uint64_t kNewCall = 100;

struct Attack {
  std::string name;
  std::function<void(NativeConnection&)> run;
  Where where = Where::kEverywhere;
};

using Case = AttackCase<Attack>;

class HostileClientTest : public HostileTest, public testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    HostileTest::SetUp();
    if (HasFatalFailure()) return;
    connection_ = ConnectNative(GetParam().way, address());
    ASSERT_NE(connection_, nullptr);
    AnnounceMethods(*connection_);
    EchoRequest held;
    held.set_hold(true);
    connection_->Send(EchoRequestFrame(kHeldCall, held));
    connection_->Send({.type = kRequestFrame, .flags = kNoMessage | kOpen, .code = kChatNumber, .call_id = kChatCall});
    ASSERT_TRUE(WaitForHeldCalls(1));
    ASSERT_TRUE(stream_counters().started.WaitFor(1));
  }
  void TearDown() override {
    connection_ = nullptr;
    HostileTest::TearDown();
  }

  std::unique_ptr<NativeConnection> connection_;
};

// ---- What ends the session.

// One frame, sent as it is.
std::function<void(NativeConnection&)> Frame(NativeFrame frame) {
  return [frame](NativeConnection& connection) { connection.Send(frame); };
}
std::function<void(NativeConnection&)> Frames(std::vector<NativeFrame> frames) {
  return [frames](NativeConnection& connection) {
    for (const NativeFrame& frame : frames) connection.Send(frame);
  };
}

NativeFrame Request(uint8_t flags, std::string body = "") {
  return {.type = kRequestFrame, .flags = flags, .code = kEchoNumber, .call_id = kNewCall, .body = std::move(body)};
}
NativeFrame Message(uint64_t call_id, uint8_t flags, std::string body = "") {
  return {.type = kMessageFrame, .flags = flags, .call_id = call_id, .body = std::move(body)};
}
NativeFrame Fragment(uint64_t call_id, uint8_t flags, std::string body) {
  return {.type = kFragmentFrame, .flags = flags, .call_id = call_id, .body = std::move(body)};
}
NativeFrame CreditFrame(uint64_t call_id, uint32_t call_bytes, uint32_t connection_bytes) {
  return {.type = kCreditFrame, .call_id = call_id, .body = U32(call_bytes) + U32(connection_bytes)};
}
// A request that the handler holds, so that the call does not end by itself.
NativeFrame HeldRequest(uint8_t flags) {
  EchoRequest request;
  request.set_hold(true);
  return Request(flags, request.SerializeAsString());
}
// The first piece of a request of 10 bytes: four of them.
NativeFrame FirstPiece() { return Request(kMore, U32(10) + "abcd"); }

void SendMethodsBeyondTheLimit(NativeConnection& connection) {
  for (int i = 0; i < 300; ++i) {
    const auto number = static_cast<uint16_t>(kNextNumber + i);
    if (!connection.Send({.type = kMethodFrame, .code = number, .body = std::string(4000, 'm')})) return;
  }
}

// The handler of Chat waits for credit before it has read much, and then nobody reads.
void SendMessagesBeyondTheWindow(NativeConnection& connection) {
  Item item;
  item.set_payload(std::string(16 * 1024, 'x'));
  for (int i = 0; i < 1000; ++i) {
    if (!connection.Send(Message(kChatCall, kOpen, item.SerializeAsString()))) return;
  }
}

// One message comes, and its window is given back twice.
void ReturnAMessageTwice(NativeConnection& connection) {
  CountRequest request;
  request.set_count(1);
  request.set_payload_bytes(100);
  request.set_wait_for_cancellation(true);
  connection.Send(
      {.type = kRequestFrame, .code = kCountNumber, .call_id = kNewCall, .body = request.SerializeAsString()});
  connection.Expect(kHeadersFrame, kNewCall);
  const NativeFrame message = connection.Expect(kMessageFrame, kNewCall);
  const auto cost = static_cast<uint32_t>(message.body.size() + 64);
  connection.Send(CreditFrame(kNewCall, cost, cost));
  connection.Send(CreditFrame(kNewCall, cost, cost));
}

// The length that a frame says it has: on a ring it is what publishes a record.
std::function<void(NativeConnection&)> Length(uint32_t length) {
  return [length](NativeConnection& connection) {
    std::string frame = EncodeFrame({.type = kAliveFrame});
    frame.replace(0, sizeof length, U32(length));
    connection.SendBytes(frame);
  };
}

// Goes on until so many bytes are left before the ring's end.
void AdvanceToTheEnd(NativeConnection& connection, uint64_t left) {
  while (kRingBytes - connection.producer().produced() % kRingBytes != left) {
    ASSERT_TRUE(connection.Send({.type = kAliveFrame}));
  }
}

// A word near the ring's end, and what the ring's beginning says then.
std::function<void(NativeConnection&)> WordAtTheEnd(uint32_t word, uint32_t word_at_the_beginning) {
  return [word, word_at_the_beginning](NativeConnection& connection) {
    AdvanceToTheEnd(connection, 2 * kLine);
    EXPECT_TRUE(conformance::Eventually([&] { return !connection.producer().PeerBehind(); }));
    connection.own().word(kLine).store(0);  // nothing follows
    connection.producer().PutAliveAt(0, word_at_the_beginning);
    connection.producer().PutAliveAt(connection.producer().produced(), word);
    connection.RingDoorbell();
  };
}

void PadFarFromTheEnd(NativeConnection& connection) {
  for (int i = 0; i < 2; ++i) connection.Send({.type = kAliveFrame});  // not at the beginning
  EXPECT_TRUE(conformance::Eventually([&] { return !connection.producer().PeerBehind(); }));
  connection.own().word(kLine).store(0);  // nothing follows
  connection.producer().PutAliveAt(0, kFrameHeader);
  connection.producer().PutAliveAt(connection.producer().produced(), kPaddingWord);
  connection.RingDoorbell();
}

// More than the ring holds, so that the server has to look how far the client has consumed.
void AskForALargeReply(NativeConnection& connection, uint64_t call_id) {
  EchoRequest request;
  request.set_reply_bytes(4 * kRingBytes);
  connection.Send(EchoRequestFrame(call_id, request));
}

std::function<void(NativeConnection&)> Consumed(uint64_t position) {
  return [position](NativeConnection& connection) {
    connection.own().consumed().store(position);
    AskForALargeReply(connection, kNewCall);
  };
}

void ConsumeBackwards(NativeConnection& connection) {
  AskForALargeReply(connection, kNewCall);
  NativeFrame piece = connection.Expect(kResponseFrame, kNewCall);
  while ((piece.flags & kMore) != 0) piece = connection.Expect(kFragmentFrame, kNewCall);
  connection.own().consumed().store(0);
  AskForALargeReply(connection, kNewCall + 1);
}

std::vector<Attack> Violations() {
  const std::string hello = Hello().EncodeAsClient();
  std::vector<Attack> attacks = {
      {"FrameOfType0", Frame({.type = 0})},
      {"FrameOfType11", Frame({.type = 11})},
      {"FrameOfType255", Frame({.type = 255})},
      {"ResponseFromAClient", Frame({.type = kResponseFrame, .call_id = kHeldCall})},
      {"HeadersFromAClient", Frame({.type = kHeadersFrame, .call_id = kHeldCall})},
      {"GoAwayFromAClient", Frame({.type = kGoAwayFrame})},

      {"MethodNumberLeftOut", Frame({.type = kMethodFrame, .code = kNextNumber + 1, .body = "/a/B"})},
      {"MethodNumberTwice", Frame({.type = kMethodFrame, .code = kEchoNumber, .body = "/a/B"})},
      {"MethodPathTooLong", Frame({.type = kMethodFrame, .code = kNextNumber, .body = std::string(4097, 'p')})},
      {"MethodsBeyondTheLimit", SendMethodsBeyondTheLimit},
      {"MethodNotAnnounced", Frame({.type = kRequestFrame, .code = kNextNumber, .call_id = kNewCall})},

      {"CallNumber0", Frame({.type = kRequestFrame, .code = kEchoNumber, .call_id = 0})},
      {"CallNumberInUse", Frame({.type = kRequestFrame, .code = kEchoNumber, .call_id = kHeldCall})},
      {"RequestWithAServersFlag", Frame(Request(kStatus))},
      {"RequestWithUnknownFlag", Frame(Request(kUnknownFlag))},
      {"RequestCutOffInItsDeadline", Frame(Request(kDeadline, "1234567"))},
      {"RequestCutOffInItsSize", Frame(Request(kMore, "123"))},
      {"RequestCutOffInItsMetadata", Frame(Request(kMetadata, U32(100) + "short"))},
      {"RequestWithMetadataOf1MiBAnnounced", Frame(Request(kMetadata, U32(1 << 20) + std::string(60000, 'm')))},
      {"RequestWithMetadataOf4GiBAnnounced", Frame(Request(kMetadata, U32(0xffffffff) + "m"))},
      {"RequestWithMetadataOf60KiB", Frame(Request(kMetadata, U32(60 * 1024) + std::string(60 * 1024, 'm')))},
      {"RequestWithMetadataThatCannotBeRead", Frame(Request(kMetadata, Block("\xff\xff\xff\xff")))},
      {"RequestWithAndWithoutMessage", Frame(Request(kNoMessage, "message"))},
      {"RequestInPiecesWithoutMessage", Frame(Request(kNoMessage | kMore, U32(10) + "abcd"))},

      {"MessageToAUnaryCall", Frame(Message(kHeldCall, 0))},
      {"MessageAfterHalfClose", Frames({HeldRequest(kOpen), Message(kNewCall, kNoMessage), Message(kNewCall, kOpen)})},
      {"MessageWithUnknownFlag", Frame(Message(kChatCall, kOpen | kUnknownFlag))},
      {"MessageWithARequestsFlag", Frame(Message(kChatCall, kOpen | kDeadline, U64(1)))},
      {"MessageThatIsNoneAndGoesOn", Frame(Message(kChatCall, kNoMessage | kOpen))},
      {"MessageThatIsNoneAndHasBytes", Frame(Message(kChatCall, kNoMessage, "message"))},
      {"MessagesBeyondTheWindow", SendMessagesBeyondTheWindow},

      {"FirstPieceWithTheWholeMessage", Frame(Request(kMore, U32(4) + "abcd"))},
      {"FirstPieceLongerThanTheMessage", Frame(Request(kMore, U32(3) + "abcd"))},
      {"FirstPieceOfNothing", Frame(Request(kMore, U32(0)))},
      {"FragmentOfNothing", Frame(Fragment(kHeldCall, 0, "abcd"))},
      {"FragmentOfAnotherCall", Frames({FirstPiece(), Fragment(kHeldCall, 0, "efghij")})},
      {"FragmentWithUnknownFlag", Frames({FirstPiece(), Fragment(kNewCall, kUnknownFlag, "efghij")})},
      {"FragmentBeyondTheAnnouncedSize", Frames({FirstPiece(), Fragment(kNewCall, 0, "efghijk")})},
      {"LastFragmentTooShort", Frames({FirstPiece(), Fragment(kNewCall, 0, "efghi")})},
      {"FragmentsCompleteBeforeTheLast", Frames({FirstPiece(), Fragment(kNewCall, kMore, "efghij")})},
      {"TwoMessagesInPieces", Frames({FirstPiece(), Message(kChatCall, kMore | kOpen, U32(10) + "abcd")})},

      {"CreditForWhatWasNeverSent", Frame(CreditFrame(kHeldCall, 0, 1))},
      {"CreditForACallThatSentNothing", Frame(CreditFrame(kChatCall, 1, 0))},
      {"CreditOf4GiB", Frame(CreditFrame(kChatCall, 0xffffffff, 0xffffffff))},
      {"CreditTwiceForOneMessage", ReturnAMessageTwice},
      {"RequestBetweenThePiecesOfAMessage",
       Frames({Message(kNewCall, kMore | kOpen, U32(10) + "abcd"), HeldRequest(kOpen)})},
      {"MessageBetweenThePiecesOfItsRequest", Frames({FirstPiece(), Message(kNewCall, kOpen, "message")})},
      {"HalfCloseBetweenThePiecesOfAMessage",
       Frames({Message(kChatCall, kMore | kOpen, U32(10) + "abcd"), Message(kChatCall, kNoMessage)})},

      {"CreditOfNothing", Frame(CreditFrame(kChatCall, 0, 0))},
      {"CreditTooShort", Frame({.type = kCreditFrame, .call_id = kChatCall, .body = U32(0)})},
      {"CreditTooLong", Frame({.type = kCreditFrame, .call_id = kChatCall, .body = U64(0) + "x"})},
      {"CreditWithFlags", Frame({.type = kCreditFrame, .flags = kMore, .call_id = kChatCall, .body = U64(0)})},

      {"Length1", Length(1)},
      {"Length15", Length(15)},
      {"Length65537", Length(65537)},
      {"Length2To31", Length(0x80000000)},
      {"Length0", Length(0), Where::kTcpOnly},  // on a ring: nothing is there yet
      {"Length0xFFFFFFFF", Length(0xffffffff), Where::kTcpOnly},
      {"SecondHello", [hello](NativeConnection& connection) { connection.SendBytes(hello); }, Where::kTcpOnly},

      {"PaddingFarFromTheRingsEnd", PadFarFromTheEnd, Where::kShmOnly},
      {"PaddingWithNothingBehindIt", WordAtTheEnd(kPaddingWord, 0), Where::kShmOnly},
      {"PaddingBehindPadding", WordAtTheEnd(kPaddingWord, kPaddingWord), Where::kShmOnly},
      {"PaddingWithABadLengthBehindIt", WordAtTheEnd(kPaddingWord, 65537), Where::kShmOnly},
      {"RecordBeyondTheRingsEnd", WordAtTheEnd(2 * kLine + 1, 0), Where::kShmOnly},
      {"LargestRecordBeyondTheRingsEnd", WordAtTheEnd(65536, 0), Where::kShmOnly},
      {"SecondHelloInTheRing", [hello](NativeConnection& connection) { connection.SendBytes(hello); }, Where::kShmOnly},

      {"ConsumedBeyondProduced", Consumed(16 * kRingBytes), Where::kShmOnly},
      {"ConsumedARingBehindProduced", Consumed(uint64_t{0} - kRingBytes), Where::kShmOnly},
      {"ConsumedJustBelow2To32", Consumed((uint64_t{1} << 32) - kLine), Where::kShmOnly},
      {"ConsumedJustBelow2To64", Consumed(uint64_t{0} - kLine), Where::kShmOnly},
      {"ConsumedMisaligned", Consumed(1), Where::kShmOnly},
      {"ConsumedGoingBackwards", ConsumeBackwards, Where::kShmOnly},
  };
  return attacks;
}

using HostileClientViolation = HostileClientTest;

TEST_P(HostileClientViolation, EndsItsOwnSessionOnly) {
  GetParam().attack.run(*connection_);
  // Without a look at the ring: whoever takes something there says how far it has consumed.
  EXPECT_TRUE(SocketSeesTheEnd(connection_->socket()));
  EXPECT_TRUE(WaitForCancelledCalls(1));
  EXPECT_TRUE(stream_counters().ended.WaitFor(1));
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileClientViolation, testing::ValuesIn(Cases(Violations())),
                         [](const auto& info) { return info.param.name(); });

// ---- What does not.

// The status that the new call gets.
std::function<void(NativeConnection&)> Gets(int code, std::vector<NativeFrame> frames) {
  return [code, frames](NativeConnection& connection) {
    for (const NativeFrame& frame : frames) connection.Send(frame);
    EXPECT_EQ(connection.Expect(kResponseFrame, kNewCall).code, code);
  };
}

constexpr int kOk = 0;
constexpr int kInvalidArgument = 3;
constexpr int kResourceExhausted = 8;
constexpr int kUnimplemented = 12;

std::function<void(NativeConnection&)> MetadataGets(int code, const MetadataPairs& metadata) {
  return Gets(code, {Request(kMetadata, MetadataBlock(metadata))});
}

std::function<void(NativeConnection&)> MethodIsUnknown(const std::string& path) {
  return Gets(kUnimplemented, {{.type = kMethodFrame, .code = kNextNumber, .body = path},
                               {.type = kRequestFrame, .code = kNextNumber, .call_id = kNewCall}});
}

void SendTheLargestFrame(NativeConnection& connection) {
  EchoRequest request;
  request.set_payload("");
  while (request.ByteSizeLong() < kLargestFrame - kFrameHeader) {
    request.mutable_payload()->append(kLargestFrame - kFrameHeader - request.ByteSizeLong(), 'x');
    if (request.ByteSizeLong() > kLargestFrame - kFrameHeader) request.mutable_payload()->resize(65000);
  }
  ASSERT_EQ(EncodeFrame(EchoRequestFrame(kNewCall, request)).size(), kLargestFrame);
  connection.Send(EchoRequestFrame(kNewCall, request));
  EXPECT_EQ(connection.Expect(kResponseFrame, kNewCall).code, kOk);
}

void SendARecordThatEndsWithTheRing(NativeConnection& connection) {
  AdvanceToTheEnd(connection, 2 * kLine);
  EchoRequest request;
  request.set_payload(std::string(2 * kLine - kFrameHeader - 2, 'e'));
  ASSERT_EQ(EncodeFrame(EchoRequestFrame(kNewCall, request)).size(), 2 * kLine);
  connection.Send(EchoRequestFrame(kNewCall, request));
  EXPECT_EQ(connection.producer().produced() % kRingBytes, 0u);
  EXPECT_EQ(connection.Expect(kResponseFrame, kNewCall).code, kOk);
}

void SendDescriptorsAsDoorbells(NativeConnection& connection) {
  std::vector<int> fds(253, STDERR_FILENO);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(SendWithFds(connection.socket(), "bell", fds));
}

// What is refused is still counted and thrown away.
void AnnounceAMessageOf(NativeConnection& connection, uint32_t bytes) {
  connection.Send(Request(kMore, U32(bytes) + "abcd"));
  EXPECT_EQ(connection.Expect(kResponseFrame, kNewCall).code, kResourceExhausted);
  connection.Send(Fragment(kNewCall, kMore, std::string(50000, 'f')));
  connection.Send({.type = kResetFrame, .call_id = kNewCall});
}

std::vector<Attack> Oddities() {
  const std::string hello = Hello().EncodeAsClient();
  return {
      {"ResetOfAnUnknownCall", Frame({.type = kResetFrame, .code = 99, .call_id = 12345})},
      {"ResetOfAFinishedCall",
       [](NativeConnection& connection) {
         ExpectEchoOver(connection, kNewCall);
         connection.Send({.type = kResetFrame, .code = 1, .call_id = kNewCall});
       }},
      {"ResetWithFlagsAndBytes", Frame({.type = kResetFrame, .flags = 255, .call_id = kNewCall, .body = "bytes"})},
      {"AliveWithFlagsAndBytes", Frame({.type = kAliveFrame, .flags = 255, .code = 7, .call_id = 7, .body = "bytes"})},
      {"MessageToAnUnknownCall", Frame(Message(12345, 0, "message"))},
      {"MessageToAFinishedCall",
       [](NativeConnection& connection) {
         ExpectEchoOver(connection, kNewCall);
         connection.Send(Message(kNewCall, kOpen, "message"));
       }},
      {"LargeMessageToAnUnknownCall",
       Frames({Message(12345, kMore | kOpen, U32(10) + "abcd"), Fragment(12345, 0, "efghij")})},
      {"CreditToAnUnknownCall", Frame(CreditFrame(12345, 0xffffffff, 0))},
      {"FinishedCallNumberAgain", [](NativeConnection& connection) { ExpectEchoOver(connection, kNewCall); }},
      {"CallNumber2To64Minus1", [](NativeConnection& connection) { ExpectEchoOver(connection, ~uint64_t{0}); }},

      {"SmallestFrame", Gets(kOk, {Request(0)})},
      {"LargestFrame", SendTheLargestFrame},
      {"MessageOverTheLimit", [](NativeConnection& connection) { AnnounceAMessageOf(connection, (16u << 20) + 1); }},
      {"MessageOf4GiBAnnounced", [](NativeConnection& connection) { AnnounceAMessageOf(connection, 0xffffffff); }},
      {"RequestThatIsNoProtobuf",
       [](NativeConnection& connection) {
         connection.Send(Request(0, "\xff\xff\xff\xff"));
         EXPECT_NE(connection.Expect(kResponseFrame, kNewCall).code, kOk);
       }},
      {"UnaryRequestWithoutMessage",
       [](NativeConnection& connection) {
         connection.Send(Request(kNoMessage));
         EXPECT_NE(connection.Expect(kResponseFrame, kNewCall).code, kOk);
       }},
      {"DeadlineOf2To64Minus1", Gets(kOk, {Request(kDeadline, U64(~uint64_t{0}))})},
      {"DeadlineOf2To63Minus1", Gets(kOk, {Request(kDeadline, U64(~uint64_t{0} >> 1))})},

      {"MetadataOfNothing", Gets(kOk, {Request(kMetadata, Block(""))})},
      {"MetadataWithEmptyValue", MetadataGets(kOk, {{"key", ""}})},
      {"MetadataOfAnyBytesInABinaryValue", MetadataGets(kOk, {{"key-bin", std::string("\0\xff\xc3\x28\n", 5)}})},
      {"MetadataKeyEmpty", MetadataGets(kInvalidArgument, {{"", "value"}})},
      {"MetadataKeyNotUtf8", MetadataGets(kInvalidArgument, {{"\xc3\x28", "value"}})},
      {"MetadataKeyUpperCase", MetadataGets(kInvalidArgument, {{"Key", "value"}})},
      {"MetadataKeyOfTheLibrarys", MetadataGets(kInvalidArgument, {{"shmrpc-internal", "value"}})},
      {"MetadataValueNotUtf8", MetadataGets(kInvalidArgument, {{"key", "\xc3\x28"}})},
      {"MetadataValueWithLineEnd", MetadataGets(kInvalidArgument, {{"key", "a\r\nb: c"}})},
      {"MetadataOver8KiB", MetadataGets(kInvalidArgument, {{"key", std::string(8192, 'v')}})},
      {"MetadataOf47KiB", MetadataGets(kInvalidArgument, {{"key", std::string(47 * 1024, 'v')}})},
      {"MetadataOf8000Pairs", MetadataGets(kInvalidArgument, MetadataPairs(8000, {"", ""}))},
      {"MetadataOf1700Pairs", MetadataGets(kInvalidArgument, MetadataPairs(1700, {"", ""}))},
      {"MetadataWithNegativeAttempts", MetadataGets(kInvalidArgument, {{"grpc-previous-rpc-attempts", "-1"}})},

      {"MethodPathEmpty", MethodIsUnknown("")},
      {"MethodPathNotUtf8", MethodIsUnknown("/\xc3\x28\xff/\n\r")},
      {"MethodPathOf4096Bytes", MethodIsUnknown(std::string(4096, 'p'))},

      {"RecordThatEndsWithTheRing", SendARecordThatEndsWithTheRing, Where::kShmOnly},
      {"DescriptorsWithDoorbells", SendDescriptorsAsDoorbells, Where::kShmOnly},
      {"FramesOnTheDoorbellsSocket",
       [](NativeConnection& connection) { SendWithFds(connection.socket(), EncodeFrame({.type = 255})); },
       Where::kShmOnly},
      {"SecondHelloOnTheDoorbellsSocket",
       [hello](NativeConnection& connection) {
         const framed::UniqueFd memory = MakeMemfd(kSegmentBytes, RequiredSeals());
         EXPECT_TRUE(SendWithFds(connection.socket(), hello, {memory.get()}));
       },
       Where::kShmOnly},
  };
}

using HostileClientOddity = HostileClientTest;

TEST_P(HostileClientOddity, LeavesTheSessionAsItWas) {
  GetParam().attack.run(*connection_);
  ExpectEchoOver(*connection_, kNewCall + 1);
  service().Release();
  EXPECT_EQ(connection_->Expect(kResponseFrame, kHeldCall).code, kOk);
  Item item;
  item.set_payload("still there");
  connection_->Send(Message(kChatCall, 0, item.SerializeAsString()));
  EXPECT_EQ(connection_->Expect(kMessageFrame, kChatCall).body, item.SerializeAsString());
  EXPECT_EQ(connection_->Expect(kResponseFrame, kChatCall).code, kOk);
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileClientOddity, testing::ValuesIn(Cases(Oddities())),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace shmrpc::fault
