// Conversations over a wire that breaks after any byte, that is cut into bytes, or that is reset: whatever is on its
// way, each call ends, and neither side is worse for it.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "byte_proxy.h"
#include "case_selection.h"
#include "gmock/gmock.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

constexpr size_t kMiB = 1 << 20;

class ConversationTest : public ConformanceStreamTest {
 protected:
  // Starts the server, and the proxy in front of it. What both sides need once is there then.
  void StartConversations() {
    StartStreams(ServerStyle::kSynchronous);
    proxy_ = std::make_unique<ByteProxy>(server_address(), [this] {
      MutexLock lock(&mutex_);
      return rules_;
    });
    ASSERT_TRUE(Converse(NewChannelThroughTheProxy()));
    ASSERT_TRUE(Eventually([this] { return proxy_->open() == 0; }));
  }

  ~ConversationTest() override { proxy_ = nullptr; }

  void SetRules(const ByteProxy::Rules& rules) {
    MutexLock lock(&mutex_);
    rules_ = rules;
  }

  std::shared_ptr<Channel> NewChannelThroughTheProxy() const { return NewChannelTo(proxy_->address()); }

  // A call may end as it should, or like one whose connection is lost.
  static void ExpectEnd(const absl::Status& status, absl::StatusCode expected) {
    EXPECT_TRUE(status.code() == expected || absl::IsUnavailable(status) || absl::IsInternal(status)) << status;
  }

  // One call of each kind, one after the other. True when all have gone well.
  static bool Converse(const std::shared_ptr<Channel>& channel) {
    int good = 0;
    {
      ClientContext context;
      context.set_timeout(kHangGuard);
      context.AddMetadata("key", "value");
      EchoRequest request;
      request.set_payload(RandomBytes(100, 1));
      MetadataEntry* const entry = request.add_trailing_metadata();
      entry->set_key("trailing");
      entry->set_value("value");
      EchoReply reply;
      const absl::Status status = Echo::Stub(channel).Echo(&context, request, &reply);
      ExpectEnd(status, absl::StatusCode::kOk);
      if (status.ok()) {
        ++good;
        EXPECT_EQ(reply.payload(), request.payload());
      }
    }
    {
      ClientContext context;
      context.set_timeout(kHangGuard);
      const auto chat = Streams::Stub(channel).Chat(&context);
      Item item;
      int echoes = 0;
      while (echoes < 2 && chat->Write(MakeItem(echoes, 30)) && chat->Read(&item)) {
        EXPECT_EQ(item.number(), static_cast<uint64_t>(echoes));
        ++echoes;
      }
      chat->WritesDone();
      const absl::Status status = chat->Finish();
      ExpectEnd(status, absl::StatusCode::kOk);
      if (status.ok()) {
        ++good;
        EXPECT_EQ(echoes, 2);
      }
    }
    {
      ClientContext context;
      context.set_timeout(kHangGuard);
      CountRequest request;
      request.set_count(3);
      *request.mutable_end() = ToProto(absl::AbortedError("as the client wants it"));
      const auto reader = Streams::Stub(channel).Count(&context, request);
      Item item;
      uint64_t items = 0;
      while (reader->Read(&item)) EXPECT_EQ(item.number(), items++);
      const absl::Status status = reader->Finish();
      ExpectEnd(status, absl::StatusCode::kAborted);
      if (absl::IsAborted(status)) {
        ++good;
        EXPECT_EQ(items, 3u);
      }
    }
    return good == 3;
  }

  // Runs conversations that break off after each number of bytes of one side, `member` of the rules.
  void BreakOffAfterEachByte(size_t ByteProxy::Rules::*member, uint64_t (ByteProxy::*bytes)() const) {
    StartConversations();
    const size_t size = (*proxy_.*bytes)();
    const int descriptors = CountOpenDescriptors();
    // Connections of gRPC take longer to be made.
    size_t step = UnderSanitizer() ? 29 : GetParam().expected.substr(0, 4) == "grpc" ? 13 : 1;
#if SHMRPC_LONG_TESTS
    step = 1;
#endif
    int broken = 0;
    for (size_t i = 0; i < size && !HasFailure(); i += step) {
      ByteProxy::Rules rules;
      rules.*member = i;
      SetRules(rules);
      if (!Converse(NewChannelThroughTheProxy())) ++broken;
      if (HasFailure()) ADD_FAILURE() << "after " << i << " bytes of " << size;
    }
    RecordProperty("bytes", static_cast<int>(size));
    RecordProperty("broken", broken);
    EXPECT_GT(broken, 0);
    ExpectNothingIsLeft(descriptors);
  }

  // Both sides have closed their ends, all handlers are gone, and the server works.
  void ExpectNothingIsLeft(int descriptors) {
    EXPECT_TRUE(Eventually([this] { return proxy_->open() == 0; })) << proxy_->open() << " connections are open";
    EXPECT_TRUE(Eventually([this] { return counters_->ended.value() == counters_->started.value(); }))
        << counters_->ended.value() << " of " << counters_->started.value() << " handlers have ended";
    // Some threads of the server may have slept in a handler since; each connection that was lost had two descriptors.
    EXPECT_TRUE(Eventually([&] { return CountOpenDescriptors() <= descriptors + kThreadDescriptors + 4; }))
        << CountOpenDescriptors() << " descriptors, " << descriptors << " before";
    SetRules({});
    EXPECT_TRUE(Converse(NewChannelThroughTheProxy()));
    ExpectEcho(NewChannel());
  }

