#ifndef SHMRPC_TRANSPORTS_GRPC_GRPC_TRANSPORT_H_
#define SHMRPC_TRANSPORTS_GRPC_GRPC_TRANSPORT_H_

#include <memory>
#include <string>
#include <utility>

#include "shmrpc/grpc.h"
#include "shmrpc/transport.h"
#include "transports/auto/http2.h"

namespace shmrpc::grpc_transport {

// Both of what this library gives: the transport for grpc: addresses, and what makes others speak HTTP/2.
class GrpcTransport final : public Transport, public autoselect::Http2Transport {
 public:
  explicit GrpcTransport(GrpcOptions options) : options_(std::move(options)) {}

  // Transport
  std::string_view name() const override { return "grpc"; }
  bool Handles(const Target& target) const override { return target.kind == Target::Kind::kGrpc; }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override;
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                   CallHandler* handler) override;

  // Http2Transport
  std::unique_ptr<autoselect::Http2Server> NewServer(const ListenOptions& options, CallHandler* handler) override;
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options,
                                                      std::string reason) override;

 private:
  absl::StatusOr<std::unique_ptr<Connection>> ConnectTo(std::string grpc_target, const ConnectOptions& options,
                                                        std::string reason);

  const GrpcOptions options_;
};

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_GRPC_TRANSPORT_H_
