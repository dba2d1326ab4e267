// Runs the real program, very briefly, over every peer and checks what it prints.

#include <stdio.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/bench/allocations.h"
#include "tests/bench/cases.h"
#include "tests/bench/peer.h"
#include "tests/bench/targets.h"
#include "tests/sanitizers.h"

namespace shmrpc::bench {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Finished {
  int exit_code = -1;
  std::string out;
};

// `redirect` says where standard error goes, as a shell has it.
Finished RunProgram(const std::string& arguments, const std::string& redirect = "") {
  FILE* const pipe = popen(absl::StrCat(SHMRPC_BENCH_PROGRAM " ", arguments, " ", redirect).c_str(), "re");
  Finished finished;
  if (pipe == nullptr) return finished;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) finished.out.append(buffer, n);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) finished.exit_code = WEXITSTATUS(status);
  return finished;
}

// ThreadSanitizer cannot see into Debian's gRPC and would report races there.
std::vector<std::string> PeersToRun() {
  std::vector<std::string> names;
  for (const PeerInfo& peer : AllPeers()) {
    if (SHMRPC_TSAN && absl::StartsWith(peer.name, "grpc-")) continue;
    names.push_back(peer.name);
  }
  return names;
}

// The rows that the program printed, one JSON object in each line.
std::vector<nlohmann::json> Rows(const std::string& out) {
  std::vector<nlohmann::json> rows;
  for (const absl::string_view line : absl::StrSplit(out, '\n', absl::SkipEmpty())) {
    rows.push_back(nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false));
    EXPECT_TRUE(rows.back().is_object()) << line;
  }
  return rows;
}

// What is true of every row.
void CheckRow(const nlohmann::json& row) {
  const PeerInfo* const peer = FindPeer(std::string(row["peer"]));
  ASSERT_NE(peer, nullptr);
  EXPECT_EQ(row["mode"], peer->has_modes ? "adaptive" : "-");
  EXPECT_GT(row["p50_ns"], 0);
  EXPECT_GE(row["p99_ns"], row["p50_ns"]);
  EXPECT_GE(row["p999_ns"], row["p99_ns"]);
  EXPECT_GE(row["p9999_ns"], row["p999_ns"]);
  EXPECT_GT(row["calls"], 0);
  EXPECT_GT(row["calls_per_s"], 0);
  EXPECT_GT(row["cpu_us_per_call"], 0);
}

TEST(ProgramTest, MeasuresEveryPeer) {
  const std::vector<std::string> peers = PeersToRun();
  const Finished finished = RunProgram(absl::StrCat(
      "--cases=unary,pipelined --rounds=1 --seconds=0.02 --payloads=64,100000 --concurrency=1,8 --against=floor-unix ",
      "--peers=", absl::StrJoin(peers, ",")));
  ASSERT_EQ(finished.exit_code, 0) << finished.out;

  std::map<std::string, int> lines_of_peer;
  for (const nlohmann::json& row : Rows(finished.out)) {
    SCOPED_TRACE(row.dump());
    CheckRow(row);
    const std::string load = row["case"];
    const std::string name = row["peer"];
    ++lines_of_peer[name];
    EXPECT_EQ(row["concurrency"], load == "unary" ? 1 : 8);
    EXPECT_EQ(row["pin"], "apart");
    // floor-unix, the one to compare with, has one call in flight at most.
    EXPECT_EQ(row.contains("ratio_p50"), load == "unary");
    EXPECT_EQ(row.contains("ratio_calls"), load == "unary");
    if (load == "unary") {
      EXPECT_GT(row["ratio_p50"], 0);
    }
    if (name == "floor-unix") {
      EXPECT_EQ(row["ratio_p50"], 1);
      EXPECT_EQ(row["ratio_calls"], 1);
    }
  }
  for (const std::string& name : peers) {
    const PeerInfo* const peer = FindPeer(name);
    const bool pipelines = (peer->abilities & kPipelining) != 0;
    EXPECT_EQ(lines_of_peer[name], pipelines ? 4 : peer->only_payload_bytes != 0 ? 1 : 2) << name;
  }
}

