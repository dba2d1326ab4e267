#ifndef SHMRPC_TESTS_SOAK_SUPERVISOR_H_
#define SHMRPC_TESTS_SOAK_SUPERVISOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/conformance/transport_case.h"
#include "tests/soak/board.h"
#include "tests/soak/watched.h"

namespace shmrpc::soak {

struct SoakOptions {
  const conformance::TransportCase* transport = nullptr;
  absl::Duration duration;
  uint64_t seed = 0;
  int servers = 2;
  int clients = 4;
  int threads = 4;
  absl::Duration end_server_every;
  absl::Duration kill_client_every;
  absl::Duration stop_every;
  absl::Duration keepalive;
  bool idle = true;  // at the end, wait until processes have let go of what they keep for the next call
};

// What the supervisor has done and seen; the rest is on the board.
struct SoakResult {
  absl::Duration traffic;  // how long there was
  int server_kills = 0;
  int server_drains = 0;
  int client_kills = 0;
  int stops = 0;
  int long_stops = 0;
  std::vector<Watched> watched;
};

// Runs a soak with processes of its own, which it ends by their ids, however it ends itself. From a process with one
// thread, because the children go on without exec. What goes wrong is on the board. CANCELLED when SIGINT or SIGTERM
// came.
absl::StatusOr<SoakResult> RunSoak(const SoakOptions& options, Board* board);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_SUPERVISOR_H_
