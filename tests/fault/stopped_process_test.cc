// A process that is stopped (SIGSTOP) neither answers nor hangs up. The other side bounds what it keeps for it, goes on
// with everybody else, and comes back at its deadlines.

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "case_selection.h"
#include "child_process.h"
#include "server_process.h"
#include "stream_fixture.h"

namespace shmrpc::conformance {
namespace {

constexpr size_t kMiB = 1 << 20;

// Returns when it is stopped.
void Stop(pid_t pid) {
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
  ASSERT_TRUE(WIFSTOPPED(status));
}

class StoppedClientTest : public ConformanceStreamTest {};

TEST_P(StoppedClientTest, TheServersMemoryIsBoundedAndOthersAreServed) {
  constexpr int kStreams = 20;
  constexpr int kCalls = 4;
  StartStreams(ServerStyle::kSynchronous);
  const auto other = NewChannel();
  ExpectEcho(other, RandomBytes(kMiB, 1));
  const int64_t before = ResidentKiB();
  ChildProcess client(
      {SHMRPC_FAULT_PEER, "hoarder", GetParam().name, server_address(), absl::StrCat(kStreams), absl::StrCat(kCalls)});
  const absl::StatusOr<std::string> ready = client.ReadLine();
  ASSERT_TRUE(ready.ok()) << ready.status();
  ASSERT_TRUE(counters_->started.WaitFor(kStreams));
  ASSERT_TRUE(service_.held().WaitFor(kCalls));
  Stop(client.pid());

  // Now the replies are due as well, and nobody takes anything. Meanwhile others work as ever.
  service_.Release();
  int64_t most = 0;
  int sent = -1;
  for (int still = 0; still < 5 && most < 1024 * 1024;) {
    for (int i = 0; i < 20; ++i) ExpectEcho(other, RandomBytes(i * 1000, i));
    ExpectEcho(NewChannel(), RandomBytes(kMiB, 2));
    absl::SleepFor(absl::Milliseconds(20));
    most = std::max(most, ResidentKiB() - before);
    still = counters_->items_sent.value() == sent ? still + 1 : 0;
    sent = counters_->items_sent.value();
  }
  // The windows of the streams, the replies, and the frames that a server holds back before it takes nothing more.
  const int64_t bound = 2 * (kStreams * FlowControlOptions().stream_bytes + kCalls * kMiB + 16 * kMiB) / 1024;
  RecordProperty("resident_kib", absl::StrCat(most));
  EXPECT_LT(most, UnderSanitizer() ? 10 * bound : bound);
  EXPECT_EQ(counters_->ended.value(), 0);

  // It goes on where it was.
  ASSERT_EQ(kill(client.pid(), SIGCONT), 0);
  EXPECT_EQ(client.Stop(), 0);
  EXPECT_TRUE(counters_->ended.WaitFor(kStreams));
}

INSTANTIATE_TEST_SUITE_P(Transport, StoppedClientTest, testing::ValuesIn(TransportCasesAcrossProcesses()), CaseName);

class StoppedServerTest : public ConformanceTest {
 protected:
  // A server that is stopped, and a channel to it.
  void StartAndStop() {
    server_process_ = std::make_unique<ServerProcess>(
        SHMRPC_FAULT_PEER, std::vector<std::string>{"server", GetParam().name, listen_address()});
    channel_ = NewChannelTo(server_process_->address());
    ExpectEcho(channel_);
    Stop(server_process_->process().pid());
  }

  void ExpectThatItGoesOn() {
    ASSERT_EQ(kill(server_process_->process().pid(), SIGCONT), 0);
    ExpectEchoWhenReady(channel_);
    ExpectEcho(channel_, RandomBytes(3 * kMiB, 1));
    channel_ = nullptr;
    EXPECT_EQ(server_process_->process().Stop(), 0);
  }

  std::unique_ptr<ServerProcess> server_process_;
  std::shared_ptr<Channel> channel_;
};

TEST_P(StoppedServerTest, CallsThatFillTheWayEndAtTheirDeadlines) {
  StartAndStop();
  // More than any ring or socket takes, from callers that wait and from one that does not. Who begins a call when there
  // is no room waits for it, up to the deadline.
  const absl::Time deadline = absl::Now() + absl::Seconds(1);
  Echo::Stub stub(channel_);
  constexpr int kAsync = 1000;
  EchoRequest request;
  request.set_payload(RandomBytes(16 * 1024, 1));
  std::vector<ClientContext> contexts(kAsync);
  std::vector<EchoReply> replies(kAsync);
  std::atomic<int> expired{0};
  Counter ended;
  for (int i = 0; i < kAsync; ++i) {
    contexts[i].set_deadline(deadline);
    stub.async().Echo(&contexts[i], &request, &replies[i], [&](absl::Status status) {
      if (absl::IsDeadlineExceeded(status)) ++expired;
      ended.Increment();
    });
  }
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      ClientContext context;
      context.set_deadline(deadline);
      EchoReply reply;
      const absl::Status status = stub.Echo(&context, request, &reply);
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_TRUE(ended.WaitFor(kAsync));
  EXPECT_EQ(expired, kAsync);
  ExpectThatItGoesOn();
  EXPECT_EQ(ended.value(), kAsync);
}

TEST_P(StoppedServerTest, AStreamThatFillsTheWayEndsAtItsDeadline) {
  StartAndStop();
  Streams::Stub stub(channel_);
  {
    ClientContext context;
    context.set_timeout(absl::Milliseconds(500));
    SumReply reply;
    const auto writer = stub.Sum(&context, &reply);
    int written = 0;
    while (writer->Write(MakeItem(written, 100'000))) ++written;
    const absl::Status status = writer->Finish();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_LT(written * 100'000.0, 4.0 * kMiB);  // no more than the windows let through
  }
  {
    ClientContext context;
    context.set_timeout(absl::Milliseconds(100));
    const auto chat = stub.Chat(&context);
    Item item;
    (void)chat->Write(MakeItem(1));
    EXPECT_FALSE(chat->Read(&item));
    const absl::Status status = chat->Finish();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  }
  ExpectThatItGoesOn();
}

INSTANTIATE_TEST_SUITE_P(Transport, StoppedServerTest, testing::ValuesIn(TransportCasesAcrossProcesses()), CaseName);

}  // namespace
}  // namespace shmrpc::conformance
