#ifndef SHMRPC_TRANSPORTS_AUTO_AUTO_TRANSPORT_H_
#define SHMRPC_TRANSPORTS_AUTO_AUTO_TRANSPORT_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "shmrpc/transport.h"
#include "transports/auto/http2.h"

namespace shmrpc::autoselect {

// The transport for host:port and unix: addresses: connects to the address with a stream socket, and moves to shared
// memory when both sides are on one host and want to.
//
// Over TCP the server's hello names a Unix socket and a token; a client on the same host connects there, shows the
// token, and the two exchange the descriptors of their segments. If any of this fails, the TCP connection that is there
// already carries the calls, and the connection's TransportChoice says why. On a Unix socket the descriptors travel
// with the hellos themselves.
//
// Who speaks HTTP/2 on such an address is served, and reached, through an Http2Transport, if there is one.
//
// This is where the transports meet: the one folder that knows of both shm/ and tcp/.
class AutoTransport final : public Transport {
 public:
  // `http2` may be null.
  explicit AutoTransport(std::shared_ptr<Http2Transport> http2 = nullptr) : http2_(std::move(http2)) {}

  std::string_view name() const override { return "auto"; }
  bool Handles(const Target& target) const override {
    return target.kind != Target::Kind::kInproc && target.kind != Target::Kind::kGrpc;
  }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override;
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                   CallHandler* handler) override;

 private:
  const std::shared_ptr<Http2Transport> http2_;
};

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TRANSPORTS_AUTO_AUTO_TRANSPORT_H_
