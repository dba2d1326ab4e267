// Client and server in two processes, of which one is killed.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "child_process.h"
#include "fixture.h"
#include "relay_service.h"
#include "server_process.h"

namespace shmrpc::conformance {
namespace {

using testing::IsSubsetOf;

// Files in the places that are shared by all processes of the host, which `pid` has open or mapped: they could stay
// behind after kill -9. Not those in or of `own_directory`, which the test chose, and not standard input, output and
// error, which are not the library's.
std::vector<std::string> SharedFilesOf(pid_t pid, const std::string& own_directory) {
  std::vector<std::string> files;
  const std::string process = absl::StrCat("/proc/", pid);
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fd")) {
    if (std::stoi(entry.path().filename()) <= STDERR_FILENO) continue;
    std::error_code closed_meanwhile;
    const std::string file = std::filesystem::read_symlink(entry.path(), closed_meanwhile);
    if (absl::StartsWith(file, own_directory)) continue;
    if (absl::StartsWith(file, "/dev/shm/") || absl::StartsWith(file, "/tmp/")) files.push_back(file);
  }
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (absl::StrContains(line, " /dev/shm/")) files.push_back(line);
  }
  return files;
}

TEST_P(ConformanceProcessTest, ProcessEchoAcrossProcesses) {
  ServerProcess server(GetParam().name, listen_address());
  const auto channel = NewChannelTo(server.address());
  for (const size_t size : {0, 1, 100, 5000, 70000, 3000000}) ExpectEcho(channel, RandomBytes(size, 1));
  EXPECT_EQ(channel->transport(), GetParam().expected);
  EXPECT_EQ(server.process().Stop(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory()));
}

TEST_P(ConformanceProcessTest, ProcessPeerIsTheOtherProcess) {
  if (!GetParam().kernel_credentials) return;
  ServerProcess server(GetParam().name, listen_address());
  Echo::Stub stub(NewChannelTo(server.address()));
  EchoRequest request;
  request.set_observe(true);
  ClientContext context;
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, request, &reply);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_TRUE(context.peer().credentials.has_value());
  EXPECT_EQ(context.peer().credentials->pid, server.process().pid());
  EXPECT_EQ(reply.observed().peer_pid(), getpid());
}

TEST_P(ConformanceProcessTest, ProcessNothingCanStayBehindInSharedPlaces) {
  // What whoever started this process has left open is not the library's.
  const std::vector<std::string> inherited = SharedFilesOf(getpid(), directory());
  ServerProcess server(GetParam().name, listen_address());
  const auto channel = NewChannelTo(server.address());
  ExpectEcho(channel, RandomBytes(3000000, 1));
  EXPECT_THAT(SharedFilesOf(server.process().pid(), directory()), IsSubsetOf(inherited));
  EXPECT_EQ(SharedFilesOf(getpid(), directory()), inherited);
}

TEST_P(ConformanceProcessTest, ProcessKilledServerEndsEveryCallInFlight) {
  ServerProcess server(GetParam().name, listen_address());
  const auto channel = NewChannelTo(server.address());
  ExpectEcho(channel);

  // Held ones, asynchronous and not, and others that come and go.
  Echo::Stub stub(channel);
  constexpr int kThreads = 4;
  constexpr int kAsync = 32;
  EchoRequest held;
  held.set_hold(true);
  std::vector<absl::Status> statuses(kThreads + kAsync);
  std::vector<std::thread> threads;
  Counter started;
  Counter ended;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      started.Increment();
      if (i % 2 == 0) {
        statuses[i] = stub.Echo(held).status();
      } else {
        while (statuses[i].ok()) statuses[i] = stub.Echo(EchoRequest()).status();
      }
      ended.Increment();
    });
  }
  std::vector<ClientContext> contexts(kAsync);
  std::vector<EchoReply> replies(kAsync);
  for (int i = 0; i < kAsync; ++i) {
    stub.async().Echo(&contexts[i], &held, &replies[i], [&, i](absl::Status status) {
      statuses[kThreads + i] = std::move(status);
      ended.Increment();
    });
  }
  ASSERT_TRUE(started.WaitFor(kThreads));
  for (int i = 0; i < 20; ++i) ExpectEcho(channel);
  EXPECT_EQ(ended.value(), 0);

  const absl::Time killed = absl::Now();
  server.process().Kill();
  EXPECT_TRUE(ended.WaitFor(kThreads + kAsync));
  const absl::Duration notice = absl::Now() - killed;
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_NE(status.message(), "");
  }
  RecordProperty("notice_us", static_cast<int>(absl::ToInt64Microseconds(notice)));
  EXPECT_LT(notice, absl::Seconds(1));  // 100 ms are promised; the rest is for a loaded machine
}

