#ifndef SHMRPC_OPTIONS_H_
#define SHMRPC_OPTIONS_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace shmrpc {

// Message limits, in bytes of the encoded message.
inline constexpr size_t kDefaultMaxMessageBytes = size_t{16} << 20;
inline constexpr size_t kMaxMaxMessageBytes = (size_t{1} << 31) - 1;  // protobuf's own limit

// How long a peer may be silent while calls are in progress before the connection to it counts as lost; the peer is
// told, and makes itself heard. At least kMinKeepaliveTimeout; InfiniteDuration: for ever.
inline constexpr absl::Duration kDefaultKeepaliveTimeout = absl::Seconds(30);
inline constexpr absl::Duration kMinKeepaliveTimeout = absl::Milliseconds(100);

// Which way a connection may go.
enum class TransportPreference {
  kAuto,  // shared memory where possible, else the socket that the address names
  kShm,   // shared memory or fail
  kTcp,   // TCP, even to this host
  kUnix,  // a Unix socket without shared memory; for unix: and unix-abstract: addresses
  kGrpc,  // gRPC's protocol, for programs that link shmrpc::grpc and use its transports
};

// "auto", "shm", "tcp", "unix", "grpc": the values of SHMRPC_TRANSPORT. INVALID_ARGUMENT for anything else.
absl::StatusOr<TransportPreference> ParseTransportPreference(absl::string_view text);
absl::string_view TransportPreferenceName(TransportPreference preference);

// How a thread waits for its peer.
enum class WaitMode {
  kAdaptive,   // spins for as long as that has paid off lately, some tens of microseconds at most, then sleeps
  kLatency,    // spins for up to a millisecond, then sleeps
  kEfficient,  // sleeps at once
};

// "adaptive", "latency", "efficient". INVALID_ARGUMENT for anything else.
absl::StatusOr<WaitMode> ParseWaitMode(absl::string_view text);
absl::string_view WaitModeName(WaitMode mode);

}  // namespace shmrpc

#endif  // SHMRPC_OPTIONS_H_
