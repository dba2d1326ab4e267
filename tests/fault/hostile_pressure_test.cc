// Peers that break no rule but patience: what they ask for without taking it, doorbells without end, and data without a
// doorbell.

#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "hostile_fixture.h"
#include "process_state.h"

namespace shmrpc::fault {
namespace {

using conformance::CountThreads;
using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Event;
using conformance::Eventually;
using conformance::kHangGuard;

absl::Duration ProcessCpuTime() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return absl::DurationFromTimespec(now);
}

// Does something without pause, in a thread of its own, until it is destroyed.
class WithoutPause {
 public:
  explicit WithoutPause(std::function<void()> act)
      : thread_([this, act = std::move(act)] {
          while (!stop_) act();
        }) {}
  ~WithoutPause() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class HostilePressureTest : public HostileTest {
 protected:
  std::unique_ptr<NativeConnection> Connect(Way way) {
    std::unique_ptr<NativeConnection> connection = ConnectNative(way, address());
    if (connection != nullptr) AnnounceMethods(*connection);
    return connection;
  }
  // The library's threads sleep: nobody looks at the ring on and on because somebody rang too often.
  static void ExpectQuiet() {
    EXPECT_TRUE(Eventually([] {
      const absl::Duration before = ProcessCpuTime();
      absl::SleepFor(absl::Milliseconds(100));
      return ProcessCpuTime() - before < absl::Milliseconds(20);
    }));
  }
};

class HostilePressureWayTest : public HostilePressureTest, public testing::WithParamInterface<Way> {};
INSTANTIATE_TEST_SUITE_P(Fault, HostilePressureWayTest, testing::Values(Way::kShm, Way::kTcp),
                         [](const auto& info) { return WayName(info.param); });

TEST_P(HostilePressureWayTest, RepliesThatAreNeverReadTakeBoundedMemory) {
  constexpr int kReplyBytes = 64 * 1024;
  // What the server holds back at most, what a link holds, and generously of calls that were running already. Without a
  // bound it would be thirty times as much.
  constexpr int kMostReplies = (16 + 8) * 1024 * 1024 / kReplyBytes + 256;
  constexpr int kRequests = 20'000;
  const std::unique_ptr<NativeConnection> connection = Connect(GetParam());
  ASSERT_NE(connection, nullptr);
  EchoRequest request;
  request.set_reply_bytes(kReplyBytes);
  const int before = service().started().value();
  int sent = 0;
  int neighbours_calls = 0;
  // Until the server takes no more: it had time for the neighbours, and began with none of the requests.
  for (int seen = -1; sent < kRequests;) {
    while (sent < kRequests && connection->TrySendBytes(EncodeFrame(EchoRequestFrame(sent + 1, request)))) ++sent;
    ExpectNeighboursServed(25);
    neighbours_calls += 2 * 25;
    const int begun = service().started().value() - before - neighbours_calls;
    ASSERT_LE(begun, kMostReplies);
    if (begun == seen) break;
    seen = begun;
  }
  EXPECT_GT(sent, kMostReplies);
  ExpectNeighboursServed(100);
  EXPECT_LE(service().started().value() - before - neighbours_calls - 2 * 100, kMostReplies);
}

TEST_F(HostilePressureTest, DoorbellsWithoutPauseCostTheServerOneThreadAtMost) {
  const std::unique_ptr<NativeConnection> connection = Connect(Way::kShm);
  ASSERT_NE(connection, nullptr);
  ExpectEchoOver(*connection, 1);
  const int threads = CountThreads();
  {
    const std::string bells(4096, 'b');
    const WithoutPause ringing(
        [&] { (void)!send(connection->socket(), bells.data(), bells.size(), MSG_NOSIGNAL | MSG_DONTWAIT); });
    ExpectNeighboursServed(300);
    // The one that rings, and one of the server's. Others that a busy machine makes it start end while the bells ring.
    EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads + 2; }))
        << CountThreads() << " threads, " << threads << " before";
  }
  ExpectQuiet();
}

TEST_F(HostilePressureTest, FlagsThatChangeWithoutPauseMakeTheServerRingAndNothingElse) {
  const std::unique_ptr<NativeConnection> connection = Connect(Way::kShm);
  ASSERT_NE(connection, nullptr);
  {
    const WithoutPause changing([&] {
      connection->own().parked().fetch_add(1);
      connection->own().wants_room().fetch_add(1);
    });
    for (uint64_t i = 1; i <= 200; ++i) {
      ASSERT_TRUE(connection->Send(EchoRequestFrame(i)));
      // Without parking, as that is what the flag is about.
      std::optional<NativeFrame> response;
      EXPECT_TRUE(Eventually([&] {
        connection->RingDoorbell();
        return (response = connection->TryReceive()).has_value();
      }));
      EXPECT_EQ(response.value_or(NativeFrame()).call_id, i);
    }
    ExpectNeighboursServed(200);
  }
  ExpectQuiet();
}

