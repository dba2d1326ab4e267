#ifndef SHMRPC_TESTS_BENCH_ALLOCATIONS_H_
#define SHMRPC_TESTS_BENCH_ALLOCATIONS_H_

#include <cstdint>

#include "absl/status/status.h"

namespace shmrpc::bench {

// Counts allocations from the heap: every malloc, calloc, realloc and aligned allocation of the processes, whoever in
// them it comes from, and so every operator new. The benchmark's programs have a malloc of their own for that; it costs
// a load and a branch while nothing counts, so the counter runs only in runs that are made for it.
class AllocationCounter {
 public:
  // Whether this program can count. A sanitizer has a malloc of its own.
  static bool Available();

  // Counts from now on what this process and the processes that it will fork allocate while counting is on. To be
  // called once in a process, while it has one thread.
  static absl::Status Install();

  // Switches counting on, from zero, or off, in all of those processes.
  static void Begin();
  // Returns how many there were.
  static int64_t End();
};

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_ALLOCATIONS_H_
