#ifndef SHMRPC_TESTS_BENCH_MEASURE_H_
#define SHMRPC_TESTS_BENCH_MEASURE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/bench/cases.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {

// One cell of the benchmark, measured once per round.
struct MeasurementSpec {
  const CaseInfo* load = nullptr;
  const PeerInfo* peer = nullptr;
  std::string wait_mode;  // "-" for peers without modes
  size_t payload_bytes = 0;
  int concurrency = 1;
  absl::Duration duration = absl::ZeroDuration();
};

// Plain data: it travels from the measuring process to the one that reports.
struct Measurement {
  int64_t p50_nanos = 0;
  int64_t p99_nanos = 0;
  int64_t p999_nanos = 0;
  int64_t calls = 0;
  double calls_per_second = 0;
  double cpu_micros_per_call = 0;  // user and system time of both processes
};

// Which CPUs client and server are bound to. The same one twice when only one is allowed.
struct CpuPair {
  int client = 0;
  int server = 0;
};

// Measures one cell in two processes made for it, client and server, which are gone when this returns: nothing of one
// measurement runs during another. The server is ready, the client connected and both are warm before the clock
// starts. The caller has one thread only.
absl::StatusOr<Measurement> Measure(const MeasurementSpec& spec, const CpuPair& cpus);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_MEASURE_H_
