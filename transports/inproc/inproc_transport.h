#ifndef SHMRPC_TRANSPORTS_INPROC_INPROC_TRANSPORT_H_
#define SHMRPC_TRANSPORTS_INPROC_INPROC_TRANSPORT_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "shmrpc/transport.h"

namespace shmrpc {

// The transport of "inproc:name": client and server in one process. A connection is a pair of rings, as between two
// processes, so that everything is as it is there, but for the hellos: messages are serialised and parsed, nothing is
// shared between the two sides, and what is under way is limited in the same way. Meant for tests and for programs that
// put a service beside its client for now.
//
// Names belong to the process: all objects of this class see the same. A name is free again once its listener begins
// to shut down.
class InprocTransport final : public Transport {
 public:
  std::string_view name() const override { return "inproc"; }
  bool Handles(const Target& target) const override { return target.kind == Target::Kind::kInproc; }

  // Never blocks. UNAVAILABLE when nobody listens under that name, or the system has no memory or descriptors left.
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override;

  // ALREADY_EXISTS when the name is taken.
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                   CallHandler* handler) override;
};

}  // namespace shmrpc

#endif  // SHMRPC_TRANSPORTS_INPROC_INPROC_TRANSPORT_H_
