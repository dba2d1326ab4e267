// Messages of every size arrive whole, and those over a limit end their call and nothing else.

#include <vector>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::HasSubstr;

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;

// A request whose encoding has exactly `size` bytes.
EchoRequest RequestOfEncodedSize(size_t size) {
  EchoRequest request;
  request.set_payload(std::string(size, 'x'));
  while (request.ByteSizeLong() > size) {
    request.mutable_payload()->resize(request.payload().size() - (request.ByteSizeLong() - size));
  }
  EXPECT_EQ(request.ByteSizeLong(), size);
  return request;
}

TEST_P(ConformanceTest, SizeEveryLengthUpTo512) {
  StartServer();
  const auto channel = NewChannel();
  for (size_t size = 0; size <= 512; ++size) ExpectEcho(channel, RandomBytes(size, 1));
}

TEST_P(ConformanceTest, SizeAroundEveryPowerOfTwoUpToOneMiB) {
  StartServer();
  const auto channel = NewChannel();
  for (size_t power = 1024; power <= kMiB; power *= 2) {
    for (size_t size = power - 16; size <= power + 1; ++size) ExpectEcho(channel, RandomBytes(size, 2));
  }
}

TEST_P(ConformanceTest, SizeAscendingAndDescending) {
  StartServer();
  const auto channel = NewChannel();
  const std::vector<size_t> sizes = {0, 1, 63, 64, 65, 4 * kKiB - 1, 4 * kKiB, 64 * kKiB + 1, 300 * kKiB, 3 * kMiB};
  for (int round = 0; round < 3; ++round) {
    for (auto size = sizes.begin(); size != sizes.end(); ++size) ExpectEcho(channel, RandomBytes(*size, round));
    for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) ExpectEcho(channel, RandomBytes(*size, round));
  }
}

TEST_P(ConformanceTest, SizeLargeRequestSmallReplyAndBack) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  for (int i = 0; i < 5; ++i) {
    EchoRequest request;
    request.set_payload(RandomBytes(2 * kMiB, i));
    request.set_reply_bytes(1);
    absl::StatusOr<EchoReply> reply = stub.Echo(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->payload(), "r");

    request.clear_payload();
    request.set_reply_bytes(2 * kMiB);
    reply = stub.Echo(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_TRUE(reply->payload() == std::string(2 * kMiB, 'r'));
  }
}

TEST_P(ConformanceTest, SizeUpToTheDefaultLimit) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  const absl::StatusOr<EchoReply> reply = stub.Echo(RequestOfEncodedSize(kDefaultMaxMessageBytes));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->ByteSizeLong(), kDefaultMaxMessageBytes);
}

TEST_P(ConformanceTest, SizeSixtyFourMiBWithRaisedLimits) {
  const size_t limit = 80 * kMiB;
  StartServer(NewServerBuilder().SetMaxReceiveMessageBytes(limit).SetMaxSendMessageBytes(limit), listen_address());
  ChannelOptions options = NewChannelOptions();
  options.max_send_message_bytes = limit;
  options.max_receive_message_bytes = limit;
  const auto channel = NewChannel(options);
  ExpectEcho(channel, RandomBytes(64 * kMiB, 3));
  ExpectEcho(channel);
}

// One limit at a time is low; a message of exactly that size passes, one byte more does not.
class LimitCheck {
 public:
  explicit LimitCheck(const std::shared_ptr<Channel>& channel) : stub_(channel) {}

  // Calls with a request, or for a reply, of `size` bytes.
  absl::Status CallWithRequest(size_t size, ClientContext* context) {
    EchoRequest request = RequestOfEncodedSize(size - 2);
    request.set_reply_bytes(0);  // two bytes in the encoding
    EXPECT_EQ(request.ByteSizeLong(), size);
    EchoReply reply;
    return stub_.Echo(context, request, &reply);
  }
  absl::Status CallForReply(size_t size, ClientContext* context) {
    EchoReply expected;
    expected.set_payload(std::string(size, 'r'));
    const size_t overhead = expected.ByteSizeLong() - size;
    EchoRequest request;
    request.set_reply_bytes(size - overhead);
    EchoReply reply;
    absl::Status status = stub_.Echo(context, request, &reply);
    if (status.ok()) {
      EXPECT_EQ(reply.ByteSizeLong(), size);
    }
    return status;
  }

 private:
  Echo::Stub stub_;
};

void ExpectOverLimit(const absl::Status& status, size_t limit) {
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(limit)));
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(limit + 1)));
}

// Small enough for one record of a ring, larger than any first ring, and so large that it comes in many pieces.
constexpr size_t kLimits[] = {1000, 200 * kKiB, 5 * kMiB};

