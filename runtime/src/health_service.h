#ifndef SHMRPC_RUNTIME_SRC_HEALTH_SERVICE_H_
#define SHMRPC_RUNTIME_SRC_HEALTH_SERVICE_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/health.h"
#include "shmrpc/health.pb.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server_context.h"
#include "shmrpc/server_reactor.h"
#include "shmrpc/service.h"

namespace shmrpc::internal {

// grpc.health.v1.Health: keeps the statuses, and serves them in the callback style, so that a Watch costs no thread.
// Thread-safe. Outlives its calls.
class ServedHealthService final : public HealthService, public Service {
 public:
  static constexpr std::string_view kName = "grpc.health.v1.Health";

  // `services`: what else the server serves.
  explicit ServedHealthService(const std::vector<Service*>& services);
  ~ServedHealthService() override = default;

  // HealthService
  void SetServingStatus(std::string_view service, bool serving) override;
  void SetAll(bool serving) override;

  // Nothing serves any more, whatever is set afterwards; Watches end. Idempotent.
  void Shutdown();

  // Service
  std::string_view ShmrpcServiceName() const override { return kName; }
  std::span<const ServiceMethod> ShmrpcMethods() const override;

 private:
  using Response = health::HealthCheckResponse;
  using Status = Response::ServingStatus;
  class Watcher;

  // What a Watch has to do next. It is decided under mutex_ and done without: a write may block for a little.
  enum class Step { kNothing, kWrite, kFinish };
  struct Job {
    Watcher* watcher;
    Step step;
  };

  // A name that is known or watched.
  struct Entry {
    Status status = Response::SERVICE_UNKNOWN;
    absl::flat_hash_set<Watcher*> watchers;
  };

  ServerReactor* Check(ServerContext* context, const health::HealthCheckRequest& request, Response* reply);
  ServerReactor* Watch(const health::HealthCheckRequest& request);

  // Makes kWrite or kFinish of a Watch the job of the caller, and nobody else's until it has been done.
  Step NextStep(Watcher* watcher) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Update(Entry* entry, Status status, std::vector<Job>* jobs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UpdateAll(Status status, std::vector<Job>* jobs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Do(const std::vector<Job>& jobs) ABSL_LOCKS_EXCLUDED(mutex_);

  Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_HEALTH_SERVICE_H_
