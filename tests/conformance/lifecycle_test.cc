// Servers and channels begin and end while calls are under way.

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

// Calls whose handlers wait until the test releases them.
class HeldCalls {
 public:
  HeldCalls(const std::shared_ptr<Channel>& channel, int count) : stub_(channel), calls_(count) {
    request_.set_hold(true);
    request_.set_payload("held");
    for (auto& call : calls_) {
      call = std::make_unique<Call>();
      stub_.async().Echo(&call->context, &request_, &call->reply, [this, call = call.get()](absl::Status status) {
        call->status = std::move(status);
        done_.Increment();
      });
    }
  }

  // The statuses in order, when all calls have ended.
  std::vector<absl::Status> Wait() {
    EXPECT_TRUE(done_.WaitFor(static_cast<int>(calls_.size())));
    std::vector<absl::Status> statuses;
    for (const auto& call : calls_) statuses.push_back(call->status);
    return statuses;
  }
  int ended() const { return done_.value(); }

 private:
  struct Call {
    ClientContext context;
    EchoReply reply;
    absl::Status status;
  };

  Echo::Stub stub_;
  EchoRequest request_;
  std::vector<std::unique_ptr<Call>> calls_;
  Counter done_;
};

absl::Status CallOnce(const std::shared_ptr<Channel>& channel) {
  Echo::Stub stub(channel);
  return stub.Echo(EchoRequest()).status();
}

TEST_P(ConformanceTest, LifecycleShutdownDrainsAcceptedCallsAndRefusesNewOnes) {
  StartServer();
  const auto channel = NewChannel();
  HeldCalls held(channel, 8);
  ASSERT_TRUE(service_.held().WaitFor(8));

  std::thread shutdown([&] { server_->Shutdown(absl::InfiniteFuture()); });
  EXPECT_TRUE(Eventually([&] { return CallOnce(channel).code() == absl::StatusCode::kUnavailable; }));
  const auto late_channel = NewChannel();
  EXPECT_EQ(CallOnce(late_channel).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(held.ended(), 0);

  service_.Release();
  for (const absl::Status& status : held.Wait()) EXPECT_TRUE(status.ok()) << status;
  shutdown.join();
  EXPECT_EQ(CallOnce(channel).code(), absl::StatusCode::kUnavailable);
}

TEST_P(ConformanceTest, LifecycleShutdownCancelsWhatIsLeftAtItsDeadline) {
  StartServer();
  const auto channel = NewChannel();
  HeldCalls held(channel, 4);
  ASSERT_TRUE(service_.held().WaitFor(4));
  server_->Shutdown(absl::Now() + absl::Milliseconds(50));
  EXPECT_EQ(service_.cancelled().value(), 4);  // Shutdown waits for handlers
  for (const absl::Status& status : held.Wait()) {
    EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled)) << status;
  }
}

TEST_P(ConformanceTest, LifecycleDestroyingAServerEndsItsCalls) {
  StartServer();
  const auto channel = NewChannel();
  HeldCalls held(channel, 4);
  ASSERT_TRUE(service_.held().WaitFor(4));
  server_ = nullptr;
  for (const absl::Status& status : held.Wait()) {
    EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled)) << status;
  }
  EXPECT_EQ(CallOnce(channel).code(), absl::StatusCode::kUnavailable);
}

TEST_P(ConformanceTest, LifecycleShutdownIsIdempotentAndWakesWait) {
  StartServer();
  ExpectEcho(NewChannel());
  Event waited;
  std::thread waiter([&] {
    server_->Wait();
    waited.Set();
  });
  EXPECT_FALSE(waited.IsSet());
  server_->Shutdown(absl::Now() + kHangGuard);
  EXPECT_TRUE(waited.Wait());
  waiter.join();
  server_->Shutdown(absl::InfinitePast());
  server_->Wait();
}

TEST_P(ConformanceTest, LifecycleNoAcceptedCallIsLostWhenServersTakeTurns) {
  StartServer();
  const std::string address = server_address();
  const auto channel = NewChannel();
  std::atomic<bool> stop{false};
  std::atomic<int> replies{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      Echo::Stub stub(channel);
      while (!stop) {
        ClientContext context;
        context.set_wait_for_ready(true);
        context.set_timeout(kHangGuard);
        EchoReply reply;
        const absl::Status status = stub.Echo(&context, EchoRequest(), &reply);
        if (status.ok()) ++replies;
        // One that a server on its way out sends away goes to the next, if that is known.
        if (!GetParam().proves_not_processed && absl::IsUnavailable(status)) continue;
        EXPECT_TRUE(status.ok()) << status;
      }
    });
  }
  for (int round = 0; round < 5; ++round) {
    const int before = replies;
    EXPECT_TRUE(Eventually([&] { return replies > before + 20; }));
    server_->Shutdown(absl::Now() + kHangGuard);
    server_ = nullptr;
    StartServer(NewServerBuilder(), address);
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  if (GetParam().proves_not_processed) {
    EXPECT_EQ(service_.started().value(), replies);
  } else {
    EXPECT_GE(service_.started().value(), replies);
  }
}

