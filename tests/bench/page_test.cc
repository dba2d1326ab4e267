#include "tests/bench/page.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace shmrpc::bench {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const RunInfo kRun = {.command = "shmrpc_bench --cases=unary --report=<here>",
                      .machine = "a processor, 2 CPUs",
                      .date = "2026-01-01 00:00 UTC",
                      .commit = "abc123"};

Row Unary(std::string peer, size_t payload_bytes, double p50_nanos) {
  Row row{.load = "unary", .peer = std::move(peer), .mode = "adaptive", .pin = "apart", .payload_bytes = payload_bytes};
  row.p50_nanos = p50_nanos;
  for (int i = 1; i <= 20'000; ++i) row.latencies.Add(static_cast<int64_t>(p50_nanos) + i);
  return row;
}

Row Pipelined(std::string peer, int concurrency, double calls_per_second) {
  Row row{.load = "pipelined", .peer = std::move(peer), .mode = "-", .pin = "apart", .payload_bytes = 64};
  row.axis = "concurrency";
  row.amount = concurrency;
  row.throughput = true;
  row.calls_per_second = calls_per_second;
  return row;
}

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Whether every element of a page is closed in the right order, apart from the document type. Not a parser: attribute
// values here contain no ">".
::testing::AssertionResult IsWellFormed(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at + 1)) {
    const size_t end = page.find('>', at);
    if (end == std::string::npos) return ::testing::AssertionFailure() << "a tag does not end";
    if (page[at + 1] == '!' || page[end - 1] == '/') continue;
    const bool closes = page[at + 1] == '/';
    const size_t name_at = at + (closes ? 2 : 1);
    const std::string name = page.substr(name_at, page.find_first_of(" >", name_at) - name_at);
    if (!closes) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return ::testing::AssertionFailure() << "</" << name << "> closes " << (open.empty() ? "nothing" : open.back());
    } else {
      open.pop_back();
    }
  }
  if (!open.empty()) return ::testing::AssertionFailure() << "<" << open.back() << "> is not closed";
  return ::testing::AssertionSuccess();
}

TEST(ToPageTest, LatencyAgainstPayloadAndItsDistribution) {
  const std::string page = ToPage(
      {Unary("shm", 64, 1'000), Unary("tcp", 64, 7'000), Unary("shm", 4'096, 2'000), Unary("tcp", 4'096, 9'000)}, kRun);
  EXPECT_TRUE(IsWellFormed(page));
  // One over the payload, one distribution for each payload.
  EXPECT_EQ(Count(page, "<svg"), 3);
  EXPECT_THAT(page, AllOf(HasSubstr("<title>unary</title>"), HasSubstr("<title>unary, distribution, 64 B</title>"),
                          HasSubstr("<title>unary, distribution, 4 KiB</title>"), HasSubstr(">payload (log)<"),
                          HasSubstr(">percentile of calls<"), HasSubstr(">99.99 %<"), HasSubstr("tcp, adaptive")));
}

TEST(ToPageTest, ThroughputAgainstConcurrency) {
  const std::string page = ToPage({Pipelined("grpc-tcp", 8, 20'000), Pipelined("grpc-tcp", 64, 30'000)}, kRun);
  EXPECT_TRUE(IsWellFormed(page));
  EXPECT_EQ(Count(page, "<svg"), 1);  // there are no latencies in these rows
  EXPECT_THAT(page, AllOf(HasSubstr("<title>pipelined, 64 B</title>"), HasSubstr(">concurrency (log)<"),
                          HasSubstr(">calls per second (log)<"), HasSubstr("<th>concurrency</th>")));
}

TEST(ToPageTest, AOneWayStreamIsDrawnInBytesPerSecond) {
  Row row = Unary("shm", 1 << 20, 1);
  row.load = "bulk";
  row.one_way = row.throughput = true;
  row.calls_per_second = 4'000;
  Row smaller = row;
  smaller.payload_bytes = 1 << 10;
  const std::string page = ToPage({row, smaller}, kRun);
  EXPECT_TRUE(IsWellFormed(page));
  EXPECT_EQ(Count(page, "<svg"), 1);
  EXPECT_THAT(page, AllOf(HasSubstr(">payload, bytes per second (log)<"), HasSubstr("<td>4.19</td>")));
}

TEST(ToPageTest, EveryPictureSaysWhereItsNumbersComeFrom) {
  const std::string page = ToPage({Unary("shm", 64, 1'000), Unary("shm", 4'096, 2'000)}, kRun);
  const int pictures = Count(page, "<svg");
  EXPECT_EQ(pictures, 3);
  EXPECT_EQ(Count(page, ">shmrpc_bench --cases=unary --report=&lt;here&gt;</text>"), pictures);
  EXPECT_EQ(Count(page, ">a processor, 2 CPUs; 2026-01-01 00:00 UTC; commit abc123</text>"), pictures);
}

TEST(ToPageTest, TablesHaveTheColumnsThatAreOfUse) {
  Row row = Unary("shm", 64, 1'234);
  row.allocations_per_call = 5.0;
  const std::string page = ToPage({row}, kRun);
  EXPECT_TRUE(IsWellFormed(page));
  EXPECT_THAT(page, AllOf(HasSubstr("<th>median, µs</th>"), HasSubstr("<td>1.23</td>"),
                          HasSubstr("<th>allocations per call</th>"), HasSubstr("<td>5.00</td>"),
                          Not(HasSubstr("<th>slowest client by mean</th>")), Not(HasSubstr("<th>GB/s</th>"))));
}

TEST(ToPageTest, PlacementsHavePicturesOfTheirOwn) {
  Row shared = Unary("shm", 64, 5'000);
  shared.pin = "shared";
  const std::string page = ToPage({Unary("shm", 64, 1'000), shared}, kRun);
  EXPECT_THAT(page, AllOf(HasSubstr("<title>unary, distribution, 64 B, CPUs: apart</title>"),
                          HasSubstr("<title>unary, distribution, 64 B, CPUs: shared</title>")));
}

TEST(WriteReportTest, WritesPageAndRows) {
  const std::filesystem::path directory = std::filesystem::path(::testing::TempDir()) / "bench_page_test" / "report";
  std::filesystem::remove_all(directory);
  const std::vector<Row> rows = {Unary("shm", 64, 1'000), Unary("tcp", 64, 7'000)};
  ASSERT_TRUE(WriteReport(directory.string(), rows, kRun).ok());
  std::ifstream page_file(directory / "index.html");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(page_file), {}), ToPage(rows, kRun));
  std::ifstream rows_file(directory / "rows.jsonl");
  std::string line;
  int lines = 0;
  while (std::getline(rows_file, line)) {
    EXPECT_EQ(nlohmann::json::parse(line)["peer"], rows[lines].peer);
    ++lines;
  }
  EXPECT_EQ(lines, 2);
  std::filesystem::remove_all(directory.parent_path());
}

TEST(WriteReportTest, ADirectoryThatCannotBeIsNamed) {
  const absl::Status status = WriteReport("/proc/nowhere", {}, kRun);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("/proc/nowhere"));
}

}  // namespace
}  // namespace shmrpc::bench
