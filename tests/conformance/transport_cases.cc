#include <vector>

#include "transport_case.h"

namespace shmrpc::conformance {

// clang-format off
const std::vector<TransportCase>& TransportCases() {
  static const auto* const cases = new std::vector<TransportCase>{
      {.name = "inproc", .listen = "inproc:{unique}", .expected = "inproc", .across_processes = false},
      {.name = "shm", .listen = "127.0.0.1:0", .preference = TransportPreference::kShm, .expected = "shm", .kernel_credentials = true},
      {.name = "auto", .listen = "localhost:0", .expected = "shm", .kernel_credentials = true},
      {.name = "unixshm", .listen = "unix:{directory}/{unique}", .preference = TransportPreference::kShm, .expected = "shm", .kernel_credentials = true},
      {.name = "tcp", .listen = "127.0.0.1:0", .preference = TransportPreference::kTcp, .expected = "tcp: asked for"},
      {.name = "unix", .listen = "unix:{directory}/{unique}", .preference = TransportPreference::kUnix, .expected = "unix: asked for", .kernel_credentials = true},
  };
  return *cases;
}
// clang-format on

}  // namespace shmrpc::conformance
