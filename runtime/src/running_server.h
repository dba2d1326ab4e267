#ifndef SHMRPC_RUNTIME_SRC_RUNNING_SERVER_H_
#define SHMRPC_RUNTIME_SRC_RUNNING_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/src/fork.h"
#include "runtime/src/health_service.h"
#include "runtime/src/server_call.h"
#include "runtime/src/server_calls.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server.h"
#include "shmrpc/target.h"
#include "shmrpc/transport.h"

namespace shmrpc::internal {

// What ServerBuilder starts: owns the listeners, and brings the calls that they hand over to their methods.
class RunningServer final : public Server, private CallHandler {
 public:
  // `generic_service`, which serves what the others do not have, and `health` may be null.
  RunningServer(const std::vector<Service*>& services, Service* generic_service,
                std::unique_ptr<ServedHealthService> health, std::vector<ServerInterceptor> interceptors,
                size_t max_send_message_bytes, int max_concurrent_calls);
  ~RunningServer() override;

  // Before the server is given to anybody.
  absl::Status Listen(Transport& transport, const Target& target, const ListenOptions& options);

  // Server
  const std::vector<Target>& addresses() const override { return addresses_; }
  void Shutdown(absl::Time system_deadline) override;
  HealthService* health() override { return health_.get(); }
  void Wait() override;

 private:
  // CallHandler
  void OnCall(ServerCallPtr call, const IncomingMessage* request) override;
  const ResolvedMethod* ResolveMethod(std::string_view method) const override;
  bool NeedsRequest(std::string_view method) const override;
  const google::protobuf::Descriptor* request_type(std::string_view method) const override;

  void AddService(Service* service, ServerCalls* calls);
  // `method` is static data.
  RegisteredMethod MakeMethod(Service* service, const ServiceMethod& method, ServerCalls* calls);

  // Whether this thread is in a handler or reaction of this server; then `*method` is which.
  bool IsInOwnHandler(std::string* method) const;
  bool IsOwn(const RegisteredMethod* method) const;
  // "2 handlers of /x/Y, 1 handler of /x/Z", or what else it can be.
  std::string DescribeRunning() const;
  class ShutdownWatch;

  // Why `path`, which comes from the client and may be anything, is not served.
  absl::Status UnknownMethod(std::string_view path) const;

  const uint32_t fork_generation_ = ForkGeneration();
  std::vector<std::string> service_names_;
  std::vector<std::unique_ptr<MessagePool>> message_pools_;
  std::vector<std::unique_ptr<AsynchronousCalls>> asynchronous_calls_;
  absl::flat_hash_map<std::string_view, RegisteredMethod> methods_;  // constant once the first listener exists
  std::optional<RegisteredMethod> generic_method_;                   // constant, too
  const std::unique_ptr<ServedHealthService> health_;
  ServerCalls calls_;
  // Apart, because they must not take the places of the others: a Watch would do so for ever.
  ServerCalls health_calls_;

  std::vector<Target> addresses_;

  Mutex mutex_;
  CondVar shut_down_changed_;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread shutdown_for_handler_ ABSL_GUARDED_BY(mutex_);  // runs the Shutdown that a handler has called

  std::vector<std::unique_ptr<Listener>> listeners_;  // the last member: destroyed while all else is still there
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_RUNNING_SERVER_H_
