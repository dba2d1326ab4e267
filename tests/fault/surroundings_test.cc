// What surrounds a process: signals, scheduling, shortages at the first use, fork(), its end.

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "child_process.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "process_state.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"
#include "tests/sanitizers.h"

namespace shmrpc::conformance {
namespace {

using ::testing::AnyOf;
using ::testing::StartsWith;

class SurroundingsTest : public testing::Test {
 protected:
  SurroundingsTest() {
    auto started = ServerBuilder().Listen("127.0.0.1:0").Register(&echo_).Start();
    EXPECT_TRUE(started.ok()) << started.status();
    if (!started.ok()) return;
    server_ = *std::move(started);
    address_ = server_->addresses().front().ToString();
  }

  // The first line of what the program says, which then ends as it should.
  static std::string Said(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {SHMRPC_SURROUNDINGS_PEER};
    all.insert(all.end(), arguments.begin(), arguments.end());
    ChildProcess peer(all);
    const absl::StatusOr<std::string> line = peer.ReadLine();
    EXPECT_TRUE(line.ok()) << line.status();
    EXPECT_EQ(peer.Stop(), 0);
    return line.value_or("");
  }

  EchoService echo_;
  std::unique_ptr<Server> server_;
  std::string address_;
};

// ---- Signals and scheduling.

TEST_F(SurroundingsTest, ThreadsOfTheLibraryAreAllAlikeWhoeverStartedThem) {
  ChildProcess peer({SHMRPC_SURROUNDINGS_PEER, "threads"});
  ASSERT_EQ(peer.ReadLine().value_or(""), "OK");
  uint64_t expected = ~uint64_t{0};
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF, SIGKILL, SIGSTOP, 32, 33}) {
    expected &= ~(uint64_t{1} << (own - 1));
  }
  cpu_set_t cpus;
  ASSERT_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
  const std::string own_nice = absl::StrCat(getpriority(PRIO_PROCESS, 0));
  int threads = 0;
  for (;; ++threads) {
    const absl::StatusOr<std::string> line = peer.ReadLine();
    ASSERT_TRUE(line.ok()) << line.status();
    if (*line == "end") break;
    const std::vector<std::string> fields = absl::StrSplit(*line, ' ');
    ASSERT_EQ(fields.size(), 5u) << *line;
    uint64_t blocked = 0;
    EXPECT_TRUE(absl::SimpleHexAtoi(fields[1], &blocked)) << *line;
    EXPECT_EQ(blocked, expected) << *line;
    EXPECT_EQ(fields[2], absl::StrCat(sched_getscheduler(0))) << *line;
    EXPECT_EQ(fields[3], own_nice) << *line;
    if (fields[4].find(',') == std::string::npos) {
      uint64_t allowed = 0;
      EXPECT_TRUE(absl::SimpleHexAtoi(fields[4], &allowed)) << *line;
      for (int cpu = 0; cpu < 32; ++cpu) EXPECT_EQ((allowed >> cpu & 1) != 0, CPU_ISSET(cpu, &cpus)) << *line;
    }
  }
  EXPECT_GE(threads, 8) << "the handlers', the client's, the timers'";
  EXPECT_EQ(peer.Stop(), 0);
}

#if !SHMRPC_TSAN && !SHMRPC_ASAN  // which have handlers of their own
TEST_F(SurroundingsTest, TheProgramsHandlersSeeWhatThreadsOfTheLibraryRaise) {
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF}) {
    for (const char* where : {"handler", "callback"}) {
      EXPECT_EQ(Said({"signal", absl::StrCat(number), where}), "handled") << "signal " << number << " in a " << where;
    }
  }
}
#endif

// ThreadSanitizer does not support the use of locks, or new threads, in the child of a process with threads; under
// AddressSanitizer other threads may hold a lock of its allocator.
#if !SHMRPC_TSAN && !SHMRPC_ASAN
TEST_F(SurroundingsTest, AChildThatAHandlerOrACallbackForksHasTheProgramsSignalMask) {
  for (const char* where : {"handler", "callback"}) EXPECT_EQ(Said({"forked-child", where}), "the program's mask");
}

// ---- fork().

TEST_F(SurroundingsTest, AChildThatClosesAllItInheritedHasItsOwnDescriptorsToItself) {
  EXPECT_EQ(Said({"closing-child", address_}), "status 0");
}

TEST_F(SurroundingsTest, AParentCancelsWhileItsChildrenCall) {
  EXPECT_EQ(Said({"cancelling-parent", address_}), "0");
}

TEST_F(SurroundingsTest, ChildrenThatAreForkedAmidFirstUsesWork) {
  EXPECT_EQ(Said({"fork-amid-first-uses", address_}), "0");
}