TEST_P(ConformanceTest, SizeRequestOverTheClientsLimit) {
  StartServer();
  for (const size_t limit : kLimits) {
    ChannelOptions options = NewChannelOptions();
    options.max_send_message_bytes = limit;
    const auto channel = NewChannel(options);
    LimitCheck check(channel);
    ClientContext exact, over;
    EXPECT_TRUE(check.CallWithRequest(limit, &exact).ok());
    const int started = service_.started().value();
    ExpectOverLimit(check.CallWithRequest(limit + 1, &over), limit);
    EXPECT_EQ(service_.started().value(), started);
    ExpectEcho(channel);
  }
}

TEST_P(ConformanceTest, SizeReplyOverTheClientsLimit) {
  StartServer();
  for (const size_t limit : kLimits) {
    ChannelOptions options = NewChannelOptions();
    options.max_receive_message_bytes = limit;
    const auto channel = NewChannel(options);
    LimitCheck check(channel);
    ClientContext exact, over;
    const absl::Status status = check.CallForReply(limit, &exact);
    EXPECT_TRUE(status.ok()) << status;
    ExpectOverLimit(check.CallForReply(limit + 1, &over), limit);
    ExpectEcho(channel);
  }
}

TEST_P(ConformanceTest, SizeRequestOverTheServersLimit) {
  for (const size_t limit : kLimits) {
    StartServer(NewServerBuilder().SetMaxReceiveMessageBytes(limit), listen_address());
    const auto channel = NewChannel();
    LimitCheck check(channel);
    ClientContext exact, over;
    const absl::Status status = check.CallWithRequest(limit, &exact);
    EXPECT_TRUE(status.ok()) << status;
    const int started = service_.started().value();
    ExpectOverLimit(check.CallWithRequest(limit + 1, &over), limit);
    EXPECT_EQ(service_.started().value(), started);
    ExpectEcho(channel);
    server_ = nullptr;
  }
}

TEST_P(ConformanceTest, SizeReplyOverTheServersLimit) {
  for (const size_t limit : kLimits) {
    StartServer(NewServerBuilder().SetMaxSendMessageBytes(limit), listen_address());
    const auto channel = NewChannel();
    LimitCheck check(channel);
    ClientContext exact, over;
    const absl::Status status = check.CallForReply(limit, &exact);
    EXPECT_TRUE(status.ok()) << status;
    ExpectOverLimit(check.CallForReply(limit + 1, &over), limit);
    ExpectEcho(channel);
    server_ = nullptr;
  }
}

TEST_P(ConformanceTest, SizeLimitsOfOneCallOverrideTheChannels) {
  StartServer();
  const auto channel = NewChannel();
  LimitCheck check(channel);

  ClientContext send;
  send.set_max_send_message_bytes(1000);
  ExpectOverLimit(check.CallWithRequest(1001, &send), 1000);

  ClientContext receive;
  receive.set_max_receive_message_bytes(1000);
  ExpectOverLimit(check.CallForReply(1001, &receive), 1000);

  ClientContext raised;
  raised.set_max_receive_message_bytes(kDefaultMaxMessageBytes);
  const absl::Status status = check.CallForReply(1001, &raised);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(ConformanceTest, SizeLimitsHoldForAsynchronousCalls) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  const size_t limit = 1000;
  const auto call = [&](ClientContext* context, const EchoRequest& request) {
    EchoReply reply;
    absl::Status status;
    Event done;
    stub.async().Echo(context, &request, &reply, [&](absl::Status result) {
      status = std::move(result);
      done.Set();
    });
    EXPECT_TRUE(done.Wait());
    return status;
  };

  ClientContext exact, send, receive;
  exact.set_max_send_message_bytes(limit);
  const absl::Status status = call(&exact, RequestOfEncodedSize(limit));
  EXPECT_TRUE(status.ok()) << status;
  send.set_max_send_message_bytes(limit);
  ExpectOverLimit(call(&send, RequestOfEncodedSize(limit + 1)), limit);
  EXPECT_EQ(service_.started().value(), 1);
  receive.set_max_receive_message_bytes(limit);
  EchoRequest request;
  request.set_reply_bytes(2 * limit);
  EXPECT_EQ(call(&receive, request).code(), absl::StatusCode::kResourceExhausted);
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, SizeOverTheLimitKeepsTheConnection) {
  const size_t limit = 1000;
  StartServer(NewServerBuilder().SetMaxReceiveMessageBytes(limit), listen_address());
  Echo::Stub stub(NewChannel());
  EchoRequest observe;
  observe.set_observe(true);

  const absl::StatusOr<EchoReply> before = stub.Echo(observe);
  ASSERT_TRUE(before.ok()) << before.status();
  const absl::StatusOr<EchoReply> refused = stub.Echo(RequestOfEncodedSize(limit + 1));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  const absl::StatusOr<EchoReply> after = stub.Echo(observe);
  ASSERT_TRUE(after.ok()) << after.status();

  // A new connection would come from another port, where there are ports.
  EXPECT_EQ(after->observed().peer_address(), before->observed().peer_address());
}

}  // namespace
}  // namespace shmrpc::conformance
