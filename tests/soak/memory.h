#ifndef SHMRPC_TESTS_SOAK_MEMORY_H_
#define SHMRPC_TESTS_SOAK_MEMORY_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace shmrpc::soak {

// What a process holds, by /proc.
struct Holdings {
  int descriptors = 0;
  int shared_mappings = 0;  // of memory without a name in the file system: a connection's rings
  int mappings = 0;         // all there are
  int threads = 0;
  int64_t private_bytes = 0;  // resident, not shared: RssAnon
  int64_t shared_bytes = 0;   // resident, shared: RssShmem
};

// NOT_FOUND when there is no such process (any more).
absl::StatusOr<Holdings> HoldingsOf(pid_t pid);

// What the process's descriptors and shared mappings are, each kind with its number: for messages.
std::string DescribeHoldings(pid_t pid);

// What the calling process has allocated and not freed. Exact, unlike resident memory, of which the allocator keeps
// some for later.
int64_t HeapBytesInUse();

// Makes resident memory tell something. Otherwise glibc keeps up to 32 MiB of freed memory at the end of each of its
// arenas, of which there are eight for each CPU, once a block of 16 MiB has been freed (it adapts its thresholds to
// that): for minutes resident memory grows although nothing is leaked. Few arenas and fixed thresholds give back at
// once what is freed in large blocks. Before there are threads.
void MakeAllocatorGiveBack();

// Lets the allocator give back to the system what it keeps for later.
void TrimHeap();

// With AddressSanitizer: whether memory is left that nobody refers to; it then says so on the standard error output.
bool HasLeaks();

// Built with a sanitizer: everything takes ten times as long, and resident memory is mostly the sanitizer's.
extern const bool kUnderSanitizer;

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_MEMORY_H_
