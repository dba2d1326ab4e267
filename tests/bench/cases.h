#ifndef SHMRPC_TESTS_BENCH_CASES_H_
#define SHMRPC_TESTS_BENCH_CASES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tests/bench/peer.h"
#include "tests/bench/statistics.h"

namespace shmrpc::bench {

// What a case has a number of; the option of the same name lists the numbers to run it with.
enum class Axis {
  kNone,
  kConcurrency,  // calls in flight
  kThreads,      // client threads on one connection
  kClients,      // client processes
  kConnections,  // connections that rest beside the busy one
  kSleeping,     // calls whose handlers sleep beside the fast ones
  kRate,         // calls per second
  kBurst,        // calls one after the other before a pause
};

// "concurrency", "threads", …; empty for kNone.
absl::string_view AxisName(Axis axis);

// How one client process is to load its peer. What a case has no use for is ignored.
struct LoadShape {
  int amount = 1;                                 // of what the case's axis says
  absl::Duration sleep = absl::Milliseconds(10);  // slow-handler: of a slow call's handler
  absl::Duration pause = absl::Milliseconds(10);  // bursts: between two of them
};

// What one run of a case saw in one client process.
struct CaseResult {
  LatencyHistogram latencies;  // of calls; in a one-way stream, of handing on or getting one message
  absl::Duration elapsed = absl::ZeroDuration();
};

// One way to load a peer.
struct CaseInfo {
  std::string name;
  Axis axis = Axis::kNone;
  uint32_t needs = kCalls;  // of Ability
  bool throughput = false;  // calls per second are what it is about, rather than latency
  bool one_way = false;     // payloads go in one direction only
  bool uploads = false;     // and that is from client to server
  bool crowded = false;     // has more busy threads than a client with a CPU of its own should have
  // Makes calls for `duration`, then waits for those in flight. Ends with DATA_LOSS when a payload did not arrive as it
  // was sent, and with a call's status when that was not OK.
  absl::StatusOr<CaseResult> (*run)(ClientSide& client, const LoadShape& shape, absl::Duration duration) = nullptr;

  // How many slots of a client a load with this amount uses.
  int Slots(int amount) const { return axis == Axis::kConcurrency || axis == Axis::kThreads ? amount : 1; }
  // How many client processes it has.
  int Clients(int amount) const { return axis == Axis::kClients ? amount : 1; }
};

const std::vector<CaseInfo>& AllCases();

// Null when there is none of that name.
const CaseInfo* FindCase(absl::string_view name);

// Fills the request of every slot with the pattern that the cases expect. To be called once, after Connect.
void FillRequests(ClientSide& client, int slots);

// The cases, by what they have in common.
std::vector<CaseInfo> CallCases();    // unary, pipelined, threads, clients, idle, slow-handler
std::vector<CaseInfo> StreamCases();  // stream, bulk, bulk-down
std::vector<CaseInfo> TimedCases();   // paced, bursts

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_CASES_H_
