#ifndef SHMRPC_RUNTIME_SRC_CHANNEL_IMPL_H_
#define SHMRPC_RUNTIME_SRC_CHANNEL_IMPL_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/src/call_deadlines.h"
#include "runtime/src/client_retry.h"
#include "runtime/src/fork.h"
#include "runtime/src/log.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/mutex.h"
#include "shmrpc/peer.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/target.h"
#include "shmrpc/transport.h"

namespace shmrpc {

// How many asynchronous calls use a connection. Apart from the connection, because they may end after it: it is
// destroying the connection that ends them.
struct ConnectionLoad {
  std::atomic<int> asynchronous_calls{0};
  std::atomic<bool> retired{false};  // the channel has let go of the connection but for these calls
};

// A connection that a channel has made. Synchronous calls hold a reference for as long as they last; asynchronous ones
// only while they start, and are counted in `load`: so the end of the channel ends them.
struct EstablishedConnection {
  EstablishedConnection(std::unique_ptr<Connection> new_connection, const Target& its_address)
      : connection(std::move(new_connection)),
        address(its_address),
        peer(std::make_shared<const Peer>(connection->peer())) {}

  const std::unique_ptr<Connection> connection;
  const Target address;  // which of the channel's
  const std::shared_ptr<const Peer> peer;
  const std::shared_ptr<ConnectionLoad> load = std::make_shared<ConnectionLoad>();
  const SteadyTime since = SteadyTime::Now();
  std::atomic<bool> used{false};  // a call was started on it
};
using ConnectionPtr = std::shared_ptr<EstablishedConnection>;

// An asynchronous call that waits for the channel to be connected. Exactly one of the two events comes, with no lock
// held, unless RemoveWaiter took the waiter back.
class ConnectionWaiter {
 public:
  virtual ~ConnectionWaiter() = default;
  virtual void OnConnected(const ConnectionPtr& connection) = 0;  // counted in its load
  virtual void OnNotConnected(absl::Status status) = 0;

 private:
  friend class ChannelImpl;
  // The fields below are the channel's, guarded by its mutex.
  bool queued_ = false;
  bool pausing_ = false;  // queued_, but among those that pause
  bool wait_for_ready_ = false;
  uint64_t awaited_attempt_ = 0;
  std::list<std::shared_ptr<ConnectionWaiter>>::iterator position_;
};

// One of the addresses of a channel, and the way to go there; null only when the channel can never work.
struct ChannelAddress {
  Target target;
  std::shared_ptr<Transport> transport;
};

// The one connection of a channel, and how it comes to be:
//
//   idle ──a call──▶ connecting ──success──▶ ready ──lost──▶ idle
//                        │  ▲                  (lost at once, before any call was started on it ──▶ back-off)
//                 failure▼  │time passed, and a call came or waits
//                      back-off
//
// An attempt tries the addresses in their order until one connects, and gives each an equal share of the time that is
// left.
//
// Attempts run on a connector thread. It is started when an attempt is wanted, and lives while there is an attempt to
// make or to wait for: it sleeps through a back-off only when calls with wait_for_ready are waiting.
//
// Invariants, under mutex_:
//  1. connection_ is set if and only if state_ is kReady.
//  2. state_ is kConnecting only while the connector thread runs.
//  3. Asynchronous waiters are queued only while the connector thread runs; it serves all of them before it ends.
//
// Thread-safe. Connections are destroyed, and waiters told, with mutex_ released. Shared, because the connector thread
// may outlive the Channel: the callback of a call that it started may let go of the last reference to that.
class ChannelImpl final : public std::enable_shared_from_this<ChannelImpl> {
 public:
  // How long a caller is ready to wait.
  enum class Patience {
    kThisAttempt,  // fails at once during a back-off, otherwise with the attempt in progress
    kNextAttempt,  // fails with the attempt in progress or, during a back-off, with the next one
    kUntilReady,   // until there is a connection, unless there can never be one
  };

  // `status`: why the channel can never work, or OK; then there is an address.
  ChannelImpl(std::string target_text, absl::Status status, std::vector<ChannelAddress> addresses,
              ChannelOptions options);
  ~ChannelImpl();

  const absl::Status& status() const { return status_; }
  const std::string& target_text() const { return target_text_; }
  const ChannelOptions& options() const { return options_; }
  RetryThrottle& retry_throttle() { return retry_throttle_; }
  internal::CallDeadlines& deadlines() { return *deadlines_; }
  std::string DescribeTransport();

  // OK unless this is the child of a fork() that came after the channel.
  absl::Status CheckProcess() const {
    return fork_generation_ == internal::ForkGeneration() ? absl::OkStatus() : InheritedChannelError();
  }

  // The connection if there is one that works. Cheap: what every call begins with.
  bool GetIfReady(ConnectionPtr* connection) { return TakeReady(Use::kSynchronous, connection); }

  // See Channel.
  ChannelState GetState(bool try_to_connect);
  bool WaitForStateChange(ChannelState last_observed, SteadyTime deadline);

  // Waits for a connection, connecting if need be. `context` may be null; when its TryCancel is called, and
  // WakeWaiters then, the result is CANCELLED. DEADLINE_EXCEEDED when `deadline` passed.
  absl::Status WaitForConnection(SteadyTime deadline, Patience patience, const ClientContext* context,
                                 ConnectionPtr* connection);

  // The pause before a synchronous call's next attempt: OK at `end`; CANCELLED as WaitForConnection.
  absl::Status Pause(SteadyTime end, const ClientContext* context);

  // Makes those who wait in WaitForConnection or Pause look at their context.
  void WakeWaiters();

  // What an asynchronous call has to do: start now on `*connection`, in whose load it is counted; fail now with
  // `*failure`; or wait.
  enum class Readiness { kReady, kFailed, kMustWait };
  Readiness CheckReadiness(bool wait_for_ready, ConnectionPtr* connection, absl::Status* failure);

