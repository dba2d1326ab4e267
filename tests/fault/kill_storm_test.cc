// Many clients, and many servers, that are killed at random moments, one after the other and several at once. Whoever
// is left goes on, and in the end holds nothing that it did not hold before. The seed is printed; SHMRPC_TEST_SEED sets
// it.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "child_process.h"
#include "conformance.shmrpc.pb.h"
#include "gtest/gtest.h"
#include "kill_addresses.h"
#include "kill_figures.h"
#include "kill_services.h"
#include "shmrpc/shmrpc.h"
#include "stream_services.h"
#include "sync.h"

namespace shmrpc::conformance {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHMRPC_SANITIZED 1
constexpr int kKilledClients = 100;
constexpr int kKilledServers = 10;
#elif SHMRPC_LONG_TESTS
constexpr int kKilledClients = 10'000;
constexpr int kKilledServers = 500;
#else
constexpr int kKilledClients = 300;
constexpr int kKilledServers = 40;
#endif

// What the memory of a server may grow by, however many clients are killed: the allocator keeps what all of those used
// that were there at the same time. A connection that was not let go would add 10 KiB and, once it was used for a large
// message, half a MiB.
constexpr int64_t kMostGrowthKib = 48 * 1024;

uint64_t Seed() {
  const char* const text = getenv("SHMRPC_TEST_SEED");
  uint64_t seed = std::random_device()();
  if (text != nullptr && !absl::SimpleAtoi(text, &seed)) ADD_FAILURE() << "SHMRPC_TEST_SEED=" << text;
  std::cout << "SHMRPC_TEST_SEED=" << seed << std::endl;
  testing::Test::RecordProperty("seed", std::to_string(seed));
  return seed;
}

// Calls until it is told to stop; no call may fail.
class HonestClients {
 public:
  explicit HonestClients(const std::vector<Way>& ways) {
    for (const Way& way : ways) threads_.emplace_back([this, way] { Run(way); });
  }
  ~HonestClients() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

  const Counter& calls() const { return calls_; }

 private:
  void Run(const Way& way) {
    ChannelOptions options;
    options.transport = way.transport;
    Echo::Stub stub(Channel::Create(way.address, options));
    for (size_t size = 8; !stop_; size = size * 3 % 200'003) {
      EchoRequest request;
      request.set_payload(std::string(PayloadOf(size)));
      const absl::StatusOr<EchoReply> reply = stub.Echo(request);
      if (!reply.ok() || reply->payload() != request.payload()) {
        ADD_FAILURE() << "an honest client's call failed: " << reply.status();
        return;
      }
      calls_.Increment();
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  std::atomic<bool> stop_{false};
  Counter calls_;
  std::vector<std::thread> threads_;
};

TEST(KillStormTest, ClientsKilledAtRandomMomentsLeaveNothingWithTheServer) {
  const KillAddresses addresses;
  std::mt19937_64 random(Seed());
  WholeEcho echo;
  StreamCounters counters;
  const auto streams = MakeStreamService(ServerStyle::kCoroutine, &counters);
  const auto server = ServerBuilder()
                          .Listen(addresses.tcp())
                          .Listen(addresses.unix_socket())
                          .Register(&echo)
                          .Register(streams.get())
                          .Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const std::vector<Way> ways = addresses.Ways();
  const auto kill_clients = [&](int count) {
    // Of three clients two are over shared memory.
    std::vector<std::unique_ptr<ChildProcess>> storms;
    const std::vector<int> shares = {count / 3, count / 6, count / 6, count - count / 3 - 2 * (count / 6)};
    for (size_t i = 0; i < ways.size(); ++i) {
      storms.push_back(std::make_unique<ChildProcess>(std::vector<std::string>{
          SHMRPC_KILL_STORM_PEER, "clients", std::string(TransportPreferenceName(ways[i].transport)), ways[i].address,
          absl::StrCat(shares[i]), "3", absl::StrCat(random())}));
    }
    for (size_t i = 0; i < storms.size(); ++i) {
      const absl::StatusOr<std::string> line = storms[i]->ReadLine(absl::Minutes(15));
      EXPECT_EQ(line.ok() ? *line : line.status().ToString(), absl::StrCat("killed ", shares[i]));
      EXPECT_EQ(storms[i]->Wait(), 0);
    }
  };
  // With the first ones the process gets things that it keeps.
  {
    HonestClients honest(ways);
    kill_clients(60);
    EXPECT_TRUE(honest.calls().WaitFor(100));
  }
  const auto at_rest = [&] { return counters.ended.value() == counters.started.value(); };
  EXPECT_TRUE(Eventually([&] { return at_rest() && Holdings::Now().mappings == 0; }));
  const Holdings base = LeastHoldings();
  const int threads = CountThreads();
  const int64_t memory_kib = ResidentKib();

  {
    HonestClients honest(ways);
    kill_clients(kKilledClients);
    EXPECT_TRUE(honest.calls().WaitFor(honest.calls().value() + 100));  // they still get on
    std::cout << honest.calls().value() << " calls of honest clients meanwhile" << std::endl;
  }
  EXPECT_TRUE(Eventually(at_rest)) << "handlers of clients that have gone still run";
  EXPECT_TRUE(Eventually([&] { return Holdings::Now() == base; })) << Holdings::Now() << "; before " << base;
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads; })) << CountThreads() << ", " << threads << " before";
  EXPECT_EQ(echo.torn().value(), 0);
  EXPECT_GT(echo.calls().value(), kKilledClients);
  const int64_t growth_kib = ResidentKib() - memory_kib;
#if !SHMRPC_SANITIZED  // they keep freed memory for a while
  EXPECT_LT(growth_kib, kMostGrowthKib);
#endif
  RecordProperty("killed", kKilledClients);
  RecordProperty("memory_growth_kib", static_cast<int>(growth_kib));
  std::cout << kKilledClients << " clients killed; " << echo.calls().value() << " calls and "
            << counters.started.value() << " streams; " << base << ", before and after; " << memory_kib
            << " KiB of memory before, " << growth_kib << " KiB more after" << std::endl;
}