TEST_F(HostilePressureTest, ARequestWithoutADoorbellWaitsForOne) {
  const std::unique_ptr<NativeConnection> connection = Connect(Way::kShm);
  ASSERT_NE(connection, nullptr);
  ExpectEchoOver(*connection, 1);
  for (uint64_t i = 2; i < 12; ++i) {
    EXPECT_TRUE(Eventually([&] { return connection->peer().parked().load() % 2 == 1; }));
    EchoRequest request;
    ASSERT_TRUE(connection->producer().Publish(EncodeFrame(EchoRequestFrame(i, request))));
    ExpectNeighboursServed(5);
    connection->RingDoorbell();
    EXPECT_EQ(connection->Expect(kResponseFrame, i).code, 0);
  }
  ExpectQuiet();
}

// ---- The same from a server.

class HostileServerPressureTest : public HostilePressureTest {
 protected:
  void SetUp() override {
    HostilePressureTest::SetUp();
    if (HasFatalFailure()) return;
    server_ = std::make_unique<NativeServer>(Way::kShm);
  }
  void TearDown() override {
    connection_ = nullptr;
    server_ = nullptr;
    HostilePressureTest::TearDown();
  }

  // A channel with an asynchronous call in progress.
  std::shared_ptr<Channel> NewChannel(absl::Duration keepalive = kHangGuard) const {
    ChannelOptions options;
    options.transport = TransportPreference::kShm;
    options.keepalive_timeout = keepalive;
    return Channel::Create(server_->address(), options);
  }
  // A thread that makes a call and says how it ended; until it has, both arguments stay.
  static std::thread CallWithDeadline(Echo::Stub* stub, absl::Status* status) {
    return std::thread([stub, status] {
      ClientContext context;
      context.set_timeout(absl::Milliseconds(300));
      EchoReply reply;
      *status = stub->Echo(&context, EchoRequest(), &reply);
    });
  }
  // The next request; methods are passed over.
  uint64_t ExpectRequest() {
    std::optional<NativeFrame> frame;
    do {
      frame = connection_->Receive();
    } while (frame.has_value() && frame->type != kRequestFrame);
    EXPECT_TRUE(frame.has_value());
    return frame.has_value() ? frame->call_id : 0;
  }

  std::unique_ptr<NativeServer> server_;
  std::unique_ptr<NativeConnection> connection_;
};

TEST_F(HostileServerPressureTest, DoorbellsWithoutPauseKeepNoCallFromItsDeadline) {
  Echo::Stub stub(NewChannel());
  absl::Status status;
  std::thread caller = CallWithDeadline(&stub, &status);
  connection_ = server_->Accept();
  ASSERT_NE(connection_, nullptr);
  ExpectRequest();
  {
    const std::string bells(4096, 'b');
    const WithoutPause ringing(
        [&] { (void)!send(connection_->socket(), bells.data(), bells.size(), MSG_NOSIGNAL | MSG_DONTWAIT); });
    caller.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    ExpectNeighboursServed(100);
  }
  ExpectQuiet();
}

// Nobody tells the client of the response. It is no worse off than with a server that says nothing.
TEST_F(HostileServerPressureTest, AResponseWithoutADoorbellKeepsNoCallFromItsDeadline) {
  Echo::Stub stub(NewChannel());
  absl::Status status;
  std::thread caller = CallWithDeadline(&stub, &status);
  connection_ = server_->Accept();
  ASSERT_NE(connection_, nullptr);
  const uint64_t call_id = ExpectRequest();
  EXPECT_TRUE(Eventually([&] { return connection_->peer().parked().load() % 2 == 1; }));
  EXPECT_TRUE(connection_->producer().Publish(EncodeFrame({.type = kResponseFrame, .call_id = call_id})));
  caller.join();
  EXPECT_THAT(status.code(), testing::AnyOf(absl::StatusCode::kOk, absl::StatusCode::kDeadlineExceeded)) << status;
}

TEST_F(HostileServerPressureTest, AResponseWithoutADoorbellIsFoundOrGivenUpByKeepalive) {
  Echo::Stub stub(NewChannel(/*keepalive=*/absl::Milliseconds(400)));
  const EchoRequest request;
  EchoReply reply;
  ClientContext context;
  absl::Status status;
  Event ended;
  stub.async().Echo(&context, &request, &reply, [&](absl::Status end) {
    status = std::move(end);
    ended.Set();
  });
  Hello answer;
  answer.keepalive_ms = 0;
  connection_ = server_->Accept(answer);
  ASSERT_NE(connection_, nullptr);
  const uint64_t call_id = ExpectRequest();
  EXPECT_TRUE(Eventually([&] { return connection_->peer().parked().load() % 2 == 1; }));
  EXPECT_TRUE(connection_->producer().Publish(EncodeFrame({.type = kResponseFrame, .call_id = call_id})));
  EXPECT_TRUE(ended.Wait());
  EXPECT_THAT(status.code(), testing::AnyOf(absl::StatusCode::kOk, absl::StatusCode::kUnavailable)) << status;
}

}  // namespace
}  // namespace shmrpc::fault
