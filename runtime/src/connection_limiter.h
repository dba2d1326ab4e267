#ifndef SHMRPC_RUNTIME_SRC_CONNECTION_LIMITER_H_
#define SHMRPC_RUNTIME_SRC_CONNECTION_LIMITER_H_

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shmrpc/mutex.h"
#include "shmrpc/options.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {

// Counts the connections of one server, and what they share, and says when there are as many as ConnectionLimits
// allows. Thread-safe. Shared by the server's listeners and by the places that it has given out, which outlive them.
class ConnectionLimiter final : public std::enable_shared_from_this<ConnectionLimiter> {
 public:
  // What is known of a connection when it is accepted.
  struct Origin {
    std::optional<uid_t> user = std::nullopt;  // at the other end of a Unix socket
    std::string address = {};                  // of the host, or of its network; empty: not an IP connection
    // The client has another connection, which it will give up for this one. Such ones may come beyond max_connections,
    // or nobody could move when it is reached; but not more of them than there may be connections.
    bool second = false;
  };

  // What one connection takes, until this object goes.
  class Place final {
   public:
    Place(std::shared_ptr<ConnectionLimiter> limiter, Origin origin)
        : limiter_(std::move(limiter)), origin_(std::move(origin)) {}
    ~Place() {
      if (!kept_) limiter_->Leave(origin_, shared_memory_bytes_);
    }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    // Takes so much of the server's shared memory as well; RESOURCE_EXHAUSTED when there is not that much left. Not
    // thread-safe.
    absl::Status TakeSharedMemory(size_t bytes);

    // For a connection that somebody takes over who does not tell when it ends: it counts until `socket`, which is open
    // now, is closed, and not for as long as this object. To be called once, without shared memory.
    void KeepUntilClosed(int socket);

   private:
    const std::shared_ptr<ConnectionLimiter> limiter_;
    const Origin origin_;
    size_t shared_memory_bytes_ = 0;
    bool kept_ = false;
  };
  using PlacePtr = std::shared_ptr<Place>;

  // The descriptors that the process may have are looked up here, for what `limits` leaves open.
  explicit ConnectionLimiter(const ConnectionLimits& limits);

  // A place for one more connection, or RESOURCE_EXHAUSTED with the name of the limit, its value and what to do.
  absl::StatusOr<PlacePtr> Admit(Origin origin) ABSL_LOCKS_EXCLUDED(mutex_);

  int connections() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status CheckRoom(const Origin& origin) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Leave(const Origin& origin, size_t shared_memory_bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void LeaveLocked(const Origin& origin) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeSharedMemory(size_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void KeepUntilClosed(int socket, const Origin& origin) ABSL_LOCKS_EXCLUDED(mutex_);
  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int max_connections_;
  const int max_per_user_;
  const int max_per_address_;
  const size_t max_shared_memory_bytes_;

  mutable Mutex mutex_;
  int connections_ ABSL_GUARDED_BY(mutex_) = 0;
  // Without those that have none.
  absl::flat_hash_map<uid_t, int> users_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, int> addresses_ ABSL_GUARDED_BY(mutex_);
  size_t shared_memory_bytes_ ABSL_GUARDED_BY(mutex_) = 0;

  // Connections that others close. The number of a descriptor that was closed may be given out again, but what is open
  // then is another socket, with another inode.
  struct Kept {
    int socket;
    dev_t device;
    ino_t inode;
    Origin origin;
  };
  std::vector<Kept> kept_ ABSL_GUARDED_BY(mutex_);  // no more than there may be connections
  SteadyTime next_look_ ABSL_GUARDED_BY(mutex_) = SteadyTime::InfinitePast();
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_CONNECTION_LIMITER_H_