// Calls without pause. A call may be lost with its server, and no other may fail.
class LoyalClient {
 public:
  explicit LoyalClient(const Way& way) {
    ChannelOptions options;
    options.transport = way.transport;
    options.initial_backoff = absl::Milliseconds(1);
    options.max_backoff = absl::Milliseconds(20);
    channel_ = Channel::Create(way.address, options);
    thread_ = std::thread([this] { Run(); });
  }
  ~LoyalClient() {
    stop_ = true;
    thread_.join();
  }

  const Counter& answered() const { return answered_; }
  const Counter& lost() const { return lost_; }

 private:
  void Run() {
    Echo::Stub echo(channel_);
    Streams::Stub streams(channel_);
    std::minstd_rand random;
    while (!stop_) {
      const size_t size = 8 + random() % (random() % 4 == 0 ? 500'000 : 2'000);
      ClientContext context;
      context.set_timeout(kHangGuard);
      context.set_wait_for_ready(true);
      absl::Status status;
      if (random() % 4 == 0) {
        const auto chat = streams.Chat(&context);
        Item item;
        item.set_payload(std::string(PayloadOf(size)));
        Item received;
        for (int i = 0; i < 3 && chat->Write(item) && chat->Read(&received); ++i) {
          EXPECT_TRUE(IsPayload(received.payload()));
        }
        chat->WritesDone();
        status = chat->Finish();
      } else {
        EchoRequest request;
        request.set_payload(std::string(PayloadOf(size)));
        EchoReply reply;
        status = echo.Echo(&context, request, &reply);
        EXPECT_TRUE(!status.ok() || reply.payload() == request.payload());
      }
      if (status.ok()) {
        answered_.Increment();
      } else if (absl::IsUnavailable(status)) {
        lost_.Increment();
      } else {
        ADD_FAILURE() << "a call to a server that was killed ended with " << status;
        return;
      }
    }
  }

  std::shared_ptr<Channel> channel_;
  std::atomic<bool> stop_{false};
  Counter answered_;
  Counter lost_;
  std::thread thread_;
};

TEST(KillStormTest, ServersKilledAtRandomMomentsAreFoundAgainByTheirClients) {
  const KillAddresses addresses;
  std::mt19937_64 random(Seed());
  Holdings base;
  int threads = 0;
  for (const bool warm_up : {true, false}) {
    std::vector<std::unique_ptr<LoyalClient>> clients;
    for (const Way& way : addresses.Ways()) clients.push_back(std::make_unique<LoyalClient>(way));
    const auto start = [&] {
      auto server = std::make_unique<ChildProcess>(
          std::vector<std::string>{SHMRPC_KILL_STORM_PEER, "server", addresses.tcp(), addresses.unix_socket()});
      const absl::StatusOr<std::string> line = server->ReadLine();
      EXPECT_EQ(line.ok() ? *line : line.status().ToString(), "ready");
      return server;
    };
    const auto expect_progress = [&] {
      for (const auto& client : clients) {
        // One may have been answered by the server before, and be counted only now.
        EXPECT_TRUE(client->answered().WaitFor(client->answered().value() + 2));
      }
    };
    for (int i = 0; i < (warm_up ? 3 : kKilledServers) && !HasFailure(); ++i) {
      const auto server = start();
      expect_progress();
      absl::SleepFor(absl::Microseconds(random() % 10'000));
      server->Kill();
    }
    const auto last = start();
    expect_progress();
    int answered = 0;
    int lost = 0;
    for (const auto& client : clients) {
      answered += client->answered().value();
      lost += client->lost().value();
    }
    clients.clear();
    if (warm_up) {
      EXPECT_TRUE(Eventually([&] { return Holdings::Now().mappings == 0; }));
      last->Kill();
      last->Wait();
      base = LeastHoldings();
      threads = CountThreads();
      continue;
    }
    last->Kill();
    last->Wait();
    EXPECT_TRUE(Eventually([&] { return Holdings::Now() == base; })) << Holdings::Now() << "; before " << base;
    EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads; }))
        << CountThreads() << ", " << threads << " before";
    EXPECT_GT(lost, 0) << "no kill hit a call";
    RecordProperty("killed", kKilledServers);
    std::cout << kKilledServers << " servers killed; " << answered << " calls answered, " << lost << " lost; " << base
              << ", before and after" << std::endl;
  }
}

}  // namespace
}  // namespace shmrpc::conformance
