// A server that breaks a rule of the protocol on an established connection, over shared memory and over TCP. What it
// breaks ends its own connection, whose calls then end with INTERNAL, and the channel connects again; what is only odd
// is ignored, or ends the call that it is about. HostileTest looks after the same process's calls to an honest server,
// and after what is left behind.

#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hostile_attack.h"
#include "hostile_fixture.h"

namespace shmrpc::fault {
namespace {

using conformance::CountRequest;
using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Event;
using conformance::Item;
using conformance::kHangGuard;
using conformance::Streams;
using testing::HasSubstr;

// What the client has called, by the ids that it has chosen.
struct Calls {
  uint64_t async = 0;   // Echo
  uint64_t stream = 0;  // Count, whose messages nobody reads
  uint64_t sync = 0;    // Echo
};

struct Attack {
  std::string name;
  std::function<void(NativeConnection&, const Calls&)> run;
  Where where = Where::kEverywhere;
  // Of the synchronous call: what it ends with. Violations: of all calls.
  absl::StatusCode code = absl::StatusCode::kInternal;
};

using Case = AttackCase<Attack>;

// A client of the library with three calls in progress at a server that is the test: an asynchronous one, a stream of
// which nothing is read, and one that a thread waits in.
class HostileServerTest : public HostileTest, public testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    HostileTest::SetUp();
    if (HasFatalFailure()) return;
    server_ = std::make_unique<NativeServer>(GetParam().way);
    ChannelOptions options;
    options.initial_backoff = absl::Milliseconds(10);
    if (GetParam().way == Way::kTcp) options.transport = TransportPreference::kTcp;
    if (GetParam().way == Way::kShm) options.transport = TransportPreference::kShm;
    channel_ = Channel::Create(server_->address(), options);
    echo_ = std::make_unique<Echo::Stub>(channel_);
    streams_ = std::make_unique<Streams::Stub>(channel_);

    // A call that does not wait connects by another thread.
    async_request_.set_payload("asynchronous");
    echo_->async().Echo(&async_context_, &async_request_, &async_reply_, [this](absl::Status status) {
      async_status_ = std::move(status);
      async_ended_.Set();
    });
    connection_ = server_->Accept();
    ASSERT_NE(connection_, nullptr);
    calls_.async = ExpectRequest();
    count_request_.set_count(1000);
    reader_ = streams_->Count(&stream_context_, count_request_);
    calls_.stream = ExpectRequest();
    caller_ = std::thread([this] {
      EchoRequest request;
      request.set_payload("synchronous");
      sync_status_ = echo_->Echo(&sync_context_, request, &sync_reply_);
    });
    calls_.sync = ExpectRequest();
  }

  void TearDown() override {
    connection_ = nullptr;
    if (caller_.joinable()) caller_.join();
    reader_ = nullptr;
    EXPECT_TRUE(channel_ == nullptr || async_ended_.Wait());
    echo_ = nullptr;
    streams_ = nullptr;
    channel_ = nullptr;
    server_ = nullptr;
    HostileTest::TearDown();
  }

  // The next request's call, whose method may be announced before it.
  uint64_t ExpectRequest() {
    for (;;) {
      const std::optional<NativeFrame> frame = connection_->Receive();
      if (!frame.has_value()) {
        ADD_FAILURE() << "no request comes";
        return 0;
      }
      if (frame->type == kRequestFrame) return frame->call_id;
      EXPECT_EQ(int{frame->type}, int{kMethodFrame});
    }
  }

  // Serves one call of a connection that the client makes anew.
  void ExpectReconnects() {
    connection_ = nullptr;
    std::thread caller([this] {
      ClientContext context;
      context.set_wait_for_ready(true);
      context.set_timeout(kHangGuard);
      EchoReply reply;
      const absl::Status status = echo_->Echo(&context, EchoRequest(), &reply);
      EXPECT_TRUE(status.ok()) << status;
    });
    connection_ = server_->Accept();
    if (connection_ != nullptr) {
      const uint64_t call_id = ExpectRequest();
      EXPECT_TRUE(connection_->Send({.type = kResponseFrame, .call_id = call_id}));
    }
    caller.join();
  }

  std::unique_ptr<NativeServer> server_;
  std::shared_ptr<Channel> channel_;
  std::unique_ptr<Echo::Stub> echo_;
  std::unique_ptr<Streams::Stub> streams_;
  std::unique_ptr<NativeConnection> connection_;
  Calls calls_;

