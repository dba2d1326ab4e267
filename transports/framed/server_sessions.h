#ifndef SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSIONS_H_
#define SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSIONS_H_

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
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
  ~ServerSessions() { Shutdown(absl::InfinitePast()); }

  // Before anything else.
  absl::Status Init();

  // For what else the listener has to wait for. Null until Init; stopped once shut down.
  Poller* poller() const { return poller_.get(); }

  // A connection whose hellos have been exchanged. `may_spin`: see SpinPolicy. One that comes too late is told that its
  // calls are not processed.
  void Add(std::unique_ptr<Link> link, bool may_spin, const FlowControlOptions& granted_by_peer, Peer peer);

  // As Listener::Shutdown. The listener adds no more before it calls this; what comes nevertheless is turned away.
  void Shutdown(absl::Time deadline);

 private:
  using SessionList = std::vector<std::shared_ptr<ServerSession>>;

  void Over(ServerSession* session);
  // The steps of Shutdown: until all have drained, or `deadline`; and until all clients have hung up.
  void WaitForDrain(const SessionList& sessions, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void WaitForFarewell(const SessionList& sessions, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  bool IsOver(const ServerSession* session) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return sessions_.find(session) == sessions_.end();
  }

  const ListenOptions options_;
  CallHandler* const handler_;
  std::unique_ptr<Poller> poller_;

  Mutex mutex_;
  CondVar changed_;  // a session has drained or ended, or the shutdown is complete
  enum class Phase { kServing, kShuttingDown, kDown } phase_ ABSL_GUARDED_BY(mutex_) = Phase::kServing;
  absl::flat_hash_map<const ServerSession*, std::shared_ptr<ServerSession>> sessions_ ABSL_GUARDED_BY(mutex_);
  SessionList ending_ ABSL_GUARDED_BY(mutex_);  // over, but with calls in progress
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSIONS_H_