TEST_P(ConformanceTest, LifecycleTheChannelReturnsToARestartedServer) {
  StartServer();
  const std::string address = server_address();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  for (int i = 0; i < 5; ++i) {
    server_ = nullptr;
    EXPECT_EQ(CallOnce(channel).code(), absl::StatusCode::kUnavailable);
    StartServer(NewServerBuilder(), address);
    ExpectEchoWhenReady(channel);
    EXPECT_EQ(channel->transport(), GetParam().expected);
  }
}

TEST_P(ConformanceTest, LifecycleManyChannelsReturnToARestartedServer) {
  StartServer();
  const std::string address = server_address();
  std::vector<std::shared_ptr<Channel>> channels(Scaled(100));
  for (auto& channel : channels) {
    channel = NewChannel();
    ExpectEcho(channel);
  }
  server_ = nullptr;
  std::vector<std::thread> callers;
  for (const auto& channel : channels) callers.emplace_back([&] { ExpectEchoWhenReady(channel); });
  StartServer(NewServerBuilder(), address);
  for (std::thread& caller : callers) caller.join();
  for (const auto& channel : channels) EXPECT_EQ(channel->transport(), GetParam().expected);
}

TEST_P(ConformanceTest, LifecycleTheChannelMayComeBeforeTheServer) {
  StartServer();
  const std::string address = server_address();
  server_ = nullptr;

  const auto channel = NewChannelTo(address);
  std::thread caller([&] { ExpectEchoWhenReady(channel); });
  EXPECT_EQ(CallOnce(channel).code(), absl::StatusCode::kUnavailable);
  StartServer(NewServerBuilder(), address);
  caller.join();
  EXPECT_EQ(channel->transport(), GetParam().expected);
}

TEST_P(ConformanceTest, LifecycleASecondServerOnTheSameAddressIsRefused) {
  StartServer();
  const std::string address = server_address();
  const auto channel = NewChannel();
  ExpectEcho(channel);

  EchoService second_service;
  const absl::StatusOr<std::unique_ptr<Server>> second =
      ServerBuilder(GetParam().transports()).Register(&second_service).Listen(address).Start();
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));

  ExpectEcho(channel);
  ExpectEcho(NewChannel());
  EXPECT_EQ(second_service.started().value(), 0);
}

TEST_P(ConformanceTest, LifecycleOneServerOnTwoAddresses) {
  StartServer(NewServerBuilder().Listen(NewListenAddress()), NewListenAddress());
  ASSERT_EQ(server_->addresses().size(), 2u);
  for (const Target& address : server_->addresses()) {
    const auto channel = NewChannelTo(address.ToString());
    ExpectEcho(channel);
    EXPECT_EQ(channel->transport(), GetParam().expected);
  }
  EXPECT_EQ(service_.started().value(), 2);
}

TEST_P(ConformanceTest, LifecycleMistakesAreReportedByStart) {
  EchoService service;
  EXPECT_EQ(ServerBuilder(GetParam().transports()).Register(&service).Start().status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ServerBuilder(GetParam().transports()).Listen(listen_address()).Start().status().code(),
            absl::StatusCode::kInvalidArgument);

  const absl::Status twice = ServerBuilder(GetParam().transports())
                                 .Listen(listen_address())
                                 .Register(&service)
                                 .Register(&service)
                                 .Start()
                                 .status();
  EXPECT_EQ(twice.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("shmrpc.conformance.Echo"));

  const absl::Status malformed = ServerBuilder(GetParam().transports())
                                     .Listen(listen_address())
                                     .Listen("nonsense")
                                     .Register(&service)
                                     .Start()
                                     .status();
  EXPECT_EQ(malformed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(malformed.message()), HasSubstr("nonsense"));
}

TEST_P(ConformanceTest, LifecycleNothingIsLeftBehind) {
  int rounds = 0;
  const auto run_round = [&] {
    ++rounds;
    StartServer();
    const auto channel = NewChannel();
    ExpectEcho(channel, RandomBytes(300000, rounds));
    HeldCalls held(channel, 3);
    EXPECT_TRUE(service_.held().WaitFor(3 * rounds));
    server_ = nullptr;
    held.Wait();
  };
  // The same as afterwards: what the process needs once, its timer's thread for instance, is there then.
  for (int i = 0; i < 3; ++i) run_round();
  const int descriptors_before = CountOpenDescriptors();
  const int threads_before = CountThreads();
  for (int i = 0; i < Scaled(50); ++i) run_round();
  EXPECT_TRUE(Eventually([&] { return CountOpenDescriptors() <= descriptors_before + kThreadDescriptors; }))
      << CountOpenDescriptors() << " descriptors, " << descriptors_before << " before";
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads_before + GetParam().library_threads; }))
      << CountThreads() << " threads, " << threads_before << " before";
  // The socket of a unix: address goes with its server.
  EXPECT_TRUE(std::filesystem::is_empty(directory()));
}

}  // namespace
}  // namespace shmrpc::conformance
