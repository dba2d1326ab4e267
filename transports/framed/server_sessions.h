#ifndef SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSIONS_H_
#define SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSIONS_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/framed/link.h"
#include "transports/framed/poller.h"
#include "transports/framed/server_session.h"

namespace shmrpc::framed {

// The sessions of one listener, and the threads that look after them. Thread-safe, but for Init.
class ServerSessions {
 public:
  // `handler` outlives this object.
  ServerSessions(const ListenOptions& options, CallHandler* handler) : options_(options), handler_(handler) {}
  ~ServerSessions() { Shutdown(SteadyTime::InfinitePast()); }

  // Before anything else.
  absl::Status Init();

  // For what else the listener has to wait for. Null until Init; stopped once shut down.
  Poller* poller() const { return poller_.get(); }

  // A connection whose hellos have been exchanged. One that comes too late is told that its calls are not processed.
  // `place`: as for ServerSession.
  struct Agreed {
    bool may_spin = false;  // see SpinPolicy
    FlowControlOptions granted_by_peer;
    std::optional<absl::Duration> peers_keepalive_timeout = std::nullopt;  // none: the peer takes no part in keepalive
  };
  void Add(std::unique_ptr<Link> link, const Agreed& agreed, Peer peer,
           internal::ConnectionLimiter::PlacePtr place = nullptr);

  // As Listener::Shutdown. The listener adds no more before it calls this; what comes nevertheless is turned away.
  void Shutdown(SteadyTime deadline);

 private:
  using SessionList = std::vector<std::shared_ptr<ServerSession>>;

  void Over(ServerSession* session);
  // Forgets those of ending_ whose calls have ended; true when none is left. What it has looked at goes to `seen`, to
  // be released without the lock: it may have become the last reference.
  bool ForgetEnded(SessionList* seen) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The steps of Shutdown: until all have drained, or `deadline`; and until all clients have hung up.
  void WaitForDrain(const SessionList& sessions, SteadyTime deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void WaitForFarewell(const SessionList& sessions, SteadyTime deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  bool IsOver(const ServerSession* session) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return sessions_.find(session) == sessions_.end();
  }

  const ListenOptions options_;
  CallHandler* const handler_;
  std::shared_ptr<Poller> poller_;

  Mutex mutex_;
  CondVar changed_;  // a session has ended, or the shutdown is complete
  enum class Phase { kServing, kShuttingDown, kDown } phase_ ABSL_GUARDED_BY(mutex_) = Phase::kServing;
  absl::flat_hash_map<const ServerSession*, std::shared_ptr<ServerSession>> sessions_ ABSL_GUARDED_BY(mutex_);
  // Over, but with calls in progress. They hold themselves until the last of these has ended (see ServerSession), so
  // that a connection's memory and descriptor do not stay any longer than that.
  std::vector<std::weak_ptr<ServerSession>> ending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSIONS_H_
