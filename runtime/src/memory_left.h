#ifndef SHMRPC_RUNTIME_SRC_MEMORY_LEFT_H_
#define SHMRPC_RUNTIME_SRC_MEMORY_LEFT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace shmrpc::internal {

// With less than this left to its control groups a process takes no more shared memory: it is about to be killed. Some
// connections' worth, because the pages of those that there are may yet be touched.
inline constexpr uint64_t kLeastMemoryLeft = uint64_t{4} << 20;

// What the memory control groups (v1 or v2) that a process is in leave it, each with those above it.
struct MemoryLeft {
  uint64_t bytes = 0;  // of the tightest; what the kernel can take back from the page cache counts as left
  std::string group;   // its folder
};

// nullopt: there is no limit, or none that can be read. `membership`: /proc/PID/cgroup; `mount`: where the control
// groups are. Any thread; reads a few small files.
std::optional<MemoryLeft> GetMemoryLeft(const std::string& membership = "/proc/thread-self/cgroup",
                                        const std::string& mount = "/sys/fs/cgroup");

// RESOURCE_EXHAUSTED, with the group and what to do, when this process has less than kLeastMemoryLeft. A limit of that
// kind is not told by any call that makes or maps memory: the process is killed when it touches it.
absl::Status CheckMemoryLeft();

// The least of what the machine has left (what the kernel can take back included), what the memory control groups leave
// this process, and its limit of address space (RLIMIT_AS). What cannot be found out does not count.
uint64_t MemoryForThisProcess();

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_MEMORY_LEFT_H_
