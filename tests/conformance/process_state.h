#ifndef SHMRPC_TESTS_CONFORMANCE_PROCESS_STATE_H_
#define SHMRPC_TESTS_CONFORMANCE_PROCESS_STATE_H_

// What this process holds. Taken before and after, the numbers show a leak.

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/match.h"

namespace shmrpc::conformance {

// The library keeps a few descriptors for threads that sleep in synchronous calls (transports/framed/wake_event.h). They
// may be needed for the first time between two counts.
inline constexpr int kThreadDescriptors = 4;

inline int CountEntries(const char* directory) {
  const std::filesystem::directory_iterator entries(directory);
  return static_cast<int>(std::distance(begin(entries), end(entries)));
}

// The iterator itself holds one descriptor.
inline int CountOpenDescriptors() { return CountEntries("/proc/self/fd") - 1; }
inline int CountThreads() { return CountEntries("/proc/self/task"); }

// Mappings of memfds, which is what connections over shared memory hold.
inline int CountMemfdMappings() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  int count = 0;
  while (std::getline(maps, line)) count += absl::StrContains(line, "/memfd:") ? 1 : 0;
  return count;
}

// Resident memory of this process, which mostly is client and server, in KiB.
inline int64_t ResidentKiB() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_PROCESS_STATE_H_
