#ifndef SHMRPC_TESTS_BENCH_CLOCK_H_
#define SHMRPC_TESTS_BENCH_CLOCK_H_

#include <chrono>
#include <cstdint>

namespace shmrpc::bench {

// What latencies are measured with. All processes of one host read the same.
using Clock = std::chrono::steady_clock;

inline int64_t NanosBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count();
}

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_CLOCK_H_
