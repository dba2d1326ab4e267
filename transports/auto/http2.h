#ifndef SHMRPC_TRANSPORTS_AUTO_HTTP2_H_
#define SHMRPC_TRANSPORTS_AUTO_HTTP2_H_

// What speaks HTTP/2, and so gRPC's protocol, where the other side does. The main library has nothing of the kind: it
// only sees that somebody speaks HTTP/2, and then needs one of these, which a library that has it (shmrpc::grpc) gives
// to its AutoTransport.

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::autoselect {

// What a client that speaks HTTP/2 begins with (RFC 9113, section 3.4).
inline constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Serves the connections of one listener whose clients speak HTTP/2. Thread-safe.
class Http2Server {
 public:
  virtual ~Http2Server() = default;

  // Takes a connection, of which `read` has been read. Closes it when it cannot be served, and when it is over; until
  // then the socket keeps its number.
  virtual void Serve(framed::UniqueFd socket, const Peer& peer, std::string_view read) = 0;

  // As Listener::Shutdown.
  virtual void Shutdown(SteadyTime deadline) = 0;
};

// Thread-safe.
class Http2Transport {
 public:
  virtual ~Http2Transport() = default;

  // `handler` outlives what is returned, which costs next to nothing until the first connection comes.
  virtual std::unique_ptr<Http2Server> NewServer(const ListenOptions& options, CallHandler* handler) = 0;

  // As Transport::Connect, to an address of a kind that AutoTransport handles. `reason` is for the TransportChoice.
  virtual absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options,
                                                              std::string reason) = 0;
};

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TRANSPORTS_AUTO_HTTP2_H_
