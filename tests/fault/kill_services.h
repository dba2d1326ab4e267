#ifndef SHMRPC_TESTS_FAULT_KILL_SERVICES_H_
#define SHMRPC_TESTS_FAULT_KILL_SERVICES_H_

// What the processes of the tests that kill one of them have in common: a service that notices messages that came only
// in part.

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "conformance.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"

namespace shmrpc::conformance {

// `size` bytes, each of which depends on its place and on the size: of a message that was torn they are others.
inline std::string PayloadOf(size_t size) {
  std::string payload(size, '\0');
  for (size_t i = 0; i < size; ++i) payload[i] = static_cast<char>(size * 31 + i * 7 + (i >> 8));
  return payload;
}

inline bool IsPayload(absl::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != static_cast<char>(bytes.size() * 31 + i * 7 + (i >> 8))) return false;
  }
  return true;
}

// Echoes the request's payload. Thread-safe.
class WholeEcho final : public Echo::Service {
 public:
  absl::Status Echo(ServerContext*, const EchoRequest* request, EchoReply* reply) override {
    calls_.Increment();
    if (!IsPayload(request->payload())) torn_.Increment();
    reply->set_payload(request->payload());
    return absl::OkStatus();
  }

  // Handlers that have run, and how many of them had a request that nobody has sent.
  const Counter& calls() const { return calls_; }
  const Counter& torn() const { return torn_; }

 private:
  Counter calls_;
  Counter torn_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_KILL_SERVICES_H_