  EchoRequest async_request_;
  ClientContext async_context_;
  EchoReply async_reply_;
  absl::Status async_status_;
  Event async_ended_;

  CountRequest count_request_;
  ClientContext stream_context_;
  std::unique_ptr<ClientReader<Item>> reader_;

  ClientContext sync_context_;
  EchoReply sync_reply_;
  absl::Status sync_status_;
  std::thread caller_;
};

using Run = std::function<void(NativeConnection&, const Calls&)>;

// Frames whose calls are named by a member of Calls.
NativeFrame Of(uint8_t type, uint64_t call_id, uint8_t flags = 0, std::string body = "", uint16_t code = 0) {
  return {.type = type, .flags = flags, .code = code, .call_id = call_id, .body = std::move(body)};
}
Run One(uint8_t type, uint64_t Calls::*call, uint8_t flags = 0, std::string body = "", uint16_t code = 0) {
  return [=](NativeConnection& connection, const Calls& calls) {
    connection.Send(Of(type, calls.*call, flags, body, code));
  };
}
Run Many(std::function<std::vector<NativeFrame>(const Calls&)> frames) {
  return [frames](NativeConnection& connection, const Calls& calls) {
    for (const NativeFrame& frame : frames(calls)) connection.Send(frame);
  };
}

Run Length(uint32_t length) {
  return [length](NativeConnection& connection, const Calls&) {
    std::string frame = EncodeFrame({.type = kAliveFrame});
    frame.replace(0, sizeof length, U32(length));
    connection.SendBytes(frame);
  };
}

Run WordAtTheEnd(uint32_t word, uint32_t word_at_the_beginning) {
  return [=](NativeConnection& connection, const Calls&) {
    while (kRingBytes - connection.producer().produced() % kRingBytes != 2 * kLine) {
      ASSERT_TRUE(connection.Send({.type = kAliveFrame}));
    }
    EXPECT_TRUE(conformance::Eventually([&] { return !connection.producer().PeerBehind(); }));
    connection.own().word(kLine).store(0);  // nothing follows
    connection.producer().PutAliveAt(0, word_at_the_beginning);
    connection.producer().PutAliveAt(connection.producer().produced(), word);
    connection.RingDoorbell();
  };
}

void PadFarFromTheEnd(NativeConnection& connection, const Calls&) {
  for (int i = 0; i < 2; ++i) connection.Send({.type = kAliveFrame});  // not at the beginning
  EXPECT_TRUE(conformance::Eventually([&] { return !connection.producer().PeerBehind(); }));
  connection.own().word(kLine).store(0);  // nothing follows
  connection.producer().PutAliveAt(0, kFrameHeader);
  connection.producer().PutAliveAt(connection.producer().produced(), kPaddingWord);
  connection.RingDoorbell();
}

