#ifndef SHMRPC_TESTS_CONFORMANCE_STREAM_SERVICES_H_
#define SHMRPC_TESTS_CONFORMANCE_STREAM_SERVICES_H_

#include <memory>
#include <string>

#include "conformance.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"

namespace shmrpc::conformance {

// What the handlers of all styles count. Thread-safe.
struct StreamCounters {
  Counter started;     // calls whose handler has begun
  Counter items_sent;  // items that the server's Write has taken
  Counter items_read;
  Counter cancelled;  // handlers that saw their call cancelled
  Counter ended;      // handlers, or reactors, that are gone
};

enum class ServerStyle { kSynchronous, kCallback, kCoroutine };
inline constexpr ServerStyle kServerStyles[] = {ServerStyle::kSynchronous, ServerStyle::kCallback,
                                                ServerStyle::kCoroutine};
std::string StyleName(ServerStyle style);

// The Streams service in one of the styles. `counters` outlives it.
std::unique_ptr<shmrpc::Service> MakeStreamService(ServerStyle style, StreamCounters* counters);

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_STREAM_SERVICES_H_
