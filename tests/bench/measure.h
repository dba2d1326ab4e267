#ifndef SHMRPC_TESTS_BENCH_MEASURE_H_
#define SHMRPC_TESTS_BENCH_MEASURE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tests/bench/cases.h"
#include "tests/bench/peer.h"
#include "tests/bench/statistics.h"

namespace shmrpc::bench {

// On which CPUs the processes run.
enum class Pin {
  kApart,   // clients on one, the server on another
  kShared,  // all on one, to which they are bound once they are connected
  kSingle,  // all on one from the beginning: a library that looks will see that there is no other
  kNone,    // all on any
};

// "apart", "shared", "single", "none".
absl::string_view PinName(Pin pin);

// One cell of the benchmark, measured once per round.
struct MeasurementSpec {
  const CaseInfo* load = nullptr;
  const PeerInfo* peer = nullptr;
  std::string wait_mode = {};  // "-" for peers without modes
  size_t payload_bytes = 0;
  LoadShape shape = {};
  Pin pin = Pin::kApart;
  std::vector<int> cpus = {};  // to use, at least one; the first two unless nothing is pinned
  absl::Duration duration = absl::ZeroDuration();

  // Calls that are in flight at the same time, of all clients.
  int concurrency() const { return load->Slots(shape.amount) * load->Clients(shape.amount); }
};

// The CPUs for the processes of a measurement. Where client and server are one process, it is a client.
struct CpuSets {
  std::vector<int> clients;
  std::vector<int> server;
};
CpuSets DivideCpus(const MeasurementSpec& spec);

inline constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

// What travels from the measuring process to the one that reports.
struct Figures {
  int64_t p50_nanos = 0;
  int64_t p99_nanos = 0;
  int64_t p999_nanos = 0;
  int64_t calls = 0;
  double calls_per_second = 0;
  double cpu_micros_per_call = 0;              // user and system time of all processes
  double allocations_per_call = kNotMeasured;  // of all processes, when warm
  // clients:
  double slowest_share = kNotMeasured;  // the calls per second of the slowest client by the mean of all
  // idle:
  double p50_alone_nanos = kNotMeasured;        // before the further connections were made
  double memory_per_connection = kNotMeasured;  // bytes, in the server and in the process that holds the connections
  double idle_cpu_percent = kNotMeasured;       // of one CPU, all processes, while nobody calls
  double waking_micros = kNotMeasured;          // one call over each connection that rested, by connections
  double waking_cpu_micros = kNotMeasured;      // the same in CPU time of all processes
};

struct Measurement {
  Figures figures;
  LatencyHistogram latencies;
};

// Measures one cell in processes made for it, clients and server, which are gone when this returns: nothing of one
// measurement runs during another. The server is ready, the clients are connected and all are warm before the clock
// starts. The caller has one thread only.
absl::StatusOr<Measurement> Measure(const MeasurementSpec& spec);

// Lets `specs` take turns, round by round: of each, one measurement for each round. An error names the spec.
absl::StatusOr<std::vector<std::vector<Measurement>>> MeasureInTurns(const std::vector<MeasurementSpec>& specs,
                                                                     int rounds);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_MEASURE_H_