std::vector<Attack> Violations() {
  const std::string item = [] {
    Item big;
    big.set_payload(std::string(60000, 'x'));
    return big.SerializeAsString();
  }();
  const std::string reply10 = U32(10) + "abcd";  // the first piece of ten bytes
  return {
      {"FrameOfType0", One(0, &Calls::sync)},
      {"FrameOfType255", One(255, &Calls::sync)},
      {"MethodFromAServer", One(kMethodFrame, &Calls::sync, 0, "/a/B")},
      {"RequestFromAServer", One(kRequestFrame, &Calls::sync)},

      {"ResponseWithAClientsFlag", One(kResponseFrame, &Calls::sync, kOpen)},
      {"ResponseWithUnknownFlag", One(kResponseFrame, &Calls::sync, kUnknownFlag)},
      {"ResponseCutOffInItsMetadata", One(kResponseFrame, &Calls::sync, kMetadata, U32(100) + "short")},
      {"ResponseWithMetadataOf4GiBAnnounced", One(kResponseFrame, &Calls::sync, kMetadata, U32(0xffffffff))},
      {"ResponseWithMetadataThatCannotBeRead", One(kResponseFrame, &Calls::sync, kMetadata, Block("\xff\xff\xff"))},
      {"ResponseCutOffInItsStatus", One(kResponseFrame, &Calls::sync, kStatus | kNoMessage, U32(1 << 20), 13)},
      {"ResponseWithStatusThatCannotBeRead",
       One(kResponseFrame, &Calls::sync, kStatus | kNoMessage, Block("\xff\xff\xff"), 13)},
      {"ResponseWithAndWithoutMessage", One(kResponseFrame, &Calls::sync, kNoMessage, "message")},
      {"ResponseNotProcessedButOk", One(kResponseFrame, &Calls::sync, kNotProcessed | kNoMessage)},
      {"ResponseNotProcessedWithMetadata",
       One(kResponseFrame, &Calls::sync, kNotProcessed | kNoMessage | kMetadata, Block(""), 14)},
      {"NotProcessedAfterHeaders", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kHeadersFrame, calls.sync), Of(kResponseFrame, calls.sync, kNotProcessed | kNoMessage, "", 14)};
       })},

      {"HeadersWithUnknownFlag", One(kHeadersFrame, &Calls::sync, kStatus)},
      {"HeadersWithSomethingBehind", One(kHeadersFrame, &Calls::sync, kMetadata, Block("") + "x")},
      {"HeadersTwice", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kHeadersFrame, calls.stream), Of(kHeadersFrame, calls.stream)};
       })},
      {"HeadersAfterAMessage", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kMessageFrame, calls.stream, 0, "x"), Of(kHeadersFrame, calls.stream)};
       })},

      {"MessageWithAClientsFlag", One(kMessageFrame, &Calls::stream, kOpen)},
      {"MessageThatIsNone", One(kMessageFrame, &Calls::stream, kNoMessage)},
      {"MessagesBeyondTheWindow",
       [item](NativeConnection& connection, const Calls& calls) {
         for (int i = 0; i < 100; ++i) {
           if (!connection.Send(Of(kMessageFrame, calls.stream, 0, item))) return;
         }
       }},

      {"FirstPieceWithTheWholeMessage", One(kResponseFrame, &Calls::sync, kMore, U32(4) + "abcd")},
      {"FragmentOfNothing", One(kFragmentFrame, &Calls::sync, 0, "abcd")},
      {"FragmentOfAnotherCall", Many([reply10](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync, kMore, reply10), Of(kFragmentFrame, calls.async, 0, "efghij")};
       })},
      {"FragmentBeyondTheAnnouncedSize", Many([reply10](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync, kMore, reply10), Of(kFragmentFrame, calls.sync, 0, "efghijk")};
       })},
      {"LastFragmentTooShort", Many([reply10](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync, kMore, reply10), Of(kFragmentFrame, calls.sync, 0, "efghi")};
       })},
      {"TwoMessagesInPieces", Many([reply10](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync, kMore, reply10), Of(kResponseFrame, calls.async, kMore, reply10)};
       })},

      {"HeadersBetweenThePiecesOfAResponse", Many([reply10](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync, kMore, reply10), Of(kHeadersFrame, calls.sync)};
       })},
      {"MessageBetweenThePiecesOfAMessage", Many([reply10](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kMessageFrame, calls.stream, kMore, reply10), Of(kMessageFrame, calls.stream, 0, "x")};
       })},
      {"ControlPartOf60KiB",
       One(kResponseFrame, &Calls::sync, kStatus | kNoMessage, Block(std::string(60 * 1024, 'x')), 14)},

      {"CreditOfNothing", One(kCreditFrame, &Calls::stream, 0, U32(0) + U32(0))},
      {"CreditForWhatWasNeverSent", One(kCreditFrame, &Calls::sync, 0, U32(0) + U32(1))},
      {"CreditOf4GiB", One(kCreditFrame, &Calls::stream, 0, U32(0xffffffff) + U32(0xffffffff))},
      {"CreditTooShort", One(kCreditFrame, &Calls::stream, 0, U32(0))},
      {"GoAwayWithUnknownFlag", One(kGoAwayFrame, &Calls::sync, kMore)},

      {"Length1", Length(1)},
      {"Length15", Length(15)},
      {"Length65537", Length(65537)},
      {"Length0", Length(0), Where::kTcpOnly},
      {"Length0xFFFFFFFF", Length(0xffffffff), Where::kTcpOnly},
      {"PaddingFarFromTheRingsEnd", PadFarFromTheEnd, Where::kShmOnly},
      {"PaddingWithNothingBehindIt", WordAtTheEnd(kPaddingWord, 0), Where::kShmOnly},
      {"PaddingBehindPadding", WordAtTheEnd(kPaddingWord, kPaddingWord), Where::kShmOnly},
      {"RecordBeyondTheRingsEnd", WordAtTheEnd(2 * kLine + 1, 0), Where::kShmOnly},
  };
}

using HostileServerViolation = HostileServerTest;

