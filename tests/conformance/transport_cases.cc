#include <vector>

#include "transport_case.h"

#if SHMRPC_TEST_GRPC
#include "shmrpc/grpc.h"
#endif

namespace shmrpc::conformance {

#if SHMRPC_TEST_GRPC
namespace {

const TransportSet& WithGrpc() {
  static const auto* const transports = new TransportSet(TransportsWithGrpc());
  return *transports;
}

// What all cases over the gRPC library have in common.
TransportCase Grpc(TransportCase transport_case) {
  transport_case.message_overhead_bytes = 5;  // the length of a message, and whether it is compressed
  transport_case.library_threads = 20;
  transport_case.deadline_rounding = 0.01;
  transport_case.proves_not_processed = false;
  transport_case.transports = &WithGrpc;
  return transport_case;
}

}  // namespace
#endif

// clang-format off
const std::vector<TransportCase>& TransportCases() {
  static const auto* const cases = new std::vector<TransportCase>{
      {.name = "inproc", .listen = "inproc:{unique}", .expected = "inproc", .across_processes = false},
      {.name = "shm", .listen = "127.0.0.1:0", .preference = TransportPreference::kShm, .expected = "shm", .kernel_credentials = true},
      {.name = "auto", .listen = "localhost:0", .expected = "shm", .kernel_credentials = true},
      {.name = "unixshm", .listen = "unix:{directory}/{unique}", .preference = TransportPreference::kShm, .expected = "shm", .kernel_credentials = true},
      {.name = "tcp", .listen = "127.0.0.1:0", .preference = TransportPreference::kTcp, .expected = "tcp: asked for"},
      {.name = "unix", .listen = "unix:{directory}/{unique}", .preference = TransportPreference::kUnix, .expected = "unix: asked for", .kernel_credentials = true},
#if SHMRPC_TEST_GRPC
      Grpc({.name = "grpc", .listen = "grpc:127.0.0.1:0", .expected = "grpc"}),
      Grpc({.name = "grpcunix", .listen = "grpc+unix:{directory}/{unique}", .expected = "grpc"}),
      Grpc({.name = "grpconeport", .listen = "127.0.0.1:0", .preference = TransportPreference::kGrpc, .expected = "grpc: asked for"}),
#endif
  };
  return *cases;
}
// clang-format on

}  // namespace shmrpc::conformance