// Every other case, with peers that have nothing in common, as far as they can do it.
TEST(ProgramTest, RunsEveryCase) {
  std::vector<std::string> peers = {"shm", "inproc", "floor-ring", "floor-pool", "floor-memcpy", "floor-tcp"};
  if (!SHMRPC_TSAN) peers.push_back("grpc-unix");
  std::vector<std::string> loads;
  for (const CaseInfo& load : AllCases()) {
    if (load.name != "unary" && load.name != "pipelined") loads.push_back(load.name);
  }
  const Finished finished = RunProgram(
      absl::StrCat("--rounds=1 --seconds=0.01 --payloads=64 --threads=3 --clients=3 --connections=5 --sleeping=2 ",
                   "--sleep_ms=1 --rate=1000 --burst=10 --pause_ms=1 --cases=", absl::StrJoin(loads, ","),
                   " --peers=", absl::StrJoin(peers, ",")),
      "2>/dev/null");
  ASSERT_EQ(finished.exit_code, 0) << finished.out;

  std::map<std::string, int> lines_of_case;
  for (const nlohmann::json& row : Rows(finished.out)) {
    SCOPED_TRACE(row.dump());
    CheckRow(row);
    const std::string load = row["case"];
    ++lines_of_case[load];
    EXPECT_EQ(row["concurrency"], load == "threads" || load == "clients" ? 3 : 1);
    EXPECT_EQ(row["pin"], load == "threads" || load == "clients" ? "none" : "apart");
    EXPECT_EQ(row.contains("gb_per_s"), load == "bulk" || load == "bulk-down");
    EXPECT_EQ(row.contains("slowest_share"), load == "clients");
    for (const char* field :
         {"p50_alone_ns", "ratio_alone", "memory_per_connection", "idle_cpu_percent", "waking_us", "waking_cpu_us"}) {
      EXPECT_EQ(row.contains(field), load == "idle") << field;
    }
    if (load == "clients") {
      EXPECT_GT(row["slowest_share"], 0);
      EXPECT_LE(row["slowest_share"], 1);
    }
    if (load == "idle") {
      EXPECT_EQ(row["connections"], 5);
    }
  }
  for (const std::string& load : loads) {
    const auto able = std::count_if(peers.begin(), peers.end(), [&](const std::string& name) {
      return (FindCase(load)->needs & ~FindPeer(name)->abilities) == 0;
    });
    EXPECT_EQ(lines_of_case[load], able) << load;
  }
}

TEST(ProgramTest, CountsAllocations) {
  if (!AllocationCounter::Available()) GTEST_SKIP() << "the sanitizer has a malloc of its own";
  const Finished finished =
      RunProgram("--cases=unary,stream --rounds=1 --seconds=0.1 --payloads=64 --peers=floor-memcpy,floor-ring");
  ASSERT_EQ(finished.exit_code, 0) << finished.out;
  for (const nlohmann::json& row : Rows(finished.out)) {
    SCOPED_TRACE(row.dump());
    ASSERT_TRUE(row.contains("allocations_per_call"));
    if (row["peer"] == "floor-memcpy") {
      EXPECT_LT(row["allocations_per_call"], 0.1);  // it copies bytes between buffers that are there
    } else {
      EXPECT_GE(row["allocations_per_call"], 2);  // each side parses a message into strings of its own
    }
  }
}

TEST(ProgramTest, ProcessesRunWhereTheyAreToldTo) {
  const Finished finished = RunProgram(
      "--cases=unary --peers=shm,inproc --payloads=64 --rounds=1 --seconds=0.01 --pin=apart,shared,single,none",
      "2>/dev/null");
  ASSERT_EQ(finished.exit_code, 0) << finished.out;
  std::vector<std::string> pins;
  for (const nlohmann::json& row : Rows(finished.out)) {
    CheckRow(row);
    if (row["peer"] == "shm") pins.push_back(row["pin"]);
  }
  EXPECT_THAT(pins, ElementsAre("apart", "shared", "single", "none"));
}

TEST(ProgramTest, PrintsATableOnRequest) {
  const Finished finished =
      RunProgram("--rounds=1 --seconds=0.02 --cases=unary --payloads=64 --peers=floor-ring --table");
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.out, HasSubstr("floor-ring"));
  EXPECT_THAT(finished.out, HasSubstr("  64 B"));
}

TEST(ProgramTest, WritesAReport) {
  const std::filesystem::path directory = std::filesystem::path(::testing::TempDir()) / "bench_program_test_report";
  std::filesystem::remove_all(directory);
  const Finished finished =
      RunProgram(absl::StrCat("--rounds=1 --seconds=0.01 --cases=unary --payloads=64,1000 --peers=floor-ring --report=",
                              directory.string()),
                 "2>&1");
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.out, HasSubstr((directory / "index.html").string()));
  std::ifstream file(directory / "index.html");
  EXPECT_THAT(std::string(std::istreambuf_iterator<char>(file), {}),
              AllOf(HasSubstr("<svg"), HasSubstr("--cases=unary"), HasSubstr("</html>")));
  std::filesystem::remove_all(directory);
}

TEST(ProgramTest, MeasuresEveryTarget) {
  if (SHMRPC_TSAN) GTEST_SKIP() << "gRPC is needed, which ThreadSanitizer cannot see into";
  const Finished finished = RunProgram("--targets --rounds=1 --seconds=0.01");
  ASSERT_EQ(finished.exit_code, 0) << finished.out;
  std::set<std::string> names;
  for (const nlohmann::json& row : Rows(finished.out)) {
    names.insert(std::string(row["target"]));
    EXPECT_TRUE(row["measured"].is_number()) << row;
    EXPECT_TRUE(row["reached"].is_boolean()) << row;
  }
  EXPECT_EQ(names.size(), AllTargets().size());
}

TEST(ProgramTest, WrongUsageEndsWithTwoAndNamesTheChoices) {
  const Finished finished = RunProgram("--peers=pigeon", "2>&1");
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.out, HasSubstr("floor-ring"));
  EXPECT_EQ(RunProgram("unary", "2>&1").exit_code, 2);
}

}  // namespace
}  // namespace shmrpc::bench
