#ifndef SHMRPC_GRPC_H_
#define SHMRPC_GRPC_H_

// gRPC's protocol for clients and servers of this library: the library shmrpc::grpc, which links the gRPC library.
//
//   shmrpc::ServerBuilder(shmrpc::TransportsWithGrpc()).Listen("0.0.0.0:50051")…       everybody on one port
//   shmrpc::Channel::Create("grpc:dns:///backend:443", {}, shmrpc::TransportsWithGrpc(options))
//
// With these transports
//  - a server's host:port and unix: addresses serve gRPC clients, in any language, beside those of this library;
//  - a client that finds a gRPC server at such an address speaks gRPC with it (Channel::transport() says so);
//  - there are addresses for gRPC alone. Clients write `grpc:` and a target in gRPC's own syntax, with its name
//    resolution and load balancing: grpc:dns:///host:port, grpc:ipv4:10.0.0.1:443,10.0.0.2:443. Servers listen on
//    grpc:host:port. For both, grpc+unix:path is a Unix socket.
//
// Options apply to grpc: addresses, and to others only when gRPC is asked for or found there; TLS on the server to
// grpc: addresses alone.
//
// Messages go through the gRPC library without a copy on the way out. Compressed ones are understood.
// FlowControlOptions hold for each call; for all calls of a connection together HTTP/2 has its own rules.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "shmrpc/transport.h"

namespace shmrpc {

// Arguments for the gRPC library, by their names there: {"grpc.keepalive_time_ms", 10000}. See its grpc_types.h.
using GrpcArguments = std::map<std::string, std::variant<int, std::string>>;

// All texts are PEM.
struct GrpcTlsClientOptions {
  std::string root_certificates;  // whom servers must be certified by; empty: by one of the system's authorities
  // For servers that demand a certificate (mutual TLS): both or none.
  std::string certificate_chain;
  std::string private_key;
  // The name to look for in the server's certificate; empty: the one in the target.
  std::string server_name;
};

struct GrpcTlsServerOptions {
  std::string certificate_chain;
  std::string private_key;
  // Whom clients must be certified by (mutual TLS); empty: clients need no certificate. The calls of a client that has
  // none, or not a good one, end with UNAUTHENTICATED and the reason.
  std::string client_root_certificates;
};

struct GrpcClientOptions {
  std::optional<GrpcTlsClientOptions> tls;  // none: plain text
  std::string load_balancing_policy;        // "pick_first" (which is what the empty one means), "round_robin"
  std::string service_config_json;          // for when the name's resolver has none; may name a policy as well
  GrpcArguments arguments;                  // these go before what the library sets itself
};

struct GrpcServerOptions {
  std::optional<GrpcTlsServerOptions> tls;  // none: plain text
  GrpcArguments arguments;
};

struct GrpcOptions {
  GrpcClientOptions client;
  GrpcServerOptions server;
};

// The transport for grpc: addresses alone.
std::shared_ptr<Transport> NewGrpcTransport(GrpcOptions options = {});

// DefaultTransports() and gRPC.
TransportSet TransportsWithGrpc(GrpcOptions options = {});

}  // namespace shmrpc

#endif  // SHMRPC_GRPC_H_