TEST_P(HostileServerViolation, EndsItsOwnConnectionOnly) {
  GetParam().attack.run(*connection_, calls_);
  EXPECT_TRUE(SocketSeesTheEnd(connection_->socket()));
  caller_.join();
  ASSERT_TRUE(async_ended_.Wait());
  const absl::Status stream_status = reader_->Finish();
  for (const absl::Status& status : {sync_status_, async_status_, stream_status}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  }
  ExpectNeighboursServed();
  ExpectReconnects();
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileServerViolation, testing::ValuesIn(Cases(Violations())),
                         [](const auto& info) { return info.param.name(); });

// ---- A server that lies about what it has consumed is found out when the client looks for room.

struct ConsumedCase {
  const char* name;
  uint64_t position;
};
void PrintTo(const ConsumedCase& consumed, std::ostream* out) { *out << consumed.name; }

class HostileServerConsumed : public HostileTest, public testing::WithParamInterface<ConsumedCase> {};

TEST_P(HostileServerConsumed, EndsItsOwnConnectionOnly) {
  {
    NativeServer server(Way::kShm);
    ChannelOptions options;
    options.transport = TransportPreference::kShm;
    Echo::Stub stub(Channel::Create(server.address(), options));
    absl::Status status;
    std::thread caller([&] {
      EchoRequest request;
      request.set_payload(std::string(4 * kRingBytes, 'x'));
      ClientContext context;
      context.set_timeout(kHangGuard);
      EchoReply reply;
      status = stub.Echo(&context, request, &reply);
    });
    const std::unique_ptr<NativeConnection> connection = server.Accept();
    if (connection != nullptr) {
      connection->own().consumed().store(GetParam().position);
      connection->RingDoorbell();  // the client may wait for room already
      EXPECT_TRUE(SocketSeesTheEnd(connection->socket()));
    }
    caller.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("consumer position"));
  }
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileServerConsumed,
                         testing::Values(ConsumedCase{"BeyondProduced", 16 * kRingBytes},
                                         ConsumedCase{"JustBelow2To32", (uint64_t{1} << 32) - kLine},
                                         ConsumedCase{"JustBelow2To64", uint64_t{0} - kLine},
                                         ConsumedCase{"Misaligned", 1}),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- What ends no connection: the call that it is about ends with a status of its own.

