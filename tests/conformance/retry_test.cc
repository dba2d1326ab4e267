// What is attempted again, and that nothing runs twice: over every transport, while servers come and go.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

void WaitForServers(ClientContext* context) {
  context->set_wait_for_ready(true);
  context->set_timeout(kHangGuard);
}

absl::Status EchoSynchronously(const std::shared_ptr<Channel>& channel) {
  ClientContext context;
  WaitForServers(&context);
  EchoReply reply;
  return Echo::Stub(channel).Echo(&context, EchoRequest(), &reply);
}

absl::Status EchoWithCallback(const std::shared_ptr<Channel>& channel) {
  Echo::Stub stub(channel);
  ClientContext context;
  WaitForServers(&context);
  EchoReply reply;
  absl::Status result;
  Event done;
  {
    EchoRequest request;
    request.set_payload(std::string(1000, 'x'));
    stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
      result = std::move(status);
      done.Set();
    });
  }
  EXPECT_TRUE(done.Wait());
  if (result.ok()) {
    EXPECT_EQ(reply.payload().size(), 1000u);
  }
  return result;
}

absl::Status EchoInCoroutine(const std::shared_ptr<Channel>& channel) {
  Echo::Stub stub(channel);
  ClientContext context;
  WaitForServers(&context);
  const auto call = [&]() -> Task<absl::Status> {
    co_return (co_await stub.co().Echo(&context, EchoRequest())).status();
  };
  return SyncWait(call());
}

constexpr uint64_t kItems = 3;

CountRequest CountToThree() {
  CountRequest request;
  request.set_count(kItems);
  return request;
}

absl::Status ReadSynchronously(const std::shared_ptr<Channel>& channel) {
  ClientContext context;
  WaitForServers(&context);
  const auto reader = Streams::Stub(channel).Count(&context, CountToThree());
  uint64_t items = 0;
  for (Item item; reader->Read(&item);) ++items;
  const absl::Status status = reader->Finish();
  if (status.ok()) {
    EXPECT_EQ(items, kItems);
  }
  return status;
}

class CountingReactor final : public ClientReadReactor<Item> {
 public:
  explicit CountingReactor(const std::shared_ptr<Channel>& channel) {
    WaitForServers(&context_);
    const CountRequest request = CountToThree();
    Streams::Stub(channel).async().Count(&context_, &request, this);
    StartRead(&item_);
    StartCall();
  }
  absl::Status Wait() {
    EXPECT_TRUE(done_.Wait());
    if (status_.ok()) {
      EXPECT_EQ(items_, kItems);
    }
    return status_;
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    ++items_;
    StartRead(&item_);
  }
  void OnDone(const absl::Status& status) override {
    status_ = status;
    done_.Set();
  }

  ClientContext context_;
  Item item_;
  uint64_t items_ = 0;
  absl::Status status_;
  Event done_;
};

absl::Status ReadInCoroutine(const std::shared_ptr<Channel>& channel) {
  Streams::Stub stub(channel);
  ClientContext context;
  WaitForServers(&context);
  const auto call = [&]() -> Task<absl::Status> {
    CoClientReader<Item> reader = stub.co().Count(&context, CountToThree());
    uint64_t items = 0;
    while (std::optional<Item> item = co_await reader.Read()) ++items;
    const absl::Status status = co_await reader.Finish();
    if (status.ok()) {
      EXPECT_EQ(items, kItems);
    }
    co_return status;
  };
  return SyncWait(call());
}

absl::Status WriteSynchronously(const std::shared_ptr<Channel>& channel) {
  ClientContext context;
  WaitForServers(&context);
  SumReply reply;
  const auto writer = Streams::Stub(channel).Sum(&context, &reply);
  for (uint64_t i = 0; i < kItems && writer->Write(MakeItem(i)); ++i) {
  }
  const absl::Status status = writer->Finish();
  if (status.ok()) {
    EXPECT_EQ(reply.count(), kItems);
  }
  return status;
}

