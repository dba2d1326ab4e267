#ifndef SHMRPC_OPTIONS_H_
#define SHMRPC_OPTIONS_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

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
  // kernel's word for the other end of a Unix socket), and from one IP address. All addresses of this host are one
  // address. Of IPv6 a network of 48 bits counts as an address; one of 56 bits in it may have three quarters of that,
  // one of 64 bits half. When there is no place, the connection that has been without a call for longest gives way to
  // the new one, if there is such a connection (not of gRPC clients); otherwise the new one is told why, and closed. A
  // client that moves from TCP to shared memory has two for a moment. A connection whose handlers still run counts
  // until they return, unless its client is one of gRPC.
  // nullopt: 10,000, or as many as three quarters of the descriptors that the process may have when the server starts
  // (RLIMIT_NOFILE) are enough for, whatever the clients do.
  absl::optional<int> max_connections = absl::nullopt;
  // nullopt: half of max_connections, rounded up.
  absl::optional<int> max_connections_per_user = absl::nullopt;
  absl::optional<int> max_connections_per_address = absl::nullopt;

  // How long a new connection may take to say who it is; then it is closed.
  absl::Duration handshake_timeout = absl::Seconds(5);

  // Calls in progress on one connection, from their arrival until their reply is sent, or until the handler returns if
  // they are cancelled. A call beyond it gets RESOURCE_EXHAUSTED and its handler does not run; nothing queues. See also
  // ServerBuilder::SetMaxConcurrentCalls.
  int max_calls_per_connection = 16384;

  // Bytes of replies and messages that are kept for one client that does not take them. Above hold_back_bytes nothing
  // more is received from it until there is room again; what grows then is what handlers that run already still send.
  // Above max_unsent_bytes the connection is ended; so is one that has been held back for as long as
  // ServerBuilder::SetKeepaliveTimeout says while its client took not one byte.
  size_t hold_back_bytes = size_t{1} << 20;
  size_t max_unsent_bytes = size_t{1} << 30;

  // Shared memory that this server makes for all of its connections, 260 KiB for each. A client for which there is none
  // stays with the socket, and is told why.
  size_t max_shared_memory_bytes = size_t{1} << 30;

  // Private memory that this server keeps for all of its clients together, counted as it is taken from the allocator:
  // replies and messages that wait to be sent, requests and messages that have come in part, or that wait for their
  // handlers, or whose calls are in progress, what is kept of calls and connections, names of methods. At three
  // quarters of it connections end that hold most and of whose clients nothing moves; a connection that holds more than
  // its share begins no call. At seven eighths no call begins at all (RESOURCE_EXHAUSTED, its handler does not run), no
  // connection is accepted, and connections end that hold most, whatever their clients do. Half of it is what the gRPC
  // library may take for gRPC clients. What handlers allocate themselves is theirs.
  // nullopt: a quarter of what this process may still have when the server starts, by the least of the machine, its
  // memory control groups and RLIMIT_AS; at least 64 MiB.
  absl::optional<size_t> max_memory_bytes = absl::nullopt;

  // A connection that has been without a call for this long is closed; a channel makes another one when it needs it.
  // InfiniteDuration: none is closed for that (but see max_connections). At least kMinConnectionIdle.
  absl::Duration max_connection_idle = absl::InfiniteDuration();
  static constexpr absl::Duration kMinConnectionIdle = absl::Milliseconds(100);
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
