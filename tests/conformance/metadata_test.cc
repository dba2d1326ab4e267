// Metadata arrives as it was sent, in both directions, or the call fails with an error that names the pair.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::Pair;

using Entries = std::vector<Metadata::Entry>;

std::string AllByteValues() {
  std::string bytes;
  for (int value = 0; value < 256; ++value) bytes.push_back(static_cast<char>(value));
  return bytes;
}

Entries EntriesOf(const Metadata& metadata) { return Entries(metadata.begin(), metadata.end()); }

void Add(google::protobuf::RepeatedPtrField<MetadataEntry>* field, const Entries& entries) {
  for (const auto& [key, value] : entries) {
    MetadataEntry* entry = field->Add();
    entry->set_key(key);
    entry->set_value(value);
  }
}

// Makes one call with metadata in all three places and keeps what arrived.
struct MetadataCall {
  Entries client, initial, trailing;  // sent
  absl::Status handler_status;

  ClientContext context;
  EchoReply reply;
  absl::Status status;

  void Run(const std::shared_ptr<Channel>& channel) {
    Echo::Stub stub(channel);
    for (const auto& [key, value] : client) context.AddMetadata(key, value);
    EchoRequest request;
    request.set_observe(true);
    Add(request.mutable_initial_metadata(), initial);
    Add(request.mutable_trailing_metadata(), trailing);
    if (!handler_status.ok()) *request.mutable_status() = ToProto(handler_status);
    status = stub.Echo(&context, request, &reply);
  }

  // What arrived, and what was sent, in the order of keys: between different ones the order is not promised, and HTTP/2
  // libraries do not keep it.
  static Entries Sorted(Entries entries) {
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    return entries;
  }

  // What arrived.
  Entries Initial() const { return Sorted(EntriesOf(context.GetServerInitialMetadata())); }
  Entries Trailing() const { return Sorted(EntriesOf(context.GetServerTrailingMetadata())); }
  Entries ReceivedByServer() const {
    Entries entries;
    for (const MetadataEntry& entry : reply.observed().client_metadata()) {
      entries.emplace_back(entry.key(), entry.value());
    }
    return Sorted(std::move(entries));
  }
};

TEST_P(ConformanceTest, MetadataTravelsBothWays) {
  StartServer();
  MetadataCall call;
  call.client = {{"request-id", "42"}};
  call.initial = {{"initial", "first"}};
  call.trailing = {{"trailing", "last"}};
  call.Run(NewChannel());
  ASSERT_TRUE(call.status.ok()) << call.status;
  EXPECT_THAT(call.ReceivedByServer(), ElementsAre(Pair("request-id", "42")));
  EXPECT_THAT(call.Initial(), ElementsAre(Pair("initial", "first")));
  EXPECT_THAT(call.Trailing(), ElementsAre(Pair("trailing", "last")));
}

TEST_P(ConformanceTest, MetadataNoneArrivesAsNone) {
  StartServer();
  const auto channel = NewChannel();
  MetadataCall with;
  with.client = with.initial = with.trailing = {{"key", "value"}};
  with.Run(channel);
  ASSERT_TRUE(with.status.ok()) << with.status;

  MetadataCall without;
  without.Run(channel);
  ASSERT_TRUE(without.status.ok()) << without.status;
  EXPECT_THAT(without.ReceivedByServer(), testing::IsEmpty());
  EXPECT_TRUE(without.context.GetServerInitialMetadata().empty());
  EXPECT_TRUE(without.context.GetServerTrailingMetadata().empty());
}

TEST_P(ConformanceTest, MetadataKeepsEveryByteOfBinaryValues) {
  StartServer();
  const Entries entries = {{"all-bin", AllByteValues()}, {"zero-bin", std::string(1, '\0')}, {"empty-bin", ""}};
  MetadataCall call;
  call.client = call.initial = call.trailing = entries;
  call.Run(NewChannel());
  ASSERT_TRUE(call.status.ok()) << call.status;
  EXPECT_THAT(call.ReceivedByServer(), ElementsAreArray(MetadataCall::Sorted(entries)));
  EXPECT_THAT(call.Initial(), ElementsAreArray(MetadataCall::Sorted(entries)));
  EXPECT_THAT(call.Trailing(), ElementsAreArray(MetadataCall::Sorted(entries)));
}

TEST_P(ConformanceTest, MetadataKeepsEveryPrintableCharacter) {
  std::string printable;
  for (char character = 0x20; character <= 0x7e; ++character) printable.push_back(character);
  StartServer();
  const Entries entries = {{"abcdefghijklmnopqrstuvwxyz0123456789_-.", printable}, {"empty", ""}, {"spaces", "  x  "}};
  MetadataCall call;
  call.client = call.initial = call.trailing = entries;
  call.Run(NewChannel());
  ASSERT_TRUE(call.status.ok()) << call.status;
  EXPECT_THAT(call.ReceivedByServer(), ElementsAreArray(MetadataCall::Sorted(entries)));
  EXPECT_THAT(call.Initial(), ElementsAreArray(MetadataCall::Sorted(entries)));
  EXPECT_THAT(call.Trailing(), ElementsAreArray(MetadataCall::Sorted(entries)));
}

