// Each of the library's system calls is refused for the life of a process: to a server, and to a client. It works all
// the same, or says what does not; it neither loops nor hangs, and ends when it is told to.

#include <string.h>
#include <time.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "child_process.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gtest/gtest.h"
#include "refused_calls.h"
#include "shmrpc/mutex.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"
#include "tests/sanitizers.h"

// The sanitizers make system calls of their own.
#if !SHMRPC_TSAN && !SHMRPC_ASAN

namespace shmrpc::conformance {
namespace {

constexpr int kErrors[] = {EPERM, ENOSYS};
constexpr int kAtATime = 6;
constexpr absl::Duration kIdle = absl::Milliseconds(200);

// The CPU time of a process so far.
absl::Duration CpuTime(pid_t pid) {
  clockid_t clock;
  timespec time = {};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return absl::ZeroDuration();
  return absl::DurationFromTimespec(time);
}

// Runs `body` for every call and error, some at a time. It returns what is wrong, or nothing.
template <typename Body>
void ForEachRefusal(const Body& body) {
  std::vector<std::pair<SystemCall, int>> cases;
  for (const SystemCall& call : kSystemCalls) {
    for (const int error : kErrors) cases.emplace_back(call, error);
  }
  std::atomic<size_t> next{0};
  Mutex mutex;
  std::vector<std::string> wrong;
  std::vector<std::thread> threads;
  for (int i = 0; i < kAtATime; ++i) {
    threads.emplace_back([&] {
      for (size_t mine; (mine = next.fetch_add(1)) < cases.size();) {
        const auto& [call, error] = cases[mine];
        const std::string fault = body(call, error);
        if (fault.empty()) continue;
        MutexLock lock(&mutex);
        wrong.push_back(absl::StrCat(call.name, " refused with ", strerrorname_np(error), ": ", fault));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& each : wrong) ADD_FAILURE() << each;
}

std::string Number(int number) { return absl::StrCat(number); }

// Ends a process that is to end by itself.
std::string End(ChildProcess& process) {
  const int status = process.Stop();
  return status == 0 ? "" : absl::StrCat("it ended with the status ", status);
}

TEST(RefusedCallTest, AServerServesOrSaysWhyNot) {
  ForEachRefusal([](const SystemCall& call, int error) -> std::string {
    ChildProcess server({SHMRPC_SURROUNDINGS_PEER, "refused-server", Number(static_cast<int>(call.number)), Number(error)});
    const absl::StatusOr<std::string> line = server.ReadLine();
    if (!line.ok()) return absl::StrCat("the start: ", line.status().ToString());
    if (absl::StartsWith(*line, "not started: ")) return line->size() > 20 ? End(server) : "no reason";
    if (!absl::StartsWith(*line, "127.0.0.1:")) return *line;
    ChannelOptions options;
    options.connect_timeout = absl::Seconds(5);
    Echo::Stub stub(Channel::Create(*line, options));
    EchoRequest request;
    request.set_payload("hello");
    const absl::StatusOr<EchoReply> reply = stub.Echo(request);
    const absl::Duration before = CpuTime(server.pid());
    absl::SleepFor(kIdle);
    const absl::Duration used = CpuTime(server.pid()) - before;
    if (used > kIdle / 2) return absl::StrCat("it used the CPU for ", absl::FormatDuration(used), " while idle");
    server.Write("say what you have logged\n");
    const absl::StatusOr<std::string> logged = server.ReadLine();
    if (!logged.ok()) return absl::StrCat("its log: ", logged.status().ToString());
    if (!reply.ok() && *logged == "logged 0") return absl::StrCat("without a word: ", reply.status().ToString());
    return End(server);
  });
}

TEST(RefusedCallTest, AClientGetsThroughOrIsToldWhyNot) {
  EchoService echo;
  const auto server = ServerBuilder().Listen("127.0.0.1:0").Register(&echo).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = (*server)->addresses().front().ToString();
  ForEachRefusal([&address](const SystemCall& call, int error) -> std::string {
    ChildProcess client(
        {SHMRPC_SURROUNDINGS_PEER, "refused-client", Number(static_cast<int>(call.number)), Number(error), address});
    for (;;) {
      const absl::StatusOr<std::string> line = client.ReadLine();
      if (!line.ok()) return absl::StrCat("what became of its calls: ", line.status().ToString());
      if (*line == "end") break;
      if (absl::StrContains(*line, "DEADLINE_EXCEEDED")) return *line;
    }
    const absl::Duration before = CpuTime(client.pid());
    absl::SleepFor(kIdle);
    const absl::Duration used = CpuTime(client.pid()) - before;
    if (used > kIdle / 2) return absl::StrCat("it used the CPU for ", absl::FormatDuration(used), " while idle");
    return End(client);
  });
}

// EINTR cannot be had from a filter, which would give it again and again; signals with a handler bring it about
// wherever it is legal.
TEST(RefusedCallTest, CallsThatAreInterruptedAllTheTimeGoOn) {
  ChildProcess peer({SHMRPC_SURROUNDINGS_PEER, "interrupted"});
  const absl::StatusOr<std::string> line = peer.ReadLine();
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(*line, "all OK");
  EXPECT_EQ(peer.Stop(), 0);
}

}  // namespace
}  // namespace shmrpc::conformance

#endif
