#ifndef SHMRPC_TRANSPORTS_FRAMED_FRAMED_CONNECTION_H_
#define SHMRPC_TRANSPORTS_FRAMED_FRAMED_CONNECTION_H_

#include <memory>

#include "absl/status/statusor.h"
#include "shmrpc/transport.h"
#include "transports/framed/link.h"
#include "transports/framed/session.h"

namespace shmrpc::framed {

// A client's connection over `link`, whose hellos have been exchanged. UNAVAILABLE when the system lacks something.
absl::StatusOr<std::unique_ptr<Connection>> MakeConnection(std::unique_ptr<Link> link, const SessionOptions& options,
                                                           TransportChoice choice, Peer peer);

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_FRAMED_CONNECTION_H_
