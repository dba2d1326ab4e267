#ifndef SHMRPC_TESTS_SOAK_WATCHED_H_
#define SHMRPC_TESTS_SOAK_WATCHED_H_

#include <cstdint>
#include <string>

#include "tests/soak/memory.h"

namespace shmrpc::soak {

// How the resident private memory of a process goes, by thirds of the time of traffic.
struct Trend {
  int64_t highest[3] = {};
  int64_t sum[3] = {};
  int64_t samples[3] = {};

  void Add(int third, int64_t bytes);
  int64_t mean(int third) const { return samples[third] == 0 ? 0 : sum[third] / samples[third]; }
};

// A process that is looked at all the time; of a server that is ended now and then, one after the other.
struct Watched {
  std::string name;
  bool whole_time = false;  // one process, as long as there was traffic
  // What the library makes for the process as a whole when it is first used, and then keeps: see watched.cc.
  int kept_threads = 0;
  int kept_descriptors = 0;
  Holdings base;          // before any call
  Holdings highest;       // each by itself
  Holdings last;          // when all channels were gone
  int64_t heap_base = 0;  // see HeapBytesInUse
  int64_t heap_last = 0;
  Trend trend;
};

// With the two numbers filled in.
Watched WatchedServer(const std::string& name, bool whole_time, const Holdings& base);
Watched WatchedClient(const std::string& name, bool whole_time, const Holdings& base);

void NoteHighest(const Holdings& now, Holdings* highest);

// What of its descriptors, mappings, threads and memory in use has not come back to the base line; empty when all has.
// Not `idle`: the process may still have what the library lets go of when it has been idle for 10 to 20 seconds, which
// are threads, each with a descriptor, and memory for messages.
std::string NotGivenBack(const Watched& watched, bool idle);

// Whether its resident memory has grown from the first third of the traffic to the last beyond what traffic explains;
// empty when not.
std::string Grown(const Watched& watched);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_WATCHED_H_
