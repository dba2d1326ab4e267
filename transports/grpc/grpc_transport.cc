#include "transports/grpc/grpc_transport.h"

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "shmrpc/steady_time.h"
#include "transports/auto/auto_listener.h"
#include "transports/auto/auto_transport.h"
#include "transports/grpc/certificates.h"
#include "transports/grpc/client_connection.h"
#include "transports/grpc/http2_server.h"
#include "transports/grpc/server.h"
#include "transports/inproc/inproc_transport.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc {
namespace grpc_transport {
namespace {

std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const GrpcClientOptions& options) {
  if (!options.tls.has_value()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = options.tls->root_certificates;
  ssl.pem_cert_chain = options.tls->certificate_chain;
  ssl.pem_private_key = options.tls->private_key;
  return grpc::SslCredentials(ssl);
}

std::shared_ptr<grpc::ServerCredentials> MakeCredentials(const GrpcServerOptions& options) {
  if (!options.tls.has_value()) return grpc::InsecureServerCredentials();
  // The gRPC library would just end the connection of a client whose certificate it does not accept. ClientCertificates
  // checks it instead, and the client is told.
  grpc::SslServerCredentialsOptions ssl(options.tls->client_root_certificates.empty()
                                            ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                            : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_BUT_DONT_VERIFY);
  ssl.pem_root_certs = options.tls->client_root_certificates;
  ssl.pem_key_cert_pairs.push_back({options.tls->private_key, options.tls->certificate_chain});
  return grpc::SslServerCredentials(ssl);
}

bool IsPem(const std::string& text) { return absl::StrContains(text, "-----BEGIN "); }

// The gRPC library only logs what is wrong with these.
absl::Status CheckTls(const GrpcClientOptions& options) {
  if (!options.tls.has_value()) return absl::OkStatus();
  const GrpcTlsClientOptions& tls = *options.tls;
  if (!tls.root_certificates.empty() && !IsPem(tls.root_certificates)) {
    return absl::InvalidArgumentError("the option root_certificates is not PEM");
  }
  if (tls.certificate_chain.empty() != tls.private_key.empty()) {
    return absl::InvalidArgumentError(
        "GrpcTlsClientOptions has one of certificate_chain and private_key; a client needs both or none");
  }
  if (!tls.certificate_chain.empty() && (!IsPem(tls.certificate_chain) || !IsPem(tls.private_key))) {
    return absl::InvalidArgumentError("the option certificate_chain or private_key is not PEM");
  }
  return absl::OkStatus();
}

absl::Status CheckTls(const GrpcServerOptions& options) {
  if (!options.tls.has_value()) return absl::OkStatus();
  const GrpcTlsServerOptions& tls = *options.tls;
  if (!IsPem(tls.certificate_chain) || !IsPem(tls.private_key)) {
    return absl::InvalidArgumentError("GrpcTlsServerOptions needs certificate_chain and private_key, as PEM");
  }
  return absl::OkStatus();
}

// As the gRPC library writes it: in a URI, whose path has only some of the characters that are in names (RFC 3986,
// section 3.3), and the others as % and two digits.
std::string ToGrpcTarget(const Target& target) {
  if (target.kind == Target::Kind::kHostPort) return absl::StrCat("dns:///", target.ToString());
  if (target.kind != Target::Kind::kUnix && target.kind != Target::Kind::kUnixAbstract) return target.ToString();
  std::string grpc_target = target.kind == Target::Kind::kUnix ? "unix:" : "unix-abstract:";
  if (absl::StartsWith(target.name, "//")) grpc_target += "//";
  for (const char c : target.name) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._~!$&'()*+,;=:@/", c)) {
      grpc_target += c;
    } else {
      absl::StrAppend(&grpc_target, "%", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    }
  }
  return grpc_target;
}

// Whether a target of the gRPC library is on this host, as far as that can be told without looking a name up.
bool IsOnThisHost(const std::string& grpc_target) {
  const absl::StatusOr<std::vector<Target>> targets = Target::ParseList(grpc_target);
  return targets.ok() && std::all_of(targets->begin(), targets->end(), [](const Target& target) {
           if (target.kind != Target::Kind::kHostPort) return target.kind != Target::Kind::kGrpc;
           const std::string_view name = absl::StripSuffix(target.host, ".");
           if (absl::EqualsIgnoreCase(name, "localhost") || absl::EndsWithIgnoreCase(name, ".localhost")) return true;
           const std::optional<tcp::SocketAddress> address = tcp::SocketAddress::FromLiteral(target.host, target.port);
           return address.has_value() && tcp::IsOnThisHost(*address);
         });
}

// What a server can listen on: one address in this library's words.
absl::StatusOr<Target> ListenTarget(const Target& target) {
  absl::StatusOr<Target> inner = Target::Parse(target.name);
  if (!inner.ok()) return inner.status();
  if (inner->kind == Target::Kind::kInproc || inner->kind == Target::Kind::kGrpc) {
    return absl::InvalidArgumentError(absl::StrCat(
        target.ToString(), ": a server listens on grpc:host:port, grpc+unix:path or grpc:unix-abstract:name"));
  }
  return inner;
}

// A listener for gRPC alone, under the name that it was asked for.
class GrpcListener final : public Listener {
 public:
  explicit GrpcListener(std::unique_ptr<Listener> listener) : listener_(std::move(listener)) {
    address_.kind = Target::Kind::kGrpc;
    address_.name = listener_->address().ToString();
    address_.original = address_.ToString();
  }
  const Target& address() const override { return address_; }
  void Shutdown(SteadyTime deadline) override { listener_->Shutdown(deadline); }

