// A call is over when its deadline passes, whatever the server does, and nothing else suffers from it.

#include <random>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

EchoRequest HeldRequest() {
  EchoRequest request;
  request.set_hold(true);
  return request;
}

TEST_P(ConformanceTest, DeadlineEndsACallThatTakesTooLong) {
  StartServer();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  Echo::Stub stub(channel);
  for (const absl::Duration timeout : {absl::Milliseconds(1), absl::Milliseconds(50)}) {
    ClientContext context;
    EchoReply reply;
    const absl::Time start = absl::Now();
    context.set_timeout(timeout);
    const absl::Status status = stub.Echo(&context, HeldRequest(), &reply);
    const absl::Duration elapsed = absl::Now() - start;
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_GE(elapsed, timeout);
    RecordProperty("late_us", static_cast<int>(absl::ToInt64Microseconds(elapsed - timeout)));
    ExpectEcho(channel);
  }
}

// The client's own clock ends the call, and not an answer of the server.
TEST_P(ConformanceTest, DeadlineEndsACallWhoseHandlerTakesNoNotice) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  EchoRequest request = HeldRequest();
  request.set_hold_regardless(true);

  ClientContext context;
  context.set_timeout(absl::Milliseconds(50));
  EchoReply reply;
  absl::Status status = stub.Echo(&context, request, &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;

  ClientContext asynchronous_context;
  asynchronous_context.set_timeout(absl::Milliseconds(50));
  Event done;
  stub.async().Echo(&asynchronous_context, &request, &reply, [&](absl::Status result) {
    status = std::move(result);
    done.Set();
  });
  const bool ended = done.Wait();
  service_.Release();
  ASSERT_TRUE(ended || done.Wait());
  EXPECT_TRUE(ended) << "only when the handler had ended";
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

TEST_P(ConformanceTest, DeadlineCancelsTheHandler) {
  StartServer();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  Echo::Stub stub(channel);
  ClientContext context;
  context.set_timeout(absl::Milliseconds(200));
  EchoReply reply;
  EXPECT_EQ(stub.Echo(&context, HeldRequest(), &reply).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(service_.cancelled().WaitFor(service_.held().value()));
}

TEST_P(ConformanceTest, DeadlineInThePastNeverReachesTheHandler) {
  StartServer();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  Echo::Stub stub(channel);
  for (const absl::Time deadline : {absl::InfinitePast(), absl::UnixEpoch(), absl::Now() - absl::Nanoseconds(1)}) {
    ClientContext context;
    context.set_deadline(deadline);
    EchoReply reply;
    const absl::Status status = stub.Echo(&context, EchoRequest(), &reply);
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  }
  ExpectEcho(channel);
  EXPECT_EQ(service_.started().value(), 2);  // the two good calls
}

TEST_P(ConformanceTest, DeadlineTravelsToTheServer) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_observe(true);
  for (const absl::Duration timeout : {absl::Hours(1), absl::Hours(24 * 365)}) {
    ClientContext context;
    context.set_timeout(timeout);
    EchoReply reply;
    const absl::Status status = stub.Echo(&context, request, &reply);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(reply.observed().has_time_left_us());
    const absl::Duration left = absl::Microseconds(reply.observed().time_left_us());
    EXPECT_LE(left, timeout + absl::Seconds(1) + timeout * GetParam().deadline_rounding);
    EXPECT_GT(left, timeout - kHangGuard);
  }
}

TEST_P(ConformanceTest, DeadlineThatIsInfiniteIsNone) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_observe(true);

  absl::StatusOr<EchoReply> reply = stub.Echo(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_FALSE(reply->observed().has_time_left_us());

  ClientContext context;
  context.set_timeout(absl::InfiniteDuration());
  reply = stub.Echo(&context, request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_FALSE(reply->observed().has_time_left_us());
}

TEST_P(ConformanceTest, DeadlineHoldsWhileThereIsNoServer) {
  StartServer();
  const auto channel = NewChannel();
  server_ = nullptr;

  Echo::Stub stub(channel);
  ClientContext context;
  context.set_wait_for_ready(true);
  context.set_timeout(absl::Milliseconds(100));
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, EchoRequest(), &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

TEST_P(ConformanceTest, DeadlineEndsAnAsynchronousCall) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  ClientContext context;
  context.set_timeout(absl::Milliseconds(50));
  const EchoRequest request = HeldRequest();
  EchoReply reply;
  absl::Status status;
  Event done;
  stub.async().Echo(&context, &request, &reply, [&](absl::Status result) {
    status = std::move(result);
    done.Set();
  });
  ASSERT_TRUE(done.Wait());
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, DeadlineRacingTheReplyGivesOneOfTheTwo) {
  StartServer();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  Echo::Stub stub(channel);
  std::mt19937 random(1);
  int replies = 0;
  for (int i = 0; i < Scaled(10000); ++i) {
    EchoRequest request;
    request.set_payload(std::to_string(i));
    ClientContext context;
    context.set_timeout(absl::Microseconds(random() % 200));
    EchoReply reply;
    const absl::Status status = stub.Echo(&context, request, &reply);
    if (status.ok()) {
      ++replies;
      ASSERT_EQ(reply.payload(), request.payload());
    } else {
      ASSERT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    }
  }
  RecordProperty("replies", replies);
  ExpectEcho(channel);
}

}  // namespace
}  // namespace shmrpc::conformance
