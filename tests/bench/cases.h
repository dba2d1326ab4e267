#ifndef SHMRPC_TESTS_BENCH_CASES_H_
#define SHMRPC_TESTS_BENCH_CASES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tests/bench/peer.h"
#include "tests/bench/statistics.h"

namespace shmrpc::bench {

// What one run of a case saw.
struct CaseResult {
  LatencyHistogram latencies;
  absl::Duration elapsed = absl::ZeroDuration();
};

// One way to load a peer.
struct CaseInfo {
  std::string name;
  bool pipelines = false;  // has several calls in flight, and so needs peers that can
  // Makes calls for `duration`, then waits for those in flight. `slots` calls are in flight at a time. Ends with
  // DATA_LOSS when a payload did not come back as it was sent, and with a call's status when that was not OK.
  absl::StatusOr<CaseResult> (*run)(ClientSide& client, int slots, absl::Duration duration) = nullptr;
};

const std::vector<CaseInfo>& AllCases();

// Null when there is none of that name.
const CaseInfo* FindCase(absl::string_view name);

// Fills the request of every slot with the pattern that the cases expect. To be called once, after Connect.
void FillRequests(ClientSide& client, int slots);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_CASES_H_
