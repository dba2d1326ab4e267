#ifndef SHMRPC_OPTIONS_H_
#define SHMRPC_OPTIONS_H_

#include <cstddef>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace shmrpc {

// Message limits, in bytes of the encoded message.
inline constexpr size_t kDefaultMaxMessageBytes = size_t{16} << 20;
inline constexpr size_t kMaxMaxMessageBytes = (size_t{1} << 31) - 1;  // protobuf's own limit

// See ServerBuilder::SetMaxConcurrentCalls: what eight connections may have by default. A call in progress takes a few
// KiB beside its messages.
inline constexpr int kDefaultMaxConcurrentCalls = 131072;

// How long a peer may be silent while calls are in progress before the connection to it counts as lost; the peer is
// told, and makes itself heard. At least kMinKeepaliveTimeout; InfiniteDuration: for ever.
inline constexpr absl::Duration kDefaultKeepaliveTimeout = absl::Seconds(30);
inline constexpr absl::Duration kMinKeepaliveTimeout = absl::Milliseconds(100);

// What the clients of one server may take of it. docs/reliability.md has all limits of the library on one page, with
// what the side that meets one is told.
struct ConnectionLimits {
  // Connections that the whole server has at the same time, from their acceptance on: in total, of one user (by the
  // kernel's word for the other end of a Unix socket), and from one IP address (IPv6: one network of 64 bits). One more
  // is told why, and closed. A client that moves from TCP to shared memory has two for a moment. A connection whose
  // handlers still run counts until they return, unless its client is one of gRPC.
  // nullopt: 10,000, or three quarters of the descriptors that the process may have when the server starts
  // (RLIMIT_NOFILE), if that is less.
  std::optional<int> max_connections = std::nullopt;
  // nullopt: half of max_connections, rounded up.
  std::optional<int> max_connections_per_user = std::nullopt;
  std::optional<int> max_connections_per_address = std::nullopt;

  // How long a new connection may take to say who it is; then it is closed.
  absl::Duration handshake_timeout = absl::Seconds(5);

  // Calls in progress on one connection, from their arrival until their reply is sent, or until the handler returns if
  // they are cancelled. A call beyond it gets RESOURCE_EXHAUSTED and its handler does not run; nothing queues. See also
  // ServerBuilder::SetMaxConcurrentCalls.
  int max_calls_per_connection = 16384;

  // Bytes of replies and messages that are kept for one client that does not take them. Above hold_back_bytes nothing
  // more is received from it until there is room again; what grows then is what handlers that run already still send.
  // Above max_unsent_bytes the connection is ended.
  size_t hold_back_bytes = size_t{16} << 20;
  size_t max_unsent_bytes = size_t{1} << 30;

  // Shared memory that this server makes for all of its connections, 260 KiB for each. A client for which there is none
  // stays with the socket, and is told why.
  size_t max_shared_memory_bytes = size_t{1} << 30;
};

// Which way a connection may go.
enum class TransportPreference {
  kAuto,  // shared memory where possible, else the socket that the address names
  kShm,   // shared memory or fail
  kTcp,   // TCP, even to this host
  kUnix,  // a Unix socket without shared memory; for unix: and unix-abstract: addresses
  kGrpc,  // gRPC's protocol, for programs that link shmrpc::grpc and use its transports
};

// "auto", "shm", "tcp", "unix", "grpc": the values of SHMRPC_TRANSPORT. INVALID_ARGUMENT for anything else.
absl::StatusOr<TransportPreference> ParseTransportPreference(std::string_view text);
std::string_view TransportPreferenceName(TransportPreference preference);

// How a thread waits for its peer.
enum class WaitMode {
  kAdaptive,   // spins for as long as that has paid off lately, some tens of microseconds at most, then sleeps
  kLatency,    // spins for up to a millisecond, then sleeps
  kEfficient,  // sleeps at once
};

// "adaptive", "latency", "efficient". INVALID_ARGUMENT for anything else.
absl::StatusOr<WaitMode> ParseWaitMode(std::string_view text);
std::string_view WaitModeName(WaitMode mode);

}  // namespace shmrpc

#endif  // SHMRPC_OPTIONS_H_
