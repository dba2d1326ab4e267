#ifndef SHMRPC_TESTS_FAULT_ADDRESS_SPACE_H_
#define SHMRPC_TESTS_FAULT_ADDRESS_SPACE_H_

// A process that has come to its limit of address space (RLIMIT_AS): what it has it can use, but it can map nothing
// more.

#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <climits>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <latch>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "tests/sanitizers.h"

namespace shmrpc::tests {

// Once, before there are other threads: from then on malloc gives from memory that is there already, on every thread,
// and some threads find a stack that is. So what fails for want of address space is what maps memory itself.
inline void ReserveHeapAndStacks() {
  if (SHMRPC_ASAN || SHMRPC_TSAN) return;  // they map memory as they like, and have larger stacks
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  mallopt(M_MMAP_MAX, 0);
  void* volatile reserve = malloc(size_t{64} << 20);  // volatile: or the compiler leaves both out
  free(reserve);
  // All at the same time, and the C library keeps their stacks, of 40 MiB at most: so they have to be small.
  pthread_attr_t small_stacks;
  pthread_attr_init(&small_stacks);
  pthread_attr_setstacksize(&small_stacks, 512 * 1024);
  pthread_setattr_default_np(&small_stacks);
  pthread_attr_destroy(&small_stacks);
  constexpr int kThreads = 16;
  std::latch all(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([&all] { all.arrive_and_wait(); });
  for (std::thread& thread : threads) thread.join();
}

inline absl::Status SetAddressSpaceLimit(rlim_t bytes) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_AS, &limit) != 0) return absl::InternalError("getrlimit failed");
  limit.rlim_cur = bytes;
  return setrlimit(RLIMIT_AS, &limit) == 0 ? absl::OkStatus() : absl::InternalError("setrlimit failed");
}

// From now on this process gets no more address space than it has.
inline absl::Status FreezeAddressSpace() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  if (pages == 0) return absl::InternalError("cannot read /proc/self/statm");
  return SetAddressSpaceLimit(pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
}

inline absl::Status ThawAddressSpace() { return SetAddressSpaceLimit(RLIM_INFINITY); }

}  // namespace shmrpc::tests

#endif  // SHMRPC_TESTS_FAULT_ADDRESS_SPACE_H_
