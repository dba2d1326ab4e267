// Runs the real program, very briefly, over every peer and checks what it prints.

#include <stdio.h>
#include <sys/wait.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/bench/peer.h"
#include "tests/tsan.h"

namespace shmrpc::bench {
namespace {

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

TEST(ProgramTest, MeasuresEveryPeer) {
  const std::vector<std::string> peers = PeersToRun();
  const Finished finished =
      RunProgram(absl::StrCat("--rounds=1 --seconds=0.05 --payloads=64,100000 --concurrency=1,8 --against=floor-unix ",
                              "--peers=", absl::StrJoin(peers, ",")));
  ASSERT_EQ(finished.exit_code, 0) << finished.out;

  std::map<std::string, int> lines_of_peer;
  for (const absl::string_view line : absl::StrSplit(finished.out, '\n', absl::SkipEmpty())) {
    SCOPED_TRACE(line);
    const nlohmann::json row = nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(row.is_object());
    const std::string load = row["case"];
    const std::string name = row["peer"];
    ++lines_of_peer[name];
    const PeerInfo* const peer = FindPeer(name);
    ASSERT_NE(peer, nullptr);
    EXPECT_EQ(row["mode"], peer->has_modes ? "adaptive" : "-");
    EXPECT_EQ(row["concurrency"], load == "unary" ? 1 : 8);
    EXPECT_GT(row["p50_ns"], 0);
    EXPECT_GE(row["p99_ns"], row["p50_ns"]);
    EXPECT_GE(row["p999_ns"], row["p99_ns"]);
    EXPECT_GT(row["calls"], 0);
    EXPECT_GT(row["calls_per_s"], 0);
    EXPECT_GT(row["cpu_us_per_call"], 0);
    // floor-unix, the one to compare with, has one call in flight at most.
    EXPECT_EQ(row.contains("ratio_p50"), load == "unary");
    if (load == "unary") {
      EXPECT_GT(row["ratio_p50"], 0);
    }
    if (name == "floor-unix") {
      EXPECT_EQ(row["ratio_p50"], 1);
    }
  }
  for (const std::string& name : peers) {
    const PeerInfo* const peer = FindPeer(name);
    EXPECT_EQ(lines_of_peer[name], peer->can_pipeline ? 4 : peer->only_payload_bytes != 0 ? 1 : 2) << name;
  }
}

TEST(ProgramTest, PrintsATableOnRequest) {
  const Finished finished =
      RunProgram("--rounds=1 --seconds=0.02 --cases=unary --payloads=64 --peers=floor-ring --table");
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.out, HasSubstr("floor-ring"));
  EXPECT_THAT(finished.out, HasSubstr("  64 B"));
}

TEST(ProgramTest, WrongUsageEndsWithTwoAndNamesTheChoices) {
  const Finished finished = RunProgram("--peers=pigeon", "2>&1");
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.out, HasSubstr("floor-ring"));
  EXPECT_EQ(RunProgram("unary", "2>&1").exit_code, 2);
}

}  // namespace
}  // namespace shmrpc::bench
