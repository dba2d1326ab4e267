// A request that was published never runs twice, whatever fails, and however eager its client is to try again; one
// whose result the client has got has run once.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "byte_proxy.h"
#include "case_selection.h"
#include "fixture.h"
#include "server_process.h"

namespace shmrpc::conformance {
namespace {

// A request is told from all others by the first bytes of its payload.
using Id = uint64_t;

Id IdOf(const std::string& payload) {
  Id id = 0;
  std::memcpy(&id, payload.data(), std::min(sizeof(id), payload.size()));
  return id;
}

// Tries again whatever the library takes for safe, for every code that a lost connection may bring.
RetryPolicy EagerPolicy() {
  RetryPolicy policy;
  policy.max_attempts = 1 << 30;
  policy.initial_backoff = policy.max_backoff = absl::Milliseconds(1);
  policy.codes = {absl::StatusCode::kUnavailable, absl::StatusCode::kInternal, absl::StatusCode::kUnknown,
                  absl::StatusCode::kCancelled, absl::StatusCode::kResourceExhausted};
  return policy;
}

// Makes calls on several threads, of several styles and sizes, until it is destroyed; notes how they end.
class EagerCallers {
 public:
  explicit EagerCallers(const std::shared_ptr<Channel>& channel) : channel_(channel) {
    for (uint32_t i = 0; i < 4; ++i) threads_.emplace_back([this, i] { Run(i); });
  }
  ~EagerCallers() { Stop(); }

  // Waits until so many further calls have succeeded.
  bool WaitForSuccesses(int count) const { return successes_.WaitFor(successes_.value() + count); }

  void Stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  std::map<Id, absl::Status> ends() const {
    MutexLock lock(&mutex_);
    return ends_;
  }

