#ifndef SHMRPC_TESTS_CONFORMANCE_ECHO_SERVICE_H_
#define SHMRPC_TESTS_CONFORMANCE_ECHO_SERVICE_H_

#include "absl/status/status.h"
#include "conformance.shmrpc.pb.h"
#include "sync.h"

namespace shmrpc::conformance {

// The service that every conformance test calls. It does what the request says (see conformance.proto) and counts what
// happened, so that a test in the server's process can wait for it instead of sleeping. Thread-safe.
class EchoService final : public Echo::Service {
 public:
  absl::Status Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) override;
  absl::Status Nothing(ServerContext* context, const Empty* request, Empty* reply) override;

  // Calls whose handler has begun, whose hold has begun, and whose hold ended because the call was cancelled.
  const Counter& started() const { return started_; }
  const Counter& held() const { return held_; }
  const Counter& cancelled() const { return cancelled_; }

  // Lets the held calls go on. Calls that come later are not held any more.
  void Release() { released_.Set(); }

 private:
  // Returns false when the call was cancelled, unless that makes no difference.
  bool Hold(const ServerContext& context, bool regardless);

  Counter started_;
  Counter held_;
  Counter cancelled_;
  Event released_;
};

// Converts between the .proto's form of a status and absl's.
absl::Status ToAbsl(const Status& status);
Status ToProto(const absl::Status& status);

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_ECHO_SERVICE_H_
