#ifndef SHMRPC_TRANSPORTS_GRPC_SERVER_H_
#define SHMRPC_TRANSPORTS_GRPC_SERVER_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/types/optional.h"
#include "runtime/src/connection_limiter.h"
#include "shmrpc/grpc.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/framed/unique_fd.h"
#include "transports/grpc/certificates.h"
#include "transports/grpc/completion_threads.h"

namespace shmrpc::grpc_transport {

class GrpcServerCall;

// What the gRPC servers behind all listeners of one server share: how much they may take of its memory, and how many of
// their calls wait for their requests. Thread-safe.
class GrpcShare {
 public:
  // `limiter` may be null; then everything is bounded by defaults, and nothing is shared.
  static std::shared_ptr<GrpcShare> Of(const std::shared_ptr<internal::ConnectionLimiter>& limiter);
  explicit GrpcShare(const std::shared_ptr<internal::ConnectionLimiter>& limiter);

  // For all servers: the gRPC library's own memory for connections and calls, half of the budget.
  const grpc::ResourceQuota& quota() const { return quota_; }

  // A call has begun. RESOURCE_EXHAUSTED: it is to be refused, but Ends nevertheless.
  absl::Status Begin();
  void End() { Return(kCallBytes); }
  // Its request is waited for: RESOURCE_EXHAUSTED when as many are as there may be calls. With OK, StopWaiting.
  absl::Status BeginWaiting();
  void StopWaiting() { waiting_.fetch_sub(1, std::memory_order_relaxed); }

  // For messages that were read and wait for the application. They are taken in any case; RESOURCE_EXHAUSTED: that is
  // more than the share, and a call that can be ended should be.
  absl::Status Take(size_t bytes);
  void Return(size_t bytes);

  // Much has been freed that the gRPC library had.
  void TrimSoon() { memory_->TrimSoon(); }

 private:
  // What a call takes, generously: the gRPC library's part, this one's, and its headers.
  static constexpr size_t kCallBytes = 16 * 1024;

  absl::Status TooMuch() const;

  const std::shared_ptr<internal::MemoryBudget> memory_;
  const size_t most_bytes_;  // half of the budget
  const int most_waiting_;
  grpc::ResourceQuota quota_;
  std::atomic<size_t> bytes_{0};
  std::atomic<int> waiting_{0};
};

// A server of the gRPC library inside this process, which brings its calls to a CallHandler. It takes connections that
// somebody else has accepted. Thread-safe.
class GrpcServer {
 public:
  struct Options {
    std::function<std::shared_ptr<grpc::ServerCredentials>()> make_credentials;
    GrpcArguments arguments;
    std::shared_ptr<const ClientCertificates> client_certificates;  // null: clients need none
    absl::optional<uid_t> peer_uid;                                 // of every client, where that is known
    ListenOptions listen;
    CallHandler* handler;
    absl::optional<size_t> max_compressed_message_bytes;
    std::shared_ptr<CompletionThreads> threads;  // those that run handlers, for all servers of a listener
    std::shared_ptr<GrpcShare> share;
  };

  // UNAVAILABLE, or FAILED_PRECONDITION in the child of a fork() whose parent has used the gRPC library.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const Options& options);
  // As Shutdown(InfinitePast()).
  ~GrpcServer();

  // Takes a connected stream socket, of which nothing has been read but `read`. Hangs up while shutting down.
  void Accept(framed::UniqueFd socket, absl::string_view read);

  // As Listener::Shutdown.
  void Shutdown(SteadyTime deadline);

 private:
  friend class GrpcServerCall;

  explicit GrpcServer(const Options& options) : options_(options), share_(options.share), threads_(options.threads) {}
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
  const std::shared_ptr<GrpcShare> share_;
  std::shared_ptr<CompletionThreads> threads_;  // for what runs user code
  Service service_{this};
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;

  Mutex mutex_;
  CondVar changed_;
  enum class Phase { kServing, kDraining, kDown } phase_ ABSL_GUARDED_BY(mutex_) = Phase::kServing;
  int most_calls_ ABSL_GUARDED_BY(mutex_) = 0;  // since there were none
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;       // call objects, and handlers that run: Shutdown waits for both
};

// The user's arguments, and what both sides set unless those do: what keeps memory bounded, and headers as large as
// this library allows. (Of an argument that is set twice the gRPC library takes the first.)
// `max_compressed_message_bytes`: see GrpcServerOptions.
GrpcArguments WithDefaults(GrpcArguments arguments, const FlowControlOptions& flow_control,
                           absl::optional<size_t> max_compressed_message_bytes);

// Adds what makes a peer that is silent for this long be given up, while calls are in progress.
void AddKeepalive(absl::Duration timeout, GrpcArguments* arguments);

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_SERVER_H_