// Makes calls, one after the other, until it is destroyed. `ok` and `refused` count how they end.
class Caller {
 public:
  Caller(std::function<absl::Status()> call, bool may_be_refused, std::atomic<int>* ok, std::atomic<int>* refused)
      : thread_([this, call = std::move(call), may_be_refused, ok, refused] {
          while (!stop_) {
            const absl::Status status = call();
            if (status.ok()) {
              ++*ok;
            } else {
              EXPECT_TRUE(may_be_refused && absl::IsUnavailable(status)) << status;
              ++*refused;
            }
          }
        }) {}
  ~Caller() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_P(ConformanceStreamTest, RetryNotOneCallIsLostWhenServersTakeTurns) {
  if (!GetParam().proves_not_processed) GTEST_SKIP() << "the client does not learn which calls may be repeated";
  StreamCounters counters;
  const auto streams = MakeStreamService(ServerStyle::kSynchronous, &counters);
  StartServer(NewServerBuilder().Register(streams.get()), listen_address());
  const std::string address = server_address();
  const auto channel = NewChannel();
  std::atomic<int> unary{0}, reads{0}, writes{0}, refused_writes{0}, lost{0};
  {
    std::vector<std::unique_ptr<Caller>> callers;
    const auto add = [&](auto call, std::atomic<int>* ok, bool may_be_refused = false) {
      callers.push_back(std::make_unique<Caller>([&channel, call] { return call(channel); }, may_be_refused, ok,
                                                 may_be_refused ? &refused_writes : &lost));
    };
    add(&EchoSynchronously, &unary);
    add(&EchoSynchronously, &unary);
    add(&EchoWithCallback, &unary);
    add(&EchoInCoroutine, &unary);
    add(&ReadSynchronously, &reads);
    add([](const std::shared_ptr<Channel>& to) { return CountingReactor(to).Wait(); }, &reads);
    add(&ReadInCoroutine, &reads);
    // Its messages are gone when it turns out that they have to be sent again: so it may fail, but then has not run.
    add(&WriteSynchronously, &writes, /*may_be_refused=*/true);
    for (int round = 0; round < Scaled(10); ++round) {
      const int unary_before = unary, reads_before = reads, writes_before = writes;
      EXPECT_TRUE(Eventually(
          [&] { return unary > unary_before + 20 && reads > reads_before + 10 && writes > writes_before + 3; }));
      server_->Shutdown(absl::Now() + kHangGuard);
      server_ = nullptr;
      StartServer(NewServerBuilder().Register(streams.get()), address);
    }
  }
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(service_.started().value(), unary);
  EXPECT_EQ(counters.started.value(), reads + writes);
  server_ = nullptr;  // before its service
}

// Requests that a server has not even looked at when its time is over, because all its threads are in handlers.
TEST_P(ConformanceTest, RetryWhatAServerHasNotLookedAtGoesToTheNext) {
  if (!GetParam().proves_not_processed) GTEST_SKIP() << "the client does not learn it";
  constexpr int kThreads = 2;
  StartServer(NewServerBuilder().SetMaxThreads(kThreads), listen_address());
  const std::string address = server_address();
  const auto channel = NewChannel();
  ExpectEcho(channel);
  Echo::Stub stub(channel);
  std::vector<std::thread> holders;
  for (int i = 0; i < kThreads; ++i) {
    holders.emplace_back([&] {
      EchoRequest hold;
      hold.set_hold(true);
      ClientContext context;
      WaitForServers(&context);
      EchoReply reply;
      const absl::Status status = stub.Echo(&context, hold, &reply);
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;  // its handler has begun
    });
  }
  ASSERT_TRUE(service_.held().WaitFor(kThreads));

  // Sent when the function that starts it has returned.
  constexpr int kCalls = 10;
  std::vector<ClientContext> contexts(kCalls);
  std::vector<EchoReply> replies(kCalls);
  std::vector<absl::Status> statuses(kCalls);
  Counter done;
  const EchoRequest request;
  for (int i = 0; i < kCalls; ++i) {
    WaitForServers(&contexts[i]);
    stub.async().Echo(&contexts[i], &request, &replies[i], [&, i](absl::Status status) {
      statuses[i] = std::move(status);
      done.Increment();
    });
  }
  server_->Shutdown(absl::Now() + absl::Milliseconds(20));
  server_ = nullptr;
  for (std::thread& holder : holders) holder.join();
  EXPECT_EQ(done.value(), 0);
  StartServer(NewServerBuilder(), address);
  EXPECT_TRUE(done.WaitFor(kCalls));
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(service_.started().value(), 1 + kThreads + kCalls);
}

TEST_P(ConformanceTest, RetryWithoutWaitForReadyEndsWhenThereIsNoServer) {
  StartServer();
  const auto channel = NewChannel();
  std::atomic<int> replies{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      absl::Status status;
      while ((status = Echo::Stub(channel).Echo(EchoRequest()).status()).ok()) ++replies;
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    });
  }
  EXPECT_TRUE(Eventually([&] { return replies > 20; }));
  server_->Shutdown(absl::Now() + kHangGuard);
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(service_.started().value(), replies);
}

