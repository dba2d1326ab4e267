// Many threads, many calls and many channels at once.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

// Runs `body(i)` on `count` threads and waits for all of them.
template <typename Body>
void OnThreads(int count, const Body& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

TEST_P(ConformanceTest, ConcurrencyThirtyTwoThreadsOnOneChannel) {
  StartServer();
  const auto channel = NewChannel();
  const int calls = Scaled(500);
  OnThreads(32, [&](int thread) {
    for (int i = 0; i < calls && !HasFailure(); ++i) {
      ExpectEcho(channel, RandomBytes((thread * 37 + i * 11) % 1500, thread * 100000 + i));
    }
  });
  EXPECT_EQ(service_.started().value(), 32 * calls);
}

TEST_P(ConformanceTest, ConcurrencyMixedSizesOnOneChannel) {
  StartServer();
  const auto channel = NewChannel();
  const size_t sizes[] = {0, 64, 5000, 64 * 1024, 300 * 1024, 2 * 1024 * 1024};
  const int rounds = Scaled(20);
  OnThreads(8, [&](int thread) {
    for (int i = 0; i < rounds && !HasFailure(); ++i) {
      for (const size_t size : sizes) ExpectEcho(channel, RandomBytes(size + thread, i));
    }
  });
}

TEST_P(ConformanceTest, ConcurrencyMixedKindsOfCallsOnOneChannel) {
  StartServer();
  const auto channel = NewChannel();
  const int calls = Scaled(300);
  std::atomic<int> wrong{0};
  OnThreads(8, [&](int thread) {
    Echo::Stub stub(channel);
    for (int i = 0; i < calls; ++i) {
      EchoRequest request;
      request.set_payload(std::to_string(thread * 1000 + i));
      ClientContext context;
      EchoReply reply;
      if (thread % 4 == 0) {  // ends with its deadline
        request.set_hold(true);
        context.set_timeout(absl::Milliseconds(1));
        if (stub.Echo(&context, request, &reply).code() != absl::StatusCode::kDeadlineExceeded) ++wrong;
      } else if (thread % 4 == 1) {  // ends with an error
        request.mutable_status()->set_code(static_cast<int>(absl::StatusCode::kNotFound));
        if (stub.Echo(&context, request, &reply).code() != absl::StatusCode::kNotFound) ++wrong;
      } else if (thread % 4 == 2) {  // brings a reply through a callback
        Event done;
        stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
          if (!status.ok() || reply.payload() != request.payload()) ++wrong;
          done.Set();
        });
        if (!done.Wait()) ++wrong;
      } else if (!stub.Echo(&context, request, &reply).ok() || reply.payload() != request.payload()) {
        ++wrong;
      }
    }
  });
  EXPECT_EQ(wrong, 0);
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, ConcurrencyASlowHandlerDoesNotHoldUpOthers) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  constexpr int kSlow = 4;
  EchoRequest request;
  request.set_hold(true);
  ClientContext contexts[kSlow];
  EchoReply replies[kSlow];
  Counter done;
  for (int i = 0; i < kSlow; ++i) {
    stub.async().Echo(&contexts[i], &request, &replies[i], [&](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      done.Increment();
    });
  }
  ASSERT_TRUE(service_.held().WaitFor(kSlow));

  // These would wait for ever if the held calls were in their way.
  for (int i = 0; i < 500; ++i) ExpectEcho(channel, std::to_string(i));
  OnThreads(4, [&](int) { ExpectEcho(channel); });
  EXPECT_EQ(done.value(), 0);

  service_.Release();
  EXPECT_TRUE(done.WaitFor(kSlow));
}

TEST_P(ConformanceTest, ConcurrencyMoreHeldCallsThanThreads) {
  StartServer(NewServerBuilder().SetMaxThreads(4), listen_address());
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  constexpr int kCalls = 12;
  EchoRequest request;
  request.set_hold(true);
  ClientContext contexts[kCalls];
  EchoReply replies[kCalls];
  Counter done;
  for (int i = 0; i < kCalls; ++i) {
    stub.async().Echo(&contexts[i], &request, &replies[i], [&](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      done.Increment();
    });
  }
  ASSERT_TRUE(service_.held().WaitFor(4));
  EXPECT_EQ(service_.held().value(), 4);
  service_.Release();
  EXPECT_TRUE(done.WaitFor(kCalls));
}

TEST_P(ConformanceTest, ConcurrencyManyChannelsToOneServer) {
  StartServer();
  { ExpectEcho(NewChannel()); }  // so that what the library makes once and keeps is there
  server_ = nullptr;
  const int descriptors_before = CountOpenDescriptors();
  const int threads_before = CountThreads();

  StartServer();
  std::vector<std::shared_ptr<Channel>> channels(UnderSanitizer() ? 50 : 1000);
  for (auto& channel : channels) channel = NewChannel();
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < channels.size() && !HasFailure(); ++i) ExpectEcho(channels[i], std::to_string(i));
  }
  for (const auto& channel : channels) {
    ASSERT_EQ(channel->transport(), GetParam().expected);
  }
  channels.clear();
  server_ = nullptr;

  EXPECT_TRUE(Eventually([&] { return CountOpenDescriptors() <= descriptors_before + kThreadDescriptors; }))
      << CountOpenDescriptors() << " descriptors, " << descriptors_before << " before";
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads_before + GetParam().library_threads; }))
      << CountThreads() << " threads, " << threads_before << " before";
}

TEST_P(ConformanceTest, ConcurrencyChannelsComeAndGo) {
  StartServer();
  { ExpectEcho(NewChannel()); }
  const int rounds = Scaled(200);
  OnThreads(4, [&](int) {
    for (int i = 0; i < rounds && !HasFailure(); ++i) ExpectEcho(NewChannel());
  });
  EXPECT_EQ(service_.started().value(), 1 + 4 * rounds);
}

TEST_P(ConformanceTest, ConcurrencyManyStubsOfOneChannel) {
  StartServer();
  const auto channel = NewChannel();
  OnThreads(8, [&](int thread) {
    for (int i = 0; i < 50; ++i) {
      Echo::Stub stub(channel);
      EchoRequest request;
      request.set_payload(std::to_string(thread));
      const absl::StatusOr<EchoReply> reply = stub.Echo(request);
      ASSERT_TRUE(reply.ok()) << reply.status();
      ASSERT_EQ(reply->payload(), std::to_string(thread));
    }
  });
}

}  // namespace
}  // namespace shmrpc::conformance
