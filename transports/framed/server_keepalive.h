#ifndef SHMRPC_TRANSPORTS_FRAMED_SERVER_KEEPALIVE_H_
#define SHMRPC_TRANSPORTS_FRAMED_SERVER_KEEPALIVE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "runtime/src/deadline_timer.h"
#include "shmrpc/mutex.h"

namespace shmrpc::framed {

// Keeps the time for the keepalive of all sessions of a listener: one timer, which runs only while one of them has
// something in progress. One for all, because with every thread in a handler a request may lie in a session that has
// not received it, and whose client wants to hear of the server nevertheless. Held by shared pointers. Thread-safe.
class ServerKeepalive final : public std::enable_shared_from_this<ServerKeepalive> {
 public:
  struct Look {
    bool active = false;                               // look again after `period`
    absl::Duration period = absl::InfiniteDuration();  // the shortest of any session
  };

  // `look` looks after each session, on KeepaliveTimer's thread.
  explicit ServerKeepalive(std::function<Look()> look) : look_(std::move(look)) {}
  ~ServerKeepalive() { Stop(); }

  // A session has come that wants to be looked after as often as that.
  void Add(absl::Duration period);

  // A session has something in progress. Cheap.
  void NoteActivity() {
    if (!armed_.load(std::memory_order_relaxed)) Arm();
  }

  // Afterwards `look` neither runs nor will. Not from inside it.
  void Stop();

 private:
  void Arm();
  void OnTimer(uint64_t generation);
  void Schedule() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<Look()> look_;
  std::atomic<bool> armed_{false};  // changed with mutex_
  Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration period_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  bool looking_ ABSL_GUARDED_BY(mutex_) = false;     // timer_ is running look_, and schedules the next one itself
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;  // of timer_; an earlier one that still runs does nothing
  internal::DeadlineTimer::Handle timer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SERVER_KEEPALIVE_H_
