#ifndef SHMRPC_TESTS_CONFORMANCE_RELAY_SERVICE_H_
#define SHMRPC_TESTS_CONFORMANCE_RELAY_SERVICE_H_

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "conformance.shmrpc.pb.h"
#include "shmrpc/mutex.h"
#include "shmrpc/shmrpc.h"

namespace shmrpc::conformance {

// A handler that waits for a call of its own, to a server that may do the same. Thread-safe.
class RelayService final : public Relay::Service {
 public:
  // Where calls are passed on to. Before the first call.
  void SetNext(std::shared_ptr<Channel> next) {
    MutexLock lock(&mutex_);
    next_ = std::move(next);
  }

  absl::Status Pass(ServerContext* context, const PassRequest* request, PassReply* reply) override {
    if (request->further() == 0) return absl::OkStatus();
    PassRequest passed_on;
    passed_on.set_further(request->further() - 1);
    const std::unique_ptr<ClientContext> client_context = ClientContext::FromServerContext(*context);
    Relay::Stub stub(next());
    const absl::Status status = stub.Pass(client_context.get(), passed_on, reply);
    reply->set_passed(reply->passed() + 1);
    return status;
  }

 private:
  std::shared_ptr<Channel> next() const {
    MutexLock lock(&mutex_);
    return next_;
  }

  mutable Mutex mutex_;
  std::shared_ptr<Channel> next_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_RELAY_SERVICE_H_