 private:
  const std::unique_ptr<Listener> listener_;
  Target address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> GrpcTransport::Connect(const Target& target,
                                                                   const ConnectOptions& options) {
  return ConnectTo(target.name, options, "");
}

absl::StatusOr<std::unique_ptr<Connection>> GrpcTransport::Connect(const Target& target, const ConnectOptions& options,
                                                                   std::string reason) {
  return ConnectTo(ToGrpcTarget(target), options, std::move(reason));
}

absl::StatusOr<std::unique_ptr<Connection>> GrpcTransport::ConnectTo(std::string grpc_target,
                                                                     const ConnectOptions& options,
                                                                     std::string reason) {
  const GrpcClientOptions& client = options_.client;
  absl::Status valid = BeginUse();  // before anything of the gRPC library is made
  valid.Update(CheckTls(client));
  if (!valid.ok()) return valid;
  ClientConnectionOptions connection;
  connection.target = std::move(grpc_target);
  connection.credentials = MakeCredentials(client);
  connection.tls = client.tls;
  connection.choice = {"grpc", std::move(reason)};
  grpc::ChannelArguments& arguments = connection.arguments;
  // Otherwise channels to the same server share a connection, and their back-off with it.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (!client.load_balancing_policy.empty()) arguments.SetLoadBalancingPolicyName(client.load_balancing_policy);
  if (!client.service_config_json.empty()) arguments.SetServiceConfigJSON(client.service_config_json);
  if (client.tls.has_value() && !client.tls->server_name.empty()) {
    arguments.SetSslTargetNameOverride(client.tls->server_name);
  }
  GrpcArguments all = WithDefaults(client.arguments, options.flow_control);
  // Servers of other libraries hang up on clients that ping more often than every few minutes: only who asks pings.
  if (options.keepalive_timeout != kDefaultKeepaliveTimeout) AddKeepalive(options.keepalive_timeout, &all);
  connection.keepalive_timeout = options.keepalive_timeout;
  // A proxy (http_proxy) is for servers elsewhere, and the way to one that has been found without it is known.
  const bool found = !connection.choice.reason.empty() && options.transport != TransportPreference::kGrpc;
  if (found || IsOnThisHost(connection.target)) all.emplace(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  for (const auto& [name, value] : all) {
    if (std::holds_alternative<int>(value)) {
      arguments.SetInt(name, std::get<int>(value));
    } else {
      arguments.SetString(name, std::get<std::string>(value));
    }
  }
  return ConnectGrpc(connection, options);
}

std::unique_ptr<autoselect::Http2Server> GrpcTransport::NewServer(const ListenOptions& options, CallHandler* handler) {
  GrpcServer::Options server;
  server.make_credentials = [] { return grpc::InsecureServerCredentials(); };
  server.arguments = options_.server.arguments;
  server.listen = options;
  server.handler = handler;
  return std::make_unique<LazyHttp2Server>(server);
}

absl::StatusOr<std::unique_ptr<Listener>> GrpcTransport::Listen(const Target& target, const ListenOptions& options,
                                                                CallHandler* handler) {
  absl::Status valid = CheckTls(options_.server);
  if (!valid.ok()) return valid;
  absl::StatusOr<Target> inner = ListenTarget(target);
  if (!inner.ok()) return inner.status();
  GrpcServer::Options server;
  server.make_credentials = [options = options_.server] { return MakeCredentials(options); };
  server.arguments = options_.server.arguments;
  server.listen = options;
  server.handler = handler;
  if (options_.server.tls.has_value() && !options_.server.tls->client_root_certificates.empty()) {
    auto certificates = ClientCertificates::Create(options_.server.tls->client_root_certificates);
    if (!certificates.ok()) return certificates.status();
    server.client_certificates = *std::move(certificates);
  }
  ListenOptions listen = options;
  listen.transport = TransportPreference::kGrpc;
  absl::StatusOr<std::unique_ptr<Listener>> listener =
      autoselect::AutoListener::StartHttp2Only(*inner, listen, handler, std::make_unique<LazyHttp2Server>(server));
  if (!listener.ok()) return listener.status();
  return std::make_unique<GrpcListener>(*std::move(listener));
}

}  // namespace grpc_transport

std::shared_ptr<Transport> NewGrpcTransport(GrpcOptions options) {
  return std::make_shared<grpc_transport::GrpcTransport>(std::move(options));
}

TransportSet TransportsWithGrpc(GrpcOptions options) {
  auto grpc = std::make_shared<grpc_transport::GrpcTransport>(std::move(options));
  return {std::make_shared<InprocTransport>(), grpc, std::make_shared<autoselect::AutoTransport>(grpc)};
}

}  // namespace shmrpc
