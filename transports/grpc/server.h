#ifndef SHMRPC_TRANSPORTS_GRPC_SERVER_H_
#define SHMRPC_TRANSPORTS_GRPC_SERVER_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "shmrpc/grpc.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/framed/unique_fd.h"
#include "transports/grpc/certificates.h"
#include "transports/grpc/completion_threads.h"

namespace shmrpc::grpc_transport {

class GrpcServerCall;

// A server of the gRPC library inside this process, which brings its calls to a CallHandler. It takes connections that
// somebody else has accepted. Thread-safe.
class GrpcServer {
 public:
  struct Options {
    std::function<std::shared_ptr<grpc::ServerCredentials>()> make_credentials;
    GrpcArguments arguments;
    std::shared_ptr<const ClientCertificates> client_certificates;  // null: clients need none
    std::optional<uid_t> peer_uid;                                  // of every client, where that is known
    ListenOptions listen;
    CallHandler* handler;
  };

  // UNAVAILABLE, or FAILED_PRECONDITION in the child of a fork() whose parent has used the gRPC library.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const Options& options);
  // As Shutdown(InfinitePast()).
  ~GrpcServer();

  // Takes a connected stream socket, of which nothing has been read but `read`. Hangs up while shutting down.
  void Accept(framed::UniqueFd socket, std::string_view read);

  // As Listener::Shutdown.
  void Shutdown(SteadyTime deadline);

 private:
  friend class GrpcServerCall;

  explicit GrpcServer(const Options& options) : options_(options) {}
  absl::Status Init();

  // What the gRPC library asks for each call. (Its interface with completion queues will not do: there, a call that
  // comes in the moment when Shutdown begins may be put on a list that nobody looks at any more, until its deadline.)
  class Service final : public grpc::CallbackGenericService {
   public:
    explicit Service(GrpcServer* server) : server_(server) {}
    grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override;

   private:
    GrpcServer* const server_;
  };

  // Whether the client behind the call may make any: UNAUTHENTICATED.
  absl::Status CheckClient(const grpc::CallbackServerContext& context) const;
  // A call has begun; false when there are to be no more.
  bool CallBegan() ABSL_LOCKS_EXCLUDED(mutex_);
  void CallEnded() ABSL_LOCKS_EXCLUDED(mutex_) { Leave(); }
  // CallHandler::OnCall is entered, by a call; and it has returned, maybe after that call is gone.
  void HandlerBegins() ABSL_LOCKS_EXCLUDED(mutex_);
  void HandlerEnded() ABSL_LOCKS_EXCLUDED(mutex_) { Leave(); }
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  std::shared_ptr<CompletionThreads> threads_;  // for what runs user code
  Service service_{this};
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;

  Mutex mutex_;
  CondVar changed_;
  enum class Phase { kServing, kDraining, kDown } phase_ ABSL_GUARDED_BY(mutex_) = Phase::kServing;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;  // call objects, and handlers that run: Shutdown waits for both
};

// The user's arguments, and what both sides set unless those do: what keeps memory bounded, and headers as large as
// this library allows. (Of an argument that is set twice the gRPC library takes the first.)
GrpcArguments WithDefaults(GrpcArguments arguments, const FlowControlOptions& flow_control);

// Adds what makes a peer that is silent for this long be given up, while calls are in progress.
void AddKeepalive(absl::Duration timeout, GrpcArguments* arguments);

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_SERVER_H_
