// Where user code runs: never inside the user's own call into the library, never on a thread that others wait for.

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_interceptor.h"
#include "shmrpc/client_reactor.h"
#include "tests/unit/runtime_fake_server.h"
#include "tests/unit/runtime_scripted_transport.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc {
namespace {

using testing::Event;
using testing::FakeServer;
using testing::kHang;
using testing::LongBackoff;
using testing::Outcome;
using testing::ScriptedTransport;
using testing::StringValue;
using testing::Text;

constexpr const char* kMethod = "/test.Stream/Method";

// A lock of the user's, which is held around calls into the library, and which callbacks take.
class UserCodeTest : public ::testing::Test {
 protected:
  StatusCallback LockingCallback(Outcome* outcome) {
    return [this, outcome](absl::Status status) {
      { MutexLock lock(&users_); }
      outcome->Set(std::move(status));
    };
  }

  Mutex users_;
  FakeServer server_;
  StringValue reply_;
};

TEST_F(UserCodeTest, ACallThatFailsAtOnceIsToldAfterItsStart) {
  const auto channel = server_.NewConnectedChannel();
  ClientContext context;
  context.AddMetadata("Bad", "x");
  Outcome outcome;
  {
    MutexLock lock(&users_);
    AsyncUnaryCall(channel, kMethod, &context, Text("x"), &reply_, LockingCallback(&outcome));
  }
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(UserCodeTest, AnInterceptorsEndComesAfterTheStart) {
  ChannelOptions options;
  Outcome outcome;
  options.interceptors.push_back([this](InterceptedClientCall* call) {
    call->OnEnd([this](absl::Status*, const Metadata&) { MutexLock lock(&users_); });
    return absl::OkStatus();
  });
  const auto channel = server_.NewChannel(options);
  ClientContext context;
  context.AddMetadata("Bad", "x");
  {
    MutexLock lock(&users_);
    AsyncUnaryCall(channel, kMethod, &context, Text("x"), &reply_, outcome.Callback());
  }
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(UserCodeTest, TryCancelMayBeCalledWithALockThatTheCallbackTakes) {
  const auto channel = server_.NewConnectedChannel();
  ClientContext context;
  Outcome outcome;
  AsyncUnaryCall(channel, kMethod, &context, Text("x"), &reply_, LockingCallback(&outcome));
  {
    MutexLock lock(&users_);
    context.TryCancel();
  }
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kCancelled);
}

TEST_F(UserCodeTest, AChannelMayBeDestroyedWithALockThatACallbackTakes) {
  auto channel = server_.NewConnectedChannel();
  Outcome outcome;
  AsyncUnaryCall(channel, kMethod, nullptr, Text("x"), &reply_, LockingCallback(&outcome));
  {
    MutexLock lock(&users_);
    channel = nullptr;
  }
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kCancelled);
}

TEST_F(UserCodeTest, AChannelMayBeDestroyedWithALockThatAQueuedCallsCallbackTakes) {
  // The connector thread has told the first call, whose callback waits for the lock, when the channel goes.
  Event go;
  Event in_callback;
  const auto transport = std::make_shared<ScriptedTransport>([&](const Target&, const ConnectOptions&) {
    go.Wait();
    return absl::UnavailableError("no");
  });
  auto channel = Channel::Create("localhost:1", LongBackoff(), {transport});
  Outcome outcome;
  AsyncUnaryCall(channel, kMethod, nullptr, Text("x"), &reply_, [&](absl::Status status) {
    in_callback.Set();
    { MutexLock lock(&users_); }
    outcome.Set(std::move(status));
  });
  {
    MutexLock lock(&users_);
    go.Set();
    EXPECT_TRUE(in_callback.Wait());
    channel = nullptr;
  }
  EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kUnavailable);
}

TEST_F(UserCodeTest, NoDeadlineWaitsForACallbackThatBlocks) {
  // Each callback waits for the next call's, and all calls end by their deadlines.
  constexpr int kCalls = 60;
  const auto channel = server_.NewConnectedChannel();
  std::vector<std::unique_ptr<ClientContext>> contexts;
  std::vector<StringValue> replies(kCalls);
  std::vector<Event> told(kCalls + 1);
  told[kCalls].Set();
  std::vector<Outcome> outcomes(kCalls);
  for (int i = 0; i < kCalls; ++i) {
    contexts.push_back(std::make_unique<ClientContext>());
    contexts[i]->set_timeout(absl::Milliseconds(10 + i % 7));
    AsyncUnaryCall(channel, kMethod, contexts[i].get(), Text("x"), &replies[i], [&, i](absl::Status status) {
      EXPECT_TRUE(told[i + 1].Wait());
      told[i].Set();
      outcomes[i].Set(std::move(status));
    });
  }
  for (Outcome& outcome : outcomes) EXPECT_EQ(outcome.Wait().code(), absl::StatusCode::kDeadlineExceeded);
}

class LockingReactor final : public ClientReadReactor<StringValue> {
 public:
  LockingReactor(const std::shared_ptr<Channel>& channel, Mutex* users) : users_(users) {
    PrepareClientReactor(channel, kMethod, MethodKind::kServerStreaming, &context_, &request_, nullptr, this);
    StartRead(&message_);
    StartCall();
  }
  void OnReadDone(bool) override { MutexLock lock(users_); }
  void OnDone(const absl::Status& status) override {
    { MutexLock lock(users_); }
    outcome_.Set(status);
  }
  ClientContext& context() { return context_; }
  absl::Status Wait() { return outcome_.Wait(); }

 private:
  Mutex* const users_;
  ClientContext context_;
  const StringValue request_;
  StringValue message_;
  Outcome outcome_;
};

TEST_F(UserCodeTest, AReactorsCallMayBeCancelledWithALockThatItTakes) {
  auto channel = server_.NewConnectedChannel();
  LockingReactor cancelled(channel, &users_);
  LockingReactor closed(channel, &users_);
  {
    MutexLock lock(&users_);
    cancelled.context().TryCancel();
    channel = nullptr;
  }
  EXPECT_EQ(cancelled.Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(closed.Wait().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace shmrpc
