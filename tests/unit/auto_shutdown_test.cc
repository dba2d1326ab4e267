// Connections that come to a listener while it shuts down, or that have come only half.

#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "shmrpc/mutex.h"
#include "tests/unit/auto_raw_peer.h"
#include "transports/auto/auto_transport.h"

namespace shmrpc::autoselect {
namespace {

using framed::FrameType;

// Keeps every call until it is told to finish them.
class KeepingHandler final : public CallHandler {
 public:
  void OnCall(ServerCallPtr call, const IncomingMessage*) override {
    MutexLock lock(&mutex_);
    if (finished_) return;  // which ends it
    calls_.push_back(std::move(call));
  }
  void FinishAll() {
    std::vector<ServerCallPtr> calls;
    {
      MutexLock lock(&mutex_);
      finished_ = true;
      calls.swap(calls_);
    }
    for (ServerCallPtr& call : calls) FinishCall(std::move(call), {});
  }

 private:
  Mutex mutex_;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<ServerCallPtr> calls_ ABSL_GUARDED_BY(mutex_);
};

// A client has a call in progress, so that the shutdown goes on until the end of the test.
class AutoShutdownTest : public ::testing::TestWithParam<RawWay> {
 protected:
  AutoShutdownTest() {
    ListenOptions options;
    options.limits.handshake_timeout = absl::InfiniteDuration();
    options.keepalive_timeout = absl::InfiniteDuration();
    options.max_threads = 4;
    absl::StatusOr<std::unique_ptr<Listener>> listener =
        transport_.Listen(*Target::Parse(RawAddress(GetParam())), options, &handler_);
    EXPECT_TRUE(listener.ok()) << listener.status();
    if (listener.ok()) listener_ = *std::move(listener);
  }
  ~AutoShutdownTest() override {
    handler_.FinishAll();
    if (shutdown_.joinable()) shutdown_.join();
  }

  void ConnectWithCall() {
    client_ = ConnectRaw(GetParam(), listener_->address(), OrderlyHello<wire::ClientHello>());
    ASSERT_NE(client_, nullptr);
    client_->Send({.type = FrameType::kMethod}, "/a.Service/Method");
    client_->Send({.type = FrameType::kRequest, .call_id = 1});
  }

  // When this returns the shutdown waits for the call.
  void BeginShutdown() {
    shutdown_ = std::thread([this] { listener_->Shutdown(SteadyTime::InfiniteFuture()); });
    client_->Expect(FrameType::kGoAway);
  }

  AutoTransport transport_;
  KeepingHandler handler_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<RawFrames> client_;
  std::thread shutdown_;
};

INSTANTIATE_TEST_SUITE_P(Ways, AutoShutdownTest, ::testing::Values(RawWay::kTcp, RawWay::kShm),
                         [](const auto& info) { return RawWayName(info.param); });

TEST_P(AutoShutdownTest, HandshakesThatAreNotCompleteAreAborted) {
  const std::string hello = EncodeHello(OrderlyHello<wire::ClientHello>());
  std::vector<framed::UniqueFd> halves;
  for (const size_t bytes : {size_t{1}, kHelloMagic.size(), hello.size() - 1}) {
    absl::StatusOr<framed::UniqueFd> half = tcp::ConnectSocket(listener_->address(), SteadyTime::Now() + kHangGuard);
    ASSERT_TRUE(half.ok()) << half.status();
    ASSERT_EQ(send(half->get(), hello.data(), bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
    halves.push_back(*std::move(half));
  }
  // Connections are taken in their order: once this one has been served, the others have been taken.
  ConnectWithCall();
  BeginShutdown();
  for (const framed::UniqueFd& half : halves) {
    pollfd readable = {half.get(), POLLIN, 0};
    ASSERT_EQ(poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(kHangGuard))), 1) << "it goes on";
    char byte;
    EXPECT_LE(recv(half.get(), &byte, 1, MSG_DONTWAIT), 0);
  }
}

TEST_P(AutoShutdownTest, NobodyCanConnectAnyMore) {
  ConnectWithCall();
  BeginShutdown();
  EXPECT_EQ(tcp::ConnectSocket(listener_->address(), SteadyTime::Now() + kHangGuard).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace shmrpc::autoselect
