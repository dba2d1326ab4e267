#include "transports/grpc/server.h"

#include <fcntl.h>
#include <grpc/grpc_security_constants.h>
#include <grpc/impl/codegen/grpc_types.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <climits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/src/log.h"
#include "shmrpc/steady_time.h"
#include "transports/grpc/client_connection.h"
#include "transports/grpc/server_call.h"

namespace shmrpc::grpc_transport {
namespace {

// Headers hold this library's metadata and statuses at their largest, percent-encoded and in base 64.
constexpr int kMaxHeaderBytes = 128 * 1024;

// A message that is too long by more than this is refused by the gRPC library, before it has come in; others by this
// one, which says what to do.
constexpr size_t kFarTooLongBytes = 1024 * 1024;

}  // namespace

GrpcArguments WithDefaults(GrpcArguments arguments, const FlowControlOptions& flow_control) {
  arguments.emplace(GRPC_ARG_MAX_METADATA_SIZE, kMaxHeaderBytes);
  // The limits are this library's, for each call, and it checks them itself.
  arguments.emplace(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1);
  arguments.emplace(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1);
  // The gRPC library would let a stream's window grow with what the link carries. The window asked for is kept, less
  // than all of it, because messages are read ahead and wait to be sent on either side of it.
  arguments.emplace(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.emplace(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, static_cast<int>(flow_control.stream_bytes / 2));
  return arguments;
}

void AddKeepalive(absl::Duration timeout, GrpcArguments* arguments) {
  if (timeout == absl::InfiniteDuration()) return;
  // A ping after half of it, and the other half for the answer.
  const int half_ms = static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(timeout) / 2, INT_MAX));
  arguments->emplace(GRPC_ARG_KEEPALIVE_TIME_MS, half_ms);
  arguments->emplace(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, half_ms);
  arguments->emplace(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // as many as it takes
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const Options& options) {
  absl::Status usable = BeginUse();
  if (!usable.ok()) return usable;
  std::unique_ptr<GrpcServer> server(new GrpcServer(options));
  absl::Status status = server->Init();
  if (!status.ok()) return status;
  return server;
}

absl::Status GrpcServer::Init() {
  absl::StatusOr<std::unique_ptr<CompletionThreads>> threads = CompletionThreads::Start(
      "shmrpc-grpc-srv", std::make_unique<grpc::CompletionQueue>(), options_.listen.max_threads);
  if (!threads.ok()) return threads.status();
  threads_ = *std::move(threads);
  grpc::ServerBuilder builder;
  GrpcArguments arguments = options_.arguments;
  arguments.emplace(
      GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
      static_cast<int>(std::min<size_t>(options_.listen.max_receive_message_bytes + kFarTooLongBytes, INT_MAX)));
  arguments = WithDefaults(std::move(arguments), options_.listen.flow_control);
  AddKeepalive(options_.listen.keepalive_timeout, &arguments);
  arguments.emplace(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);  // clients may ping as often as they like, too
  for (const auto& [name, value] : arguments) {
    std::visit([&builder, name = name](const auto& each) { builder.AddChannelArgument(name, each); }, value);
  }
  builder.RegisterCallbackGenericService(&service_);
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, options_.make_credentials());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return absl::UnavailableError("the gRPC library could not start a server; its log on standard error says why");
  }
  return absl::OkStatus();
}

GrpcServer::~GrpcServer() { Shutdown(SteadyTime::InfinitePast()); }

grpc::ServerGenericBidiReactor* GrpcServer::Service::CreateReactor(grpc::GenericCallbackServerContext* context) {
  return GrpcServerCall::Begin(server_, context);
}

absl::Status GrpcServer::CheckClient(const grpc::CallbackServerContext& context) const {
  if (options_.client_certificates == nullptr) return absl::OkStatus();
  const std::shared_ptr<const grpc::AuthContext> client = context.auth_context();
  const auto first = [&client](const char* property) {
    const std::vector<grpc::string_ref> values = client->FindPropertyValues(property);
    return values.empty() ? std::string_view() : std::string_view(values[0].data(), values[0].size());
  };
  absl::Status status = options_.client_certificates->Check(first(GRPC_X509_PEM_CERT_PROPERTY_NAME),
                                                            first(GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME),
                                                            first(GRPC_SSL_SESSION_REUSED_PROPERTY) == "true");
  if (!status.ok()) {
    static internal::LogLimiter limiter;
    internal::LogWarningLimited(
        limiter, absl::StrCat("refused a call from ", DecodePeer(context.peer()), ": ", status.message()));
  }
  return status;
}

bool GrpcServer::CallBegan() {
  MutexLock lock(&mutex_);
  ++calls_;
  return phase_ == Phase::kServing;
}

void GrpcServer::HandlerBegins() {
  MutexLock lock(&mutex_);
  ++calls_;
}

void GrpcServer::Leave() {
  MutexLock lock(&mutex_);
  if (--calls_ == 0) changed_.SignalAll();
}

void GrpcServer::Accept(framed::UniqueFd socket, std::string_view read) {
  MutexLock lock(&mutex_);  // the acceptor is there only as long as the server is not shut down
  if (phase_ != Phase::kServing) return;
  const int flags = fcntl(socket.get(), F_GETFL);
  if (flags < 0 || fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK) != 0) return;
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.fd = socket.Release();
  if (!read.empty()) {
    const grpc::Slice slice(read.data(), read.size());
    connection.read_buffer = grpc::ByteBuffer(&slice, 1);
  }
  acceptor_->HandleNewConnection(&connection);
}

void GrpcServer::Shutdown(SteadyTime deadline) {
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kServing) {
      while (phase_ != Phase::kDown) changed_.Wait(&mutex_);
      return;
    }
    phase_ = Phase::kDraining;
  }
  if (server_ != nullptr) {
    server_->Shutdown(ToGrpcTime(deadline));
    MutexLock lock(&mutex_);
    while (calls_ > 0) changed_.Wait(&mutex_);
  }
  server_ = nullptr;
  acceptor_ = nullptr;
  threads_ = nullptr;
  MutexLock lock(&mutex_);
  phase_ = Phase::kDown;
  changed_.SignalAll();
}

}  // namespace shmrpc::grpc_transport