TEST_P(ConformanceProcessTest, ProcessAKilledServersCallsAreRepeatedOnlyIfTheyWereNotSentWhole) {
  if (!GetParam().proves_not_processed) GTEST_SKIP() << "the client does not learn how much was sent";
  auto server = std::make_unique<ServerProcess>(GetParam().name, listen_address());
  const std::string address = server->address();
  const auto channel = NewChannelTo(address);
  ExpectEcho(channel);
  ASSERT_EQ(kill(server->process().pid(), SIGSTOP), 0);
  int stopped = 0;
  ASSERT_EQ(waitpid(server->process().pid(), &stopped, WUNTRACED), server->process().pid());
  ASSERT_TRUE(WIFSTOPPED(stopped));
  Echo::Stub stub(channel);
  ClientContext sent_context;
  sent_context.set_wait_for_ready(true);
  EchoReply sent_reply;
  absl::Status sent;
  Event sent_done;
  const EchoRequest small;
  stub.async().Echo(&sent_context, &small, &sent_reply, [&](absl::Status status) {
    sent = std::move(status);
    sent_done.Set();
  });
  // More than any ring or socket buffer takes, so that its sender is in the middle of it.
  std::thread sender([&] {
    EchoRequest large;
    large.set_payload(RandomBytes(15 << 20, 1));
    ClientContext context;
    context.set_wait_for_ready(true);
    context.set_timeout(kHangGuard);
    EchoReply reply;
    const absl::Status status = stub.Echo(&context, large, &reply);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(reply.payload() == large.payload());
  });
  absl::SleepFor(absl::Milliseconds(100));
  server = nullptr;  // kills it
  EXPECT_TRUE(sent_done.Wait());
  EXPECT_EQ(sent.code(), absl::StatusCode::kUnavailable) << sent;
  server = std::make_unique<ServerProcess>(GetParam().name, address);
  sender.join();
}

TEST_P(ConformanceProcessTest, ProcessTheChannelReturnsAfterAKill) {
  auto server = std::make_unique<ServerProcess>(GetParam().name, listen_address());
  const std::string address = server->address();
  const auto channel = NewChannelTo(address);
  ExpectEcho(channel);
  for (int round = 0; round < 3; ++round) {
    server = nullptr;  // kills it; the socket file of a unix: address stays behind
    Echo::Stub stub(channel);
    EXPECT_EQ(stub.Echo(EchoRequest()).status().code(), absl::StatusCode::kUnavailable);
    server = std::make_unique<ServerProcess>(GetParam().name, address);
    ASSERT_EQ(server->address(), address);
    ExpectEchoWhenReady(channel);
    EXPECT_EQ(channel->transport(), GetParam().expected);
    ExpectEcho(channel, RandomBytes(200000, round));
  }
  EXPECT_EQ(server->process().Stop(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory()));
}

TEST_P(ConformanceProcessTest, ProcessKillsOfTheServerLeakNothing) {
  std::string address = listen_address();
  const auto kill_one = [&] {
    ServerProcess server(GetParam().name, address);
    address = server.address();
    const auto channel = NewChannelTo(address);
    Echo::Stub stub(channel);
    ExpectEcho(channel, RandomBytes(100000, 1));
    EchoRequest request;
    request.set_hold(true);
    ClientContext context;
    EchoReply reply;
    Event done;
    stub.async().Echo(&context, &request, &reply, [&](absl::Status) { done.Set(); });
    server.process().Kill();
    EXPECT_TRUE(done.Wait());
  };
  for (int i = 0; i < 2; ++i) kill_one();
  const int descriptors_before = CountOpenDescriptors();
  const int threads_before = CountThreads();
  for (int i = 0; i < Scaled(30); ++i) kill_one();
  EXPECT_TRUE(Eventually([&] { return CountOpenDescriptors() <= descriptors_before + kThreadDescriptors; }))
      << CountOpenDescriptors() << " descriptors, " << descriptors_before << " before";
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads_before + GetParam().library_threads; }))
      << CountThreads() << " threads, " << threads_before << " before";
}

