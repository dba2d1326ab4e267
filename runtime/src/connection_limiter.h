#ifndef SHMRPC_RUNTIME_SRC_CONNECTION_LIMITER_H_
#define SHMRPC_RUNTIME_SRC_CONNECTION_LIMITER_H_

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "runtime/src/memory_budget.h"
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
    absl::optional<uid_t> user = absl::nullopt;  // at the other end of a Unix socket
    std::string address = {};                    // of the host, or of its network; empty: not an IP connection
    std::vector<std::string> wider = {};         // networks that this one is in, the narrowest first; for IPv6
    // The client has another connection, which it will give up for this one. Such ones may come beyond max_connections,
    // or nobody could move when it is reached: a sixteenth more, and two at least.
    bool second = false;
  };

  // Who has a connection that can give way to another. Thread-safe.
  class Tenant {
   public:
    virtual ~Tenant() = default;
    // Since when the connection has been without a call, as far as that was seen when this was asked before (`now` at
    // the latest). None: it has a call, or is over. Called with the limiter's lock.
    virtual absl::optional<SteadyTime> IdleSince(SteadyTime now) = 0;
    // Ends the connection if it is still without a call: its place is free when this returns.
    virtual void GiveWay() = 0;
  };

  // What one connection takes, until this object goes.
  class Place final {
   public:
    Place(std::shared_ptr<ConnectionLimiter> limiter, Origin origin)
        : limiter_(std::move(limiter)), origin_(std::move(origin)) {}
    ~Place() {
      if (kept_) return;
      limiter_->SetTenant(this, {});
      limiter_->Leave(origin_, shared_memory_bytes_);
      limiter_->memory_->Return(kConnectionBytes);
    }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    // From now on the connection may have to give way.
    void SetTenant(std::weak_ptr<Tenant> tenant) { limiter_->SetTenant(this, std::move(tenant)); }

    // Takes so much of the server's shared memory as well; RESOURCE_EXHAUSTED when there is not that much left. Not
    // thread-safe.
    absl::Status TakeSharedMemory(size_t bytes);

    // For a connection that somebody takes over who does not tell when it ends: it counts until `socket`, which is open
    // now, is closed, and not for as long as this object. To be called once, without shared memory.
    void KeepUntilClosed(int socket);

   private:
    friend class ConnectionLimiter;
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

  // What a transport has once for the whole server, for as long as somebody holds it: `make` makes it when nobody does.
  // One T for each `kind`, which is a string literal.
  template <typename T, typename Make>
  std::shared_ptr<T> Shared(const char* kind, Make make) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    std::shared_ptr<void> shared = shared_[kind].lock();
    if (shared == nullptr) {
      shared = make();
      shared_[kind] = shared;
    }
    return std::static_pointer_cast<T>(shared);
  }

  // What ServerBuilder::SetMaxConcurrentCalls says, for transports that have calls before the handler sees them.
  void SetMaxConcurrentCalls(int limit) { max_concurrent_calls_ = limit; }  // before anything else
  int max_concurrent_calls() const { return max_concurrent_calls_; }

  // What all connections together may make the server keep.
  const std::shared_ptr<MemoryBudget>& memory() const { return memory_; }

 private:
  // Which of those that have a place could make room by giving way.
  struct Whose {
    absl::optional<uid_t> user;
    std::string network;
    bool Includes(const Origin& origin) const;
  };
  absl::Status CheckRoom(const Origin& origin, Whose* whose) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetTenant(const Place* place, std::weak_ptr<Tenant> tenant) ABSL_LOCKS_EXCLUDED(mutex_);
  // The one that is to give way: null when there is none. What it has looked at goes to `seen`, to be released without
  // the lock.
  Tenant* LongestIdle(const Whose& whose, std::vector<std::shared_ptr<Tenant>>* seen)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int MostFrom(const Origin& origin, size_t network) const;
  void Leave(const Origin& origin, size_t shared_memory_bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void LeaveLocked(const Origin& origin) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeSharedMemory(size_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void KeepUntilClosed(int socket, const Origin& origin) ABSL_LOCKS_EXCLUDED(mutex_);
  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int max_connections_;
  const int max_per_user_;
  const int max_per_address_;
  const size_t max_shared_memory_bytes_;
  const std::shared_ptr<MemoryBudget> memory_;
  int max_concurrent_calls_ = kDefaultMaxConcurrentCalls;

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
  std::vector<Kept> kept_ ABSL_GUARDED_BY(mutex_);                             // no more than there may be connections
  size_t next_kept_ ABSL_GUARDED_BY(mutex_) = 0;                               // where a short look goes on
  SteadyTime next_look_ ABSL_GUARDED_BY(mutex_) = SteadyTime::InfinitePast();  // at all of them

  absl::flat_hash_map<std::string, std::weak_ptr<void>> shared_ ABSL_GUARDED_BY(mutex_);

  absl::flat_hash_map<const Place*, std::weak_ptr<Tenant>> tenants_ ABSL_GUARDED_BY(mutex_);
  SteadyTime next_look_at_tenants_ ABSL_GUARDED_BY(mutex_) = SteadyTime::InfinitePast();
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_CONNECTION_LIMITER_H_