 private:
  void Run(uint32_t thread) {
    std::mt19937 random(thread);
    for (uint32_t i = 1; !stop_; ++i) {
      const Id id = (Id{thread} << 32) | i;
      std::string payload = RandomBytes(random() % 8 == 0 ? 200'000 : 8 + random() % 300, i);
      std::memcpy(payload.data(), &id, sizeof(id));
      EchoRequest request;
      request.set_payload(std::move(payload));
      ClientContext context;
      context.set_wait_for_ready(true);
      context.set_timeout(kHangGuard);
      EchoReply reply;
      const absl::Status status =
          thread % 2 == 0 ? Wait(&context, request, &reply) : Callback(&context, request, &reply);
      EXPECT_FALSE(absl::IsDeadlineExceeded(status)) << status;
      if (status.ok()) {
        EXPECT_TRUE(reply.payload() == request.payload());
        successes_.Increment();
      }
      MutexLock lock(&mutex_);
      ends_[id] = status;
    }
  }
  absl::Status Wait(ClientContext* context, const EchoRequest& request, EchoReply* reply) {
    return Echo::Stub(channel_).Echo(context, request, reply);
  }
  absl::Status Callback(ClientContext* context, const EchoRequest& request, EchoReply* reply) {
    absl::Status result;
    Event done;
    Echo::Stub(channel_).async().Echo(context, &request, reply, [&](absl::Status status) {
      result = std::move(status);
      done.Set();
    });
    EXPECT_TRUE(done.Wait(2 * kHangGuard));
    return result;
  }

  const std::shared_ptr<Channel> channel_;
  std::atomic<bool> stop_{false};
  Counter successes_;
  mutable Mutex mutex_;
  std::map<Id, absl::Status> ends_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

// `runs`: how often the handler of each request has begun.
void ExpectAtMostOnce(const std::map<Id, absl::Status>& ends, const std::map<Id, int>& runs) {
  int lost = 0;
  for (const auto& [id, count] : runs) {
    EXPECT_EQ(count, 1) << "request " << id;
    EXPECT_EQ(ends.count(id), 1u) << "nobody has sent request " << id;
  }
  for (const auto& [id, status] : ends) {
    if (status.ok()) {
      EXPECT_EQ(runs.count(id), 1u) << "request " << id << " succeeded without a handler";
    } else {
      ++lost;
    }
  }
  testing::Test::RecordProperty("calls", static_cast<int>(ends.size()));
  testing::Test::RecordProperty("lost", lost);
}

class AtMostOnceTest : public ConformanceTest {
 protected:
  ChannelOptions EagerOptions() const {
    ChannelOptions options = NewChannelOptions();
    options.initial_backoff = options.max_backoff = absl::Milliseconds(5);
    options.retry_policy = EagerPolicy();
    return options;
  }
};

TEST_P(AtMostOnceTest, WhenTheServerIsKilledAtRandomMoments) {
  // What a handler has written there stays, whatever becomes of its process.
  const std::string record = directory() + "/record";
  const auto start = [&](const std::string& address) {
    return std::make_unique<ServerProcess>(SHMRPC_FAULT_PEER,
                                           std::vector<std::string>{"recorder", GetParam().name, address, record});
  };
  std::unique_ptr<ServerProcess> server = start(listen_address());
  const std::string address = server->address();
  EagerCallers callers(Channel::Create(address, EagerOptions(), GetParam().transports()));
  std::mt19937 random(1);
#if SHMRPC_LONG_TESTS
  const int rounds = Scaled(300);
#else
  const int rounds = Scaled(8);
#endif
  for (int round = 0; round < rounds && !HasFailure(); ++round) {
    EXPECT_TRUE(callers.WaitForSuccesses(1 + random() % 100));
    absl::SleepFor(absl::Microseconds(random() % 3000));  // any moment will do
    server = nullptr;                                     // kill -9
    server = start(address);
  }
  EXPECT_TRUE(callers.WaitForSuccesses(20));
  callers.Stop();
  server = nullptr;

  std::ifstream file(record, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  ASSERT_EQ(bytes.size() % sizeof(Id), 0u);
  std::map<Id, int> runs;
  for (size_t i = 0; i < bytes.size(); i += sizeof(Id)) ++runs[IdOf(bytes.substr(i, sizeof(Id)))];
  ExpectAtMostOnce(callers.ends(), runs);
}

INSTANTIATE_TEST_SUITE_P(Transport, AtMostOnceTest, testing::ValuesIn(TransportCasesAcrossProcesses()), CaseName);

// Counts how often each request runs.
class CountingEcho final : public Echo::Service {
 public:
  absl::Status Echo(ServerContext*, const EchoRequest* request, EchoReply* reply) override {
    {
      MutexLock lock(&mutex_);
      ++runs_[IdOf(request->payload())];
    }
    reply->set_payload(request->payload());
    return absl::OkStatus();
  }
  std::map<Id, int> runs() const {
    MutexLock lock(&mutex_);
    return runs_;
  }

 private:
  mutable Mutex mutex_;
  std::map<Id, int> runs_ ABSL_GUARDED_BY(mutex_);
};

class AtMostOnceOverAWireTest : public AtMostOnceTest {};

TEST_P(AtMostOnceOverAWireTest, WhenConnectionsBreakAtRandomBytes) {
  CountingEcho counting;
  absl::StatusOr<std::unique_ptr<Server>> server =
      ServerBuilder(GetParam().transports()).Register(&counting).Listen(NewListenAddress()).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  std::mt19937 random(1);  // used by the proxy's threads, one at a time
  Mutex mutex;
  ByteProxy proxy((*server)->addresses().front().ToString(), [&] {
    MutexLock lock(&mutex);
    ByteProxy::Rules rules;
    (random() % 2 == 0 ? rules.client_bytes : rules.server_bytes) = 300 + random() % 400'000;
    rules.end = random() % 2 == 0 ? ByteProxy::End::kReset : ByteProxy::End::kClose;
    return rules;
  });
  EagerCallers callers(Channel::Create(proxy.address(), EagerOptions(), GetParam().transports()));
  const int connections = Scaled(100);
  EXPECT_TRUE(Eventually([&] { return proxy.taken() >= connections; }, 2 * kHangGuard));
  EXPECT_TRUE(callers.WaitForSuccesses(1));
  callers.Stop();
  *server = nullptr;
  ExpectAtMostOnce(callers.ends(), counting.runs());
}

INSTANTIATE_TEST_SUITE_P(Transport, AtMostOnceOverAWireTest,
                         testing::ValuesIn(CasesNamed({"tcp", "unix", "grpc", "grpcunix", "grpconeport"})), CaseName);

}  // namespace
}  // namespace shmrpc::conformance
