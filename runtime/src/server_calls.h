#ifndef SHMRPC_RUNTIME_SRC_SERVER_CALLS_H_
#define SHMRPC_RUNTIME_SRC_SERVER_CALLS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server_interceptor.h"

namespace shmrpc::internal {

// What all calls of one server share: its limits and interceptors, and how many calls there are. Thread-safe. Outlives
// the calls.
class ServerCalls {
 public:
  ServerCalls(std::vector<ServerInterceptor> interceptors, size_t max_send_message_bytes,
              std::optional<int> max_concurrent_calls)
      : interceptors_(std::move(interceptors)),
        max_send_message_bytes_(max_send_message_bytes),
        max_concurrent_calls_(max_concurrent_calls.value_or(0)) {}
  ServerCalls(const ServerCalls&) = delete;
  ServerCalls& operator=(const ServerCalls&) = delete;

  const std::vector<ServerInterceptor>& interceptors() const { return interceptors_; }
  size_t max_send_message_bytes() const { return max_send_message_bytes_; }

  // Counts a call that begins; RESOURCE_EXHAUSTED, and not counted, when there are as many as the server may run.
  // Nothing is ordered by this counter, hence relaxed.
  absl::Status Enter() {
    if (max_concurrent_calls_ == 0) return absl::OkStatus();
    if (concurrent_calls_.fetch_add(1, std::memory_order_relaxed) < max_concurrent_calls_) return absl::OkStatus();
    Leave();
    return TooManyCalls();
  }

  // Before the client can learn that the call has ended: its next call must not find this one still there.
  void Leave() {
    if (max_concurrent_calls_ != 0) concurrent_calls_.fetch_sub(1, std::memory_order_relaxed);
  }

 private:
  absl::Status TooManyCalls() const;

  const std::vector<ServerInterceptor> interceptors_;
  const size_t max_send_message_bytes_;
  const int max_concurrent_calls_;  // 0: no limit

  // Apart from what each call reads: threads on all CPUs write it.
  alignas(64) std::atomic<int> concurrent_calls_{0};
};

// The calls of one method whose handlers do not block a thread. The listeners wait for handlers, but what goes on after
// a handler has returned only the calls themselves know. Thread-safe. Outlives the calls.
class AsynchronousCalls {
 public:
  AsynchronousCalls() = default;
  AsynchronousCalls(const AsynchronousCalls&) = delete;
  AsynchronousCalls& operator=(const AsynchronousCalls&) = delete;

  // Begin comes while a handler runs; End is the last that a call does.
  void Begin() { calls_.fetch_add(1, std::memory_order_relaxed); }
  void End();

  // Returns when there are none. After the listeners have been shut down, so that none begins. Idempotent.
  void Wait();

  // How many there are, at this moment.
  int64_t count() const { return calls_.load(std::memory_order_relaxed) - (waiting_.load() ? 0 : 1); }

 private:
  // One more than there are, until somebody waits: so whoever makes it zero knows that there is somebody to tell. Apart
  // from what each call reads.
  alignas(64) std::atomic<int64_t> calls_{1};
  std::atomic<bool> waiting_{false};
  Mutex mutex_;
  CondVar changed_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_SERVER_CALLS_H_
