#ifndef SHMRPC_TESTS_FAULT_KILL_SERVICES_H_
#define SHMRPC_TESTS_FAULT_KILL_SERVICES_H_

// What the processes of the tests that kill one of them have in common: a service that notices messages that came only
// in part.

#include <cstddef>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "conformance.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"

namespace shmrpc::conformance {

// A part of random bytes, another one for each size, and so checked as fast as memory is compared.
constexpr size_t kMaxPayload = size_t{1} << 20;
inline absl::string_view PayloadOf(size_t size) {
  constexpr size_t kParts = 1009;
  static const auto* const bytes = [] {
    auto* const random_bytes = new std::string(kMaxPayload + kParts, '\0');
    std::minstd_rand random;
    for (char& byte : *random_bytes) byte = static_cast<char>(random() >> 8);
    return random_bytes;
  }();
  return absl::string_view(*bytes).substr(size % kParts, size);
}

// Whether somebody has sent this: not of a message that came only in part.
inline bool IsPayload(absl::string_view bytes) {
  return bytes.size() <= kMaxPayload && bytes == PayloadOf(bytes.size());
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