TEST_P(ConformanceTest, RetryPolicyWaitsForAPlaceAmongTheConcurrentCalls) {
  StartServer(NewServerBuilder().SetMaxConcurrentCalls(1), listen_address());
  ChannelOptions options = NewChannelOptions();
  const auto without = NewChannel(options);
  options.retry_policy = RetryPolicy{.max_attempts = 1 << 30,
                                     .initial_backoff = absl::Milliseconds(1),
                                     .max_backoff = absl::Milliseconds(1),
                                     .codes = {absl::StatusCode::kResourceExhausted}};
  const auto with = NewChannel(options);
  ExpectEcho(with);
  EchoRequest request;
  request.set_hold(true);
  std::thread holder([&] { EXPECT_TRUE(Echo::Stub(without).Echo(request).ok()); });
  ASSERT_TRUE(service_.held().WaitFor(1));

  EXPECT_EQ(Echo::Stub(without).Echo(EchoRequest()).status().code(), absl::StatusCode::kResourceExhausted);
  ClientContext too_early;
  too_early.set_timeout(absl::Milliseconds(30));
  EchoReply reply;
  EXPECT_EQ(Echo::Stub(with).Echo(&too_early, EchoRequest(), &reply).code(), absl::StatusCode::kDeadlineExceeded);

  EchoRequest observe;
  observe.set_observe(true);
  ClientContext patient;
  patient.set_timeout(kHangGuard);
  patient.AddMetadata("key", "value");
  EchoReply observed;
  absl::Status status;
  Event done;
  Echo::Stub(with).async().Echo(&patient, &observe, &observed, [&](absl::Status end) {
    status = std::move(end);
    done.Set();
  });
  // These go behind it on the same way: when they have been refused, it has been as well.
  for (int i = 0; i < 20; ++i) {
    ClientContext impatient;
    impatient.set_retry_policy(std::nullopt);
    EXPECT_EQ(Echo::Stub(with).Echo(&impatient, EchoRequest(), &reply).code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_FALSE(done.IsSet());
  service_.Release();
  EXPECT_TRUE(done.Wait());
  EXPECT_TRUE(status.ok()) << status;
  const auto& metadata = observed.observed().client_metadata();
  ASSERT_EQ(metadata.size(), 2);
  EXPECT_EQ(metadata[0].key(), "key");
  EXPECT_EQ(metadata[1].key(), "grpc-previous-rpc-attempts");
  EXPECT_GE(std::stoi(metadata[1].value()), 1);
  holder.join();
  EXPECT_EQ(service_.started().value(), 3);
}

TEST_P(ConformanceTest, RetryPolicyWaitsForAServer) {
  StartServer();
  const std::string address = server_address();
  server_ = nullptr;
  ChannelOptions options = NewChannelOptions();
  options.retry_policy = RetryPolicy{.max_attempts = 3, .codes = {absl::StatusCode::kUnavailable}};
  options.retry_policy->initial_backoff = options.retry_policy->max_backoff = absl::Milliseconds(1);
  const auto channel = Channel::Create(address, options, GetParam().transports());
  EXPECT_EQ(Echo::Stub(channel).Echo(EchoRequest()).status().code(), absl::StatusCode::kUnavailable);

  std::thread caller([&] {
    ClientContext context;
    RetryPolicy patient = *options.retry_policy;
    patient.max_attempts = 1 << 30;
    context.set_retry_policy(patient);
    EchoReply reply;
    const absl::Status status = Echo::Stub(channel).Echo(&context, EchoRequest(), &reply);
    EXPECT_TRUE(status.ok()) << status;
  });
  StartServer(NewServerBuilder(), address);
  caller.join();
  EXPECT_EQ(service_.started().value(), 1);
}

TEST_P(ConformanceTest, RetryNeverWhatAHandlerHasAnswered) {
  StartServer();
  ChannelOptions options = NewChannelOptions();
  options.retry_policy = RetryPolicy{.max_attempts = 5, .initial_backoff = absl::Milliseconds(1)};
  const absl::StatusCode codes[] = {absl::StatusCode::kUnavailable, absl::StatusCode::kResourceExhausted,
                                    absl::StatusCode::kInternal};
  options.retry_policy->codes.assign(std::begin(codes), std::end(codes));
  const auto channel = NewChannel(options);
  int calls = 0;
  for (const absl::StatusCode code : codes) {
    EchoRequest request;
    *request.mutable_status() = ToProto(absl::Status(code, "the handler says so"));
    EXPECT_EQ(Echo::Stub(channel).Echo(request).status(), absl::Status(code, "the handler says so"));
    EXPECT_EQ(service_.started().value(), ++calls);
  }
}

}  // namespace
}  // namespace shmrpc::conformance
