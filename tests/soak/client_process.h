#ifndef SHMRPC_TESTS_SOAK_CLIENT_PROCESS_H_
#define SHMRPC_TESTS_SOAK_CLIENT_PROCESS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/conformance/transport_case.h"
#include "tests/soak/board.h"

namespace shmrpc::soak {

struct ClientSettings {
  const conformance::TransportCase* transport = nullptr;
  std::vector<std::string> addresses;  // of the servers
  int slot = 0;                        // its place on the board
  uint32_t incarnation = 1;            // the how manieth process there
  uint64_t seed = 0;
  int threads = 1;
  absl::Duration keepalive;
};

// A client process: makes calls until Phase::kQuiet, then destroys its channels and waits for Phase::kEnd. Returns the
// process's exit code.
int RunClient(const ClientSettings& settings, Board* board);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_CLIENT_PROCESS_H_
