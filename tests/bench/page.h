#ifndef SHMRPC_TESTS_BENCH_PAGE_H_
#define SHMRPC_TESTS_BENCH_PAGE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/bench/report.h"
#include "tests/bench/run_info.h"

namespace shmrpc::bench {

// The page about a run: for each case pictures of what the rows have several values of (payloads, and what the case has
// a number of), the distribution of latencies, and a table of everything. One HTML document that needs no other file.
std::string ToPage(const std::vector<Row>& rows, const RunInfo& run);

// Writes the page as index.html, and the rows as rows.jsonl, into a directory, which is made if need be.
absl::Status WriteReport(const std::string& directory, const std::vector<Row>& rows, const RunInfo& run);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_PAGE_H_