  // An echo of so many bytes, both ways.
  static absl::Status EchoOf(const std::shared_ptr<Channel>& channel, size_t bytes) {
    ClientContext context;
    context.set_timeout(kHangGuard);
    EchoRequest request;
    request.set_payload(RandomBytes(bytes, bytes));
    EchoReply reply;
    const absl::Status status = Echo::Stub(channel).Echo(&context, request, &reply);
    if (status.ok()) {
      EXPECT_TRUE(reply.payload() == request.payload());
    }
    return status;
  }

  std::unique_ptr<ByteProxy> proxy_;

 private:
  Mutex mutex_;
  ByteProxy::Rules rules_ ABSL_GUARDED_BY(mutex_);
};

TEST_P(ConversationTest, EveryPrefixOfWhatTheClientSaysThenClose) {
  BreakOffAfterEachByte(&ByteProxy::Rules::client_bytes, &ByteProxy::client_bytes);
}

TEST_P(ConversationTest, EveryPrefixOfWhatTheServerSaysThenClose) {
  BreakOffAfterEachByte(&ByteProxy::Rules::server_bytes, &ByteProxy::server_bytes);
}

TEST_P(ConversationTest, PrefixesOfALargeMessageThenClose) {
  StartConversations();
  constexpr size_t kBytes = 300'000;
  const int descriptors = CountOpenDescriptors();
  for (size_t i = 0; i < kBytes && !HasFailure(); i += UnderSanitizer() ? 49'999 : 9973) {
    for (size_t ByteProxy::Rules::*member : {&ByteProxy::Rules::client_bytes, &ByteProxy::Rules::server_bytes}) {
      ByteProxy::Rules rules;
      rules.*member = i;
      SetRules(rules);
      const absl::Status status = EchoOf(NewChannelThroughTheProxy(), kBytes);
      EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsInternal(status)) << "after " << i << " bytes: " << status;
    }
  }
  ExpectNothingIsLeft(descriptors);
}

TEST_P(ConversationTest, OneByteAtATime) {
  StartConversations();
  ByteProxy::Rules rules;
  rules.segment_bytes = 1;
  SetRules(rules);
  const auto channel = NewChannelThroughTheProxy();
  EXPECT_TRUE(Converse(channel));
  for (const size_t size : {0, 1, 1000, 20'000}) {
    const absl::Status status = EchoOf(channel, size);
    EXPECT_TRUE(status.ok()) << size << " bytes: " << status;
  }
  if (GetParam().expected == "shm") {
    // A token is good for the connection that it was given on, and the client has another one.
    EXPECT_THAT(channel->transport(), testing::HasSubstr("another TCP connection"));
  } else {
    EXPECT_EQ(channel->transport(), GetParam().expected);
  }
  EXPECT_EQ(proxy_->taken(), 2);  // with the conversation before
}

TEST_P(ConversationTest, AResetInTheMiddleOfALargeRequestReachesNoHandler) {
  StartConversations();
  const int descriptors = CountOpenDescriptors();
  const int before = service_.started().value();
  for (const size_t bytes : {size_t{2000}, 100 * size_t{1024}, kMiB, 6 * kMiB}) {
    ByteProxy::Rules rules;
    rules.client_bytes = bytes;
    rules.end = ByteProxy::End::kReset;
    SetRules(rules);
    const absl::Status status = EchoOf(NewChannelThroughTheProxy(), 8 * kMiB);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << "after " << bytes << " bytes: " << status;
  }
  EXPECT_EQ(service_.started().value(), before);
  ExpectNothingIsLeft(descriptors);
}

TEST_P(ConversationTest, AResetInTheMiddleOfALargeReplyDoesNotRepeatTheCall) {
  StartConversations();
  const int descriptors = CountOpenDescriptors();
  int calls = service_.started().value();
  for (const size_t bytes : {size_t{2000}, 100 * size_t{1024}, kMiB, 6 * kMiB}) {
    ByteProxy::Rules rules;
    rules.server_bytes = bytes;
    rules.end = ByteProxy::End::kReset;
    SetRules(rules);
    EchoRequest request;
    request.set_reply_bytes(8 * kMiB);
    ChannelOptions options = NewChannelOptions();
    options.retry_policy = RetryPolicy{.max_attempts = 5, .codes = {absl::StatusCode::kUnavailable}};
    const auto channel = Channel::Create(proxy_->address(), options, GetParam().transports());
    const absl::Status status = Echo::Stub(channel).Echo(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << "after " << bytes << " bytes: " << status;
    EXPECT_EQ(service_.started().value(), ++calls);
  }
  ExpectNothingIsLeft(descriptors);
}

// Those whose bytes, or at least whose hellos, a proxy can pass on.
INSTANTIATE_TEST_SUITE_P(Transport, ConversationTest,
                         testing::ValuesIn(CasesNamed({"auto", "tcp", "unix", "grpc", "grpcunix", "grpconeport"})),
                         CaseName);

}  // namespace
}  // namespace shmrpc::conformance
