#ifndef SHMRPC_TESTS_SOAK_SERVER_PROCESS_H_
#define SHMRPC_TESTS_SOAK_SERVER_PROCESS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "tests/conformance/transport_case.h"
#include "tests/soak/board.h"

namespace shmrpc::soak {

// A server that is told to end has that long for the calls that it has accepted. Longer than any of them takes.
inline constexpr absl::Duration kDrainTime = absl::Seconds(20);

struct ServerSettings {
  const conformance::TransportCase* transport = nullptr;
  std::string address;
  int server = 0;            // its place on the board
  uint32_t incarnation = 1;  // the how manieth process there
  uint32_t kills = 0;        // of processes before it
  absl::Duration keepalive;
};

// A server process, in the style that its incarnation says: serves until SIGTERM, then drains. Returns the process's
// exit code.
int RunServer(const ServerSettings& settings, Board* board);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_SERVER_PROCESS_H_