std::vector<Attack> Oddities() {
  using absl::StatusCode;
  const auto metadata_gets = [](StatusCode code, const std::string& name, const MetadataPairs& pairs) -> Attack {
    return {name, One(kResponseFrame, &Calls::sync, kMetadata, MetadataBlock(pairs)), Where::kEverywhere, code};
  };
  const auto status_gets = [](StatusCode code, const std::string& name, const std::string& block,
                              uint16_t number) -> Attack {
    return {name, One(kResponseFrame, &Calls::sync, kStatus | kNoMessage, block, number), Where::kEverywhere, code};
  };
  const auto then_reply = [](Run run) -> Run {
    return [run](NativeConnection& connection, const Calls& calls) {
      run(connection, calls);
      connection.Send(Of(kResponseFrame, calls.sync));
    };
  };
  return {
      {"ResponseToAnUnknownCall", then_reply(Many([](const Calls&) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, 12345), Of(kResponseFrame, 0), Of(kResponseFrame, ~uint64_t{0})};
       })),
       Where::kEverywhere, StatusCode::kOk},
      {"ResponseTwice", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync), Of(kResponseFrame, calls.sync, kNoMessage, "", 13)};
       }),
       Where::kEverywhere, StatusCode::kOk},
      {"LargeResponseToAnUnknownCall", then_reply(Many([](const Calls&) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, 12345, kMore, U32(10) + "abcd"), Of(kFragmentFrame, 12345, 0, "efghij")};
       })),
       Where::kEverywhere, StatusCode::kOk},
      {"HeadersMessageAndResetToUnknownCalls", then_reply(Many([](const Calls&) -> std::vector<NativeFrame> {
         return {Of(kHeadersFrame, 12345), Of(kMessageFrame, 12345, 0, "x"), Of(kResetFrame, 12345, 255, "bytes")};
       })),
       Where::kEverywhere, StatusCode::kOk},
      {"ResetOfACallInProgress", then_reply(One(kResetFrame, &Calls::sync)), Where::kEverywhere, StatusCode::kOk},
      {"ResetInTheMiddleOfAResponse", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync, kMore, U32(10) + "abcd"), Of(kResetFrame, calls.sync)};
       }),
       Where::kEverywhere, StatusCode::kUnavailable},
      {"AliveWithFlagsAndBytes", then_reply(One(kAliveFrame, &Calls::sync, 255, "bytes")), Where::kEverywhere,
       StatusCode::kOk},
      {"ReplyThatIsNoProtobuf", One(kResponseFrame, &Calls::sync, 0, "\xff\xff\xff\xff")},
      {"ReplyLeftOut", One(kResponseFrame, &Calls::sync, kNoMessage)},
      {"RepliesTooMany", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kMessageFrame, calls.sync), Of(kMessageFrame, calls.sync), Of(kResponseFrame, calls.sync)};
       })},
      {"ReplyOf4GiBAnnounced", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kResponseFrame, calls.sync, kMore, U32(0xffffffff) + "abcd"), Of(kResetFrame, calls.sync)};
       }),
       Where::kEverywhere, StatusCode::kResourceExhausted},
      {"MessageOverTheLimit", Many([](const Calls& calls) -> std::vector<NativeFrame> {
         return {Of(kMessageFrame, calls.sync, kMore, U32((16 << 20) + 1) + "abcd"), Of(kResetFrame, calls.sync)};
       }),
       Where::kEverywhere, StatusCode::kResourceExhausted},

      metadata_gets(StatusCode::kOk, "MetadataOfNothing", {}),
      metadata_gets(StatusCode::kOk, "MetadataOfAnyBytesInABinaryValue", {{"key-bin", "\xff\xc3\x28\n"}}),
      metadata_gets(StatusCode::kInternal, "MetadataKeyEmpty", {{"", "value"}}),
      metadata_gets(StatusCode::kInternal, "MetadataKeyNotUtf8", {{"\xc3\x28", "value"}}),
      metadata_gets(StatusCode::kInternal, "MetadataValueNotUtf8", {{"key", "\xc3\x28"}}),
      metadata_gets(StatusCode::kInternal, "MetadataOf47KiB", {{"key", std::string(47 * 1024, 'v')}}),
      metadata_gets(StatusCode::kInternal, "MetadataOf8000Pairs", MetadataPairs(8000, {"", ""})),
      {"HeadersWithMetadataNotUtf8", One(kHeadersFrame, &Calls::sync, kMetadata, MetadataBlock({{"key", "\xc3\x28"}}))},
      status_gets(StatusCode::kInternal, "TrailingMetadataNotUtf8", StatusBlock("", {{"key", "\xc3\x28"}}), 5),

      status_gets(StatusCode::kNotFound, "StatusTextEmpty", StatusBlock(""), 5),
      status_gets(StatusCode::kNotFound, "StatusTextNotUtf8", StatusBlock("\xc3\x28\xff\0\n"), 5),
      status_gets(StatusCode::kNotFound, "StatusTextOf47KiB", StatusBlock(std::string(47 * 1024, 's')), 5),
      status_gets(StatusCode::kUnknown, "StatusCode17", StatusBlock(""), 17),
      status_gets(StatusCode::kUnknown, "StatusCode65535", StatusBlock(""), 65535),

      {"DescriptorsWithDoorbells", then_reply([](NativeConnection& connection, const Calls&) {
         const std::vector<int> fds(253, STDERR_FILENO);
         for (int i = 0; i < 10; ++i) EXPECT_TRUE(SendWithFds(connection.socket(), "bell", fds));
       }),
       Where::kShmOnly, StatusCode::kOk},
  };
}

using HostileServerOddity = HostileServerTest;

TEST_P(HostileServerOddity, EndsNoOtherCall) {
  GetParam().attack.run(*connection_, calls_);
  caller_.join();
  EXPECT_EQ(sync_status_.code(), GetParam().attack.code) << sync_status_;
  // The others, on the same connection.
  connection_->Send(Of(kMessageFrame, calls_.stream));
  connection_->Send(Of(kResponseFrame, calls_.stream, kNoMessage));
  Item item;
  EXPECT_TRUE(reader_->Read(&item));
  EXPECT_FALSE(reader_->Read(&item));
  const absl::Status stream_status = reader_->Finish();
  EXPECT_TRUE(stream_status.ok()) << stream_status;
  EXPECT_FALSE(async_ended_.IsSet());
  connection_->Send(Of(kResponseFrame, calls_.async));
  ASSERT_TRUE(async_ended_.Wait());
  EXPECT_TRUE(async_status_.ok()) << async_status_;
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileServerOddity, testing::ValuesIn(Cases(Oddities())),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace shmrpc::fault
