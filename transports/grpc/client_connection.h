#ifndef SHMRPC_TRANSPORTS_GRPC_CLIENT_CONNECTION_H_
#define SHMRPC_TRANSPORTS_GRPC_CLIENT_CONNECTION_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "shmrpc/grpc.h"
#include "shmrpc/transport.h"

namespace shmrpc::grpc_transport {

// What a connection is made of.
struct ClientConnectionOptions {
  std::string target;  // in gRPC's syntax
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  grpc::ChannelArguments arguments;
  TransportChoice choice;
  absl::Duration keepalive_timeout;         // that the arguments ask for; for the words of errors
  std::optional<GrpcTlsClientOptions> tls;  // what the credentials are made of; for the words of errors
};

// A channel of the gRPC library that is connected. It stands for a Connection while it is READY, and no longer: whether
// to connect again, and when, is shmrpc's channel to decide, which makes a new one. (Behind one there may be several
// connections; it is READY while one of them is.)
//
// As Transport::Connect. FAILED_PRECONDITION in the child of a fork() whose parent has used the gRPC library.
absl::StatusOr<std::unique_ptr<Connection>> ConnectGrpc(const ClientConnectionOptions& connection_options,
                                                        const ConnectOptions& options);

// OK, or why the gRPC library cannot be used in this process: its threads and locks do not survive fork(). Remembers
// that it is used from now on.
absl::Status BeginUse();

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_CLIENT_CONNECTION_H_