  // Like CheckReadiness, but puts the waiter into the queue when it has to wait.
  Readiness AddWaiter(std::shared_ptr<ConnectionWaiter> waiter, bool wait_for_ready, ConnectionPtr* connection,
                      absl::Status* failure);

  // For an asynchronous call that pauses before its next attempt: tells it, with OnNotConnected, if the channel goes,
  // unless it is taken back with RemoveWaiter. CANCELLED when the channel is gone already.
  absl::Status AddPausing(std::shared_ptr<ConnectionWaiter> waiter);

  // Takes a waiter back. False when it is not in the queue (any more), nor pausing.
  bool RemoveWaiter(ConnectionWaiter* waiter);

  // An asynchronous call that was counted in `load` is over.
  void EndAsynchronousCall(ConnectionLoad& load) {
    if (load.asynchronous_calls.fetch_sub(1) == 1 && load.retired.load()) DropRetired(load);
  }

  // Keeps a connection that is for one asynchronous call, and counts the call in its load: the connection goes with the
  // call, or with the Channel.
  void KeepForCall(const ConnectionPtr& connection);

  // The Channel is gone: gives up an attempt in progress, ends queued calls and calls in flight with CANCELLED.
  void Close();

 private:
  enum class State { kIdle, kConnecting, kReady, kBackoff };
  using WaiterList = std::list<std::shared_ptr<ConnectionWaiter>>;

  absl::Status InheritedChannelError() const;
  absl::Status DeadlineError() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status NotConnectedError() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // True when there is a connection that is not over; one that is over is dropped.
  enum class Use { kSynchronous, kAsynchronous };
  bool TakeReady(Use use, ConnectionPtr* connection) ABSL_LOCKS_EXCLUDED(mutex_);
  void DropLost(const ConnectionPtr& lost) ABSL_LOCKS_EXCLUDED(mutex_);
  void DropRetired(const ConnectionLoad& load) ABSL_LOCKS_EXCLUDED(mutex_);

  void SetState(State state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ChannelState PublicState() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops the connection if it is over.
  void NoticeLoss() ABSL_LOCKS_EXCLUDED(mutex_);

  // A back-off whose time is over becomes kIdle.
  void EndBackoffIfDue(SteadyTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartBackoff(absl::Status error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // kIdle becomes kConnecting, and the connector thread runs, for a caller who wants a connection. When the thread
  // cannot be started, that is a failed attempt.
  void WantConnection() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The number of the attempt that a caller who comes now waits for.
  uint64_t AwaitedAttempt() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return state_ == State::kConnecting ? attempts_begun_ : attempts_begun_ + 1;
  }
  // Whether the failure of the latest attempt is the answer for one who waits for `awaited_attempt`.
  bool HasFailed(uint64_t awaited_attempt, bool wait_for_ready) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return latest_failure_ >= awaited_attempt && (!wait_for_ready || absl::IsInvalidArgument(last_error_));
  }
  Readiness CheckReadinessLocked(bool wait_for_ready, absl::Status* failure) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The connector thread.
  void RunConnector();
  void Attempt() ABSL_LOCKS_EXCLUDED(mutex_);
  // The first of the addresses that connects. CANCELLED as soon as `interrupt_fd` is readable, UNAVAILABLE, or
  // INVALID_ARGUMENT when none of them can ever work.
  absl::StatusOr<ConnectionPtr> ConnectToFirst(int interrupt_fd) const;
  void ServeWaiters() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string target_text_;
  const absl::Status status_;
  const std::vector<ChannelAddress> addresses_;
  const ChannelOptions options_;
  RetryThrottle retry_throttle_;
  const std::shared_ptr<internal::CallDeadlines> deadlines_ = std::make_shared<internal::CallDeadlines>();
  const uint32_t fork_generation_ = internal::ForkGeneration();

  Mutex mutex_;
  CondVar changed_;  // anything that a waiting thread, in a call or the connector, waits for
  State state_ ABSL_GUARDED_BY(mutex_) = State::kIdle;
  uint64_t state_changes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  ConnectionPtr connection_ ABSL_GUARDED_BY(mutex_);
  // Connections that take no more calls but still have asynchronous ones in flight: a server that shuts down finishes
  // what it has accepted.
  std::vector<ConnectionPtr> retired_ ABSL_GUARDED_BY(mutex_);

  uint64_t attempts_begun_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t latest_failure_ ABSL_GUARDED_BY(mutex_) = 0;  // the number of the latest attempt that failed
  absl::Status last_error_ ABSL_GUARDED_BY(mutex_);      // of that attempt, or why the connection was lost
  int failures_in_a_row_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration backoff_ ABSL_GUARDED_BY(mutex_);   // the next one, before the random part
  SteadyTime next_attempt_ ABSL_GUARDED_BY(mutex_);  // kBackoff: not before

  WaiterList waiters_ ABSL_GUARDED_BY(mutex_);       // asynchronous calls, in the order in which they came
  WaiterList pausing_ ABSL_GUARDED_BY(mutex_);       // those that wait for nothing but the end of a pause
  int patient_threads_ ABSL_GUARDED_BY(mutex_) = 0;  // in WaitForConnection and waiting for the next attempt
  internal::LogLimiter connected_log_;
  internal::LogLimiter failed_log_;
  internal::LogLimiter lost_log_;
  bool connector_runs_ ABSL_GUARDED_BY(mutex_) = false;  // a detached thread: one that has ended keeps nothing
  int interrupt_fd_ ABSL_GUARDED_BY(mutex_) = -1;  // an eventfd while an attempt is in progress
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CHANNEL_IMPL_H_
