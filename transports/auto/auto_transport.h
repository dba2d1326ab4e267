#ifndef SHMRPC_TRANSPORTS_AUTO_AUTO_TRANSPORT_H_
#define SHMRPC_TRANSPORTS_AUTO_AUTO_TRANSPORT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "shmrpc/transport.h"

namespace shmrpc::autoselect {

// The transport for host:port and unix: addresses: connects to the address with a stream socket, and moves to shared
// memory when both sides are on one host and want to.
//
// Over TCP the server's hello names a Unix socket and a token; a client on the same host connects there, shows the
// token, and the two exchange the descriptors of their segments. If any of this fails, the TCP connection that is there
// already carries the calls, and the connection's TransportChoice says why. On a Unix socket the descriptors travel
// with the hellos themselves.
//
// This is where the transports meet: the one folder that knows of both shm/ and tcp/.
class AutoTransport final : public Transport {
 public:
  absl::string_view name() const override { return "auto"; }
  bool Handles(const Target& target) const override { return target.kind != Target::Kind::kInproc; }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override;
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                   CallHandler* handler) override;
};

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TRANSPORTS_AUTO_AUTO_TRANSPORT_H_