TEST_F(SurroundingsTest, AHandlersChildUsesTheLibrary) {
  EXPECT_EQ(Said({"child-of-a-handler", address_}), "status 0");
}

TEST_F(SurroundingsTest, AServerThatADaemonHasLeftBehindIsNotWaitedFor) { EXPECT_EQ(Said({"daemon"}), "status 0"); }
#endif

// ---- Shortages at the first use.

TEST_F(SurroundingsTest, AFirstUseWithoutDescriptorsIsAnErrorThenAndWorksLater) {
  for (int left = 0; left <= 8; ++left) {
    EXPECT_THAT(Said({"few-descriptors", absl::StrCat(left), address_}),
                AnyOf("OK, then recovers", "an error, then recovers"))
        << left << " descriptors";
  }
}

#if !SHMRPC_TSAN && !SHMRPC_ASAN
TEST_F(SurroundingsTest, AFirstUseWithoutThreadsIsAnErrorThenAndWorksLater) {
  for (int first = 1; first <= 6; ++first) {
    for (const int count : {1, 3, 1000}) {
      EXPECT_THAT(Said({"few-threads-client", absl::StrCat(first), absl::StrCat(count), address_}),
                  AnyOf("OK, then recovers", "an error, then recovers"))
          << "thread " << first << " and " << count << " in all";
    }
  }
}

TEST_F(SurroundingsTest, AServerWithTooFewThreadsServesOrDoesNotStart) {
  bool refused = false, served = false;
  for (int first = 1; first <= 7; ++first) {
    for (const int count : {1, 2, 1000}) {
      ChildProcess peer({SHMRPC_SURROUNDINGS_PEER, "few-threads-server", absl::StrCat(first), absl::StrCat(count)});
      const absl::StatusOr<std::string> line = peer.ReadLine();
      ASSERT_TRUE(line.ok()) << line.status();
      if (absl::StartsWith(*line, "not started: ")) {
        refused = true;
        EXPECT_THAT(*line, StartsWith("not started: RESOURCE_EXHAUSTED")) << "it names the limit";
      } else {
        served = true;
        Echo::Stub stub(Channel::Create(*line));
        const absl::StatusOr<EchoReply> reply = stub.Echo(EchoRequest());
        EXPECT_TRUE(reply.ok()) << reply.status() << " without thread " << first << " and " << count << " in all";
      }
      EXPECT_EQ(peer.Stop(), 0);
    }
  }
  EXPECT_TRUE(refused);
  EXPECT_TRUE(served);
}
#endif

// ---- What it costs.

TEST_F(SurroundingsTest, ThreadsThatCallTakeNoDescriptorsEach) {
  constexpr int kThreads = SHMRPC_TSAN || SHMRPC_ASAN ? 50 : 300;
  int more = -1;
  EXPECT_TRUE(absl::SimpleAtoi(Said({"many-threads", absl::StrCat(kThreads)}), &more));
  EXPECT_LE(more, 2 * kThreadDescriptors);  // of both ends, which are in one process
}

#if !SHMRPC_TSAN && !SHMRPC_ASAN  // which keep books on memory in memory
TEST_F(SurroundingsTest, AChannelTakesLessThanAMebibyteOfAddressSpace) {
  ChildProcess peer({SHMRPC_SURROUNDINGS_PEER, "many-channels", "100", address_});
  EXPECT_EQ(peer.ReadLine().value_or(""), "0") << "calls failed";
  int kib = 0;
  EXPECT_TRUE(absl::SimpleAtoi(peer.ReadLine().value_or(""), &kib));
  EXPECT_LT(kib, 1024);
  EXPECT_EQ(peer.Stop(), 0);
}
#endif

// ---- The end.

TEST_F(SurroundingsTest, CallsFromDestructorsAtTheEndOfAThreadOrOfTheProgramWork) {
  for (const char* transport : {"shm", "tcp"}) {
    for (const auto& [when, calls] : {std::pair("static", 2), std::pair("thread", 7), std::pair("main thread", 2)}) {
      ChildProcess peer({SHMRPC_SURROUNDINGS_PEER, "at-the-end", when, address_, transport});
      for (int i = 0; i < calls; ++i) EXPECT_EQ(peer.ReadLine().value_or(""), "OK") << when << ", " << transport;
      EXPECT_EQ(peer.Stop(), 0);
    }
  }
}

TEST_F(SurroundingsTest, APlugInThatIsUnloadedStays) {
  ChildProcess host({SHMRPC_PLUG_IN_HOST, SHMRPC_PLUG_IN, address_});
  EXPECT_EQ(host.ReadLine().value_or(""), "stays");
  EXPECT_EQ(host.Stop(), 0);
}

}  // namespace
}  // namespace shmrpc::conformance
