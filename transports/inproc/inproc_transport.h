#ifndef SHMRPC_TRANSPORTS_INPROC_INPROC_TRANSPORT_H_
#define SHMRPC_TRANSPORTS_INPROC_INPROC_TRANSPORT_H_

#include <memory>

#include "shmrpc/transport.h"

namespace shmrpc {

// The transport of "inproc:name": client and server in one process. Messages are serialised and parsed as on every
// other way, so that nothing is shared between the two sides. Meant for tests and for programs that put a service
// beside its client for now; also the reference for what a transport has to do, with nothing in it about bytes on
// wires.
//
// Names belong to the process: all objects of this class see the same. A name is free again once its listener begins
// to shut down. Calls waiting for a handler's thread are not limited, because each is somebody's call in this process.
class InprocTransport final : public Transport {
 public:
  absl::string_view name() const override { return "inproc"; }
  bool Handles(const Target& target) const override { return target.kind == Target::Kind::kInproc; }

  // Never blocks. UNAVAILABLE when nobody listens under that name.
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override;

  // ALREADY_EXISTS when the name is taken.
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                   CallHandler* handler) override;
};

}  // namespace shmrpc

#endif  // SHMRPC_TRANSPORTS_INPROC_INPROC_TRANSPORT_H_
