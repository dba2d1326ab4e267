#ifndef SHMRPC_RUNTIME_SRC_RANDOM_H_
#define SHMRPC_RUNTIME_SRC_RANDOM_H_

#include <cstdint>

namespace shmrpc::internal {

// Random numbers for jitter and for hash tables; not for secrets that leave the process. Every process, the child of a
// fork() as well, has its own: workers that were forked together do not all come back at the same moment. Thread-safe.
uint64_t RandomBits();

// From `low` to `high`.
double RandomBetween(double low, double high);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_RANDOM_H_