TEST_P(ConformanceProcessTest, ProcessKilledClientCancelsItsHandlersAndLeaksNothing) {
  StartServer();
  const auto channel = NewChannel();
  constexpr int kCalls = 5;
  int killed = 0;
  const auto kill_one = [&] {
    ChildProcess client({SHMRPC_CONFORMANCE_PEER, "client", GetParam().name, server_address(), std::to_string(kCalls)});
    const absl::StatusOr<std::string> line = client.ReadLine();
    ASSERT_TRUE(line.ok()) << line.status();
    ++killed;
    ASSERT_TRUE(service_.held().WaitFor(kCalls * killed));
    client.Kill();
    EXPECT_TRUE(service_.cancelled().WaitFor(kCalls * killed));
    ExpectEcho(channel);
  };
  for (int i = 0; i < 2; ++i) kill_one();
  const int descriptors_before = CountOpenDescriptors();
  for (int i = 0; i < Scaled(30) && !HasFailure(); ++i) kill_one();
  EXPECT_TRUE(Eventually([&] { return CountOpenDescriptors() <= descriptors_before + kThreadDescriptors; }))
      << CountOpenDescriptors() << " descriptors, " << descriptors_before << " before";
}

TEST_P(ConformanceProcessTest, ProcessStoppedServerDoesNotStopDeadlines) {
  ServerProcess server(GetParam().name, listen_address());
  const auto channel = NewChannelTo(server.address());
  ExpectEcho(channel);
  ASSERT_EQ(kill(server.process().pid(), SIGSTOP), 0);
  int stopped = 0;
  ASSERT_EQ(waitpid(server.process().pid(), &stopped, WUNTRACED), server.process().pid());
  ASSERT_TRUE(WIFSTOPPED(stopped));
  Echo::Stub stub(channel);
  for (int i = 0; i < 3; ++i) {
    ClientContext context;
    context.set_timeout(absl::Milliseconds(50));
    EchoReply reply;
    EXPECT_EQ(stub.Echo(&context, EchoRequest(), &reply).code(), absl::StatusCode::kDeadlineExceeded);
  }
  // More than any ring or socket buffer takes: the caller itself is held up, and still comes back.
  EchoRequest large;
  large.set_payload(RandomBytes(15 << 20, 1));
  ClientContext context;
  context.set_timeout(absl::Milliseconds(200));
  EchoReply reply;
  EXPECT_EQ(stub.Echo(&context, large, &reply).code(), absl::StatusCode::kDeadlineExceeded);

  ASSERT_EQ(kill(server.process().pid(), SIGCONT), 0);
  ExpectEchoWhenReady(channel);
}

// ThreadSanitizer does not support the use of locks in a forked child of a process with threads.
#if !defined(__SANITIZE_THREAD__)
TEST_P(ConformanceProcessTest, ProcessAForkedChildGetsACleanErrorAndTheParentDoesNotNotice) {
  ServerProcess server(GetParam().name, listen_address());
  const auto channel = NewChannelTo(server.address());
  Echo::Stub stub(channel);
  ExpectEcho(channel);
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      alarm(30);
      _exit(stub.Echo(EchoRequest()).status().code() == absl::StatusCode::kFailedPrecondition ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child ended with " << status;
    ExpectEcho(channel);
  }
  EXPECT_EQ(channel->transport(), GetParam().expected);
}
#endif

// Each handler waits for the other process, whose handler waits for this one.
TEST_P(ConformanceProcessTest, ProcessNestedCallsDoNotBlockEachOther) {
  constexpr int kChains = 8;
  constexpr uint32_t kDepth = 50;
  RelayService relay;
  StartServer(NewServerBuilder().Register(&relay), listen_address());
  ServerProcess other({"relay", GetParam().name, NewListenAddress(), server_address()});
  const auto channel = NewChannelTo(other.address());
  relay.SetNext(channel);

  std::vector<absl::Status> statuses(kChains);
  std::vector<PassReply> replies(kChains);
  std::vector<std::thread> threads;
  for (int i = 0; i < kChains; ++i) {
    threads.emplace_back([&, i] {
      Relay::Stub stub(channel);
      PassRequest request;
      request.set_further(kDepth);
      ClientContext context;
      context.set_timeout(kHangGuard);
      statuses[i] = stub.Pass(&context, request, &replies[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kChains; ++i) {
    EXPECT_TRUE(statuses[i].ok()) << statuses[i];
    EXPECT_EQ(replies[i].passed(), kDepth);
  }
  server_ = nullptr;  // before the relay
  EXPECT_EQ(other.process().Stop(), 0);
}

}  // namespace
}  // namespace shmrpc::conformance