TEST_P(ConformanceTest, MetadataKeepsDuplicatesInOrder) {
  StartServer();
  MetadataCall call;
  call.client = call.initial = call.trailing = {{"key", "1"}, {"other", "x"}, {"key", "2"}, {"key", "1"}, {"key", ""}};
  call.Run(NewChannel());
  ASSERT_TRUE(call.status.ok()) << call.status;

  Metadata received_by_server;
  for (const auto& [key, value] : call.ReceivedByServer()) received_by_server.Add(key, value);
  for (const Metadata& received :
       {received_by_server, call.context.GetServerInitialMetadata(), call.context.GetServerTrailingMetadata()}) {
    EXPECT_THAT(received.FindAll("key"), ElementsAre("1", "2", "1", ""));
    EXPECT_THAT(received.FindAll("other"), ElementsAre("x"));
  }
}

TEST_P(ConformanceTest, MetadataTrailingArrivesWithAnError) {
  StartServer();
  MetadataCall call;
  call.initial = {{"initial", "first"}};
  call.trailing = {{"reason-bin", AllByteValues()}};
  call.handler_status = absl::NotFoundError("nothing here");
  call.Run(NewChannel());
  EXPECT_EQ(call.status, call.handler_status);
  EXPECT_THAT(call.Trailing(), ElementsAre(Pair("reason-bin", AllByteValues())));
}

TEST_P(ConformanceTest, MetadataOfExactlyTheLimitPasses) {
  StartServer();
  const Entries entries = {{"large", std::string(Metadata::kMaxByteSize - 32 - 5, 'x')}};
  MetadataCall call;
  call.client = call.initial = call.trailing = entries;
  call.Run(NewChannel());
  ASSERT_TRUE(call.status.ok()) << call.status;
  EXPECT_THAT(call.ReceivedByServer(), ElementsAreArray(MetadataCall::Sorted(entries)));
  EXPECT_THAT(call.Initial(), ElementsAreArray(MetadataCall::Sorted(entries)));
  EXPECT_THAT(call.Trailing(), ElementsAreArray(MetadataCall::Sorted(entries)));
}

TEST_P(ConformanceTest, MetadataOverTheLimitNamesThePairAndTheLimit) {
  StartServer();
  const auto channel = NewChannel();
  MetadataCall call;
  call.client = {{"small", "x"}, {"too-large", std::string(Metadata::kMaxByteSize - 32 - 8, 'x')}};
  call.Run(channel);
  EXPECT_EQ(call.status.code(), absl::StatusCode::kResourceExhausted) << call.status;
  EXPECT_THAT(std::string(call.status.message()), HasSubstr("too-large"));
  EXPECT_THAT(std::string(call.status.message()), HasSubstr(std::to_string(Metadata::kMaxByteSize)));
  EXPECT_EQ(service_.started().value(), 0);
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, MetadataFromTheHandlerOverTheLimitIsInternal) {
  StartServer();
  const auto channel = NewChannel();
  const Entries too_large = {{"too-large", std::string(Metadata::kMaxByteSize, 'x')}};
  for (const bool initial : {true, false}) {
    MetadataCall call;
    (initial ? call.initial : call.trailing) = too_large;
    call.Run(channel);
    EXPECT_EQ(call.status.code(), absl::StatusCode::kInternal) << call.status;
    EXPECT_THAT(std::string(call.status.message()), HasSubstr("too-large"));
    ExpectEcho(channel);
  }
}

TEST_P(ConformanceTest, MetadataThatBreaksARuleIsInvalid) {
  StartServer();
  const auto channel = NewChannel();
  const Entries invalid = {
      {"", "empty key"},  {"Upper-Case", "x"},         {"with space", "x"},
      {"colon:", "x"},    {"grpc-timeout", "1S"},      {"shmrpc-anything", "x"},
      {"tab", "a\tb"},    {"newline", "a\nb"},         {"umlaut", "\xc3\xbc"},
      {"k\xc3\xbc", "x"}, {"zero", std::string(1, 0)},
  };
  for (const auto& [key, value] : invalid) {
    SCOPED_TRACE(testing::PrintToString(key));
    MetadataCall from_client;
    from_client.client = {{"valid", "x"}, {key, value}};
    from_client.Run(channel);
    EXPECT_EQ(from_client.status.code(), absl::StatusCode::kInvalidArgument) << from_client.status;
    // A key with other bytes than printable ones is shown escaped.
    if (key != "k\xc3\xbc") {
      EXPECT_THAT(std::string(from_client.status.message()), HasSubstr(key));
    }

    // A .proto string must be UTF-8, which all of these are.
    MetadataCall from_handler;
    from_handler.trailing = {{key, value}};
    from_handler.Run(channel);
    EXPECT_EQ(from_handler.status.code(), absl::StatusCode::kInternal) << from_handler.status;
  }
  ExpectEcho(channel);
}

}  // namespace
}  // namespace shmrpc::conformance
