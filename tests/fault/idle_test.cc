// Processes that have nothing to do sleep: an idle server and an idle client use no CPU.

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "child_process.h"
#include "gtest/gtest.h"
#include "tests/tsan.h"
#include "transport_case.h"

namespace shmrpc::conformance {
namespace {

// CPU time that `pid` has used, in clock ticks, of which there are 100 in a second.
int64_t CpuTicks(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  // After the name in parentheses, which may hold anything, the fields from the third on; utime and stime are the 14th
  // and 15th.
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(stat.rfind(')') + 1), ' ', absl::SkipWhitespace());
  int64_t user = -1;
  int64_t system = -1;
  if (fields.size() < 13 || !absl::SimpleAtoi(fields[11], &user) || !absl::SimpleAtoi(fields[12], &system)) {
    ADD_FAILURE() << "cannot read the CPU time of process " << pid << " in: " << stat;
  }
  return user + system;
}

// How long to look; SHMRPC_TEST_IDLE_SECONDS asks for longer.
absl::Duration ObservationTime() {
  const char* const text = getenv("SHMRPC_TEST_IDLE_SECONDS");
  int seconds = 3;
  if (text != nullptr && !absl::SimpleAtoi(text, &seconds)) ADD_FAILURE() << "SHMRPC_TEST_IDLE_SECONDS=" << text;
  return absl::Seconds(seconds);
}

TEST(IdleTest, ServersAndClientsWithNothingToDoUseNoCpu) {
  // All transports at once: the time is spent waiting.
  struct Pair {
    std::string name;
    bool has_library_threads = false;
    std::unique_ptr<ChildProcess> server;
    std::unique_ptr<ChildProcess> client;
    int64_t ticks_before = 0;

    int64_t Ticks() const { return CpuTicks(server->pid()) + CpuTicks(client->pid()); }
  };
  std::vector<Pair> pairs;
  char directory[] = "/tmp/shmrpc-idle-XXXXXX";
  ASSERT_NE(mkdtemp(directory), nullptr);
  for (const TransportCase& transport_case : TransportCasesAcrossProcesses()) {
    Pair pair;
    pair.name = transport_case.name;
    pair.has_library_threads = transport_case.library_threads > 0;
    const std::string listen = absl::StrReplaceAll(
        transport_case.listen, {{"{directory}", directory}, {"{unique}", absl::StrCat("idle-", pair.name)}});
    pair.server =
        std::make_unique<ChildProcess>(std::vector<std::string>{SHMRPC_CONFORMANCE_PEER, "server", pair.name, listen});
    const absl::StatusOr<std::string> address = pair.server->ReadLine();
    ASSERT_TRUE(address.ok()) << pair.name << ": " << address.status();
    pair.client = std::make_unique<ChildProcess>(std::vector<std::string>{
        SHMRPC_CONFORMANCE_PEER, "client", pair.name, std::string(absl::StripPrefix(*address, "listening on ")), "0"});
    const absl::StatusOr<std::string> ready = pair.client->ReadLine();
    ASSERT_TRUE(ready.ok()) << pair.name << ": " << ready.status();
    pairs.push_back(std::move(pair));
  }

  absl::SleepFor(absl::Seconds(1));  // the end of what goes on after a call
  for (Pair& pair : pairs) pair.ticks_before = pair.Ticks();
  absl::SleepFor(ObservationTime());
  for (Pair& pair : pairs) {
    // One tick may come from work of before that was still to be accounted for. gRPC's timers go on when nothing is
    // left to do, and ThreadSanitizer has a thread of its own in each process, which is not idle.
    const int64_t allowed = SHMRPC_TSAN ? 20 : pair.has_library_threads ? 5 : 1;
    EXPECT_LE(pair.Ticks() - pair.ticks_before, allowed) << "over " << pair.name;
  }

  for (Pair& pair : pairs) {
    EXPECT_EQ(pair.client->Stop(), 0) << pair.name;
    EXPECT_EQ(pair.server->Stop(), 0) << pair.name;
  }
  EXPECT_EQ(rmdir(directory), 0);
}

}  // namespace
}  // namespace shmrpc::conformance
