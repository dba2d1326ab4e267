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

  // A connection whose hellos have been exchanged. `may_spin`: see SpinPolicy.
  void Add(std::unique_ptr<Link> link, bool may_spin, const FlowControlOptions& granted_by_peer, Peer peer);

  // As Listener::Shutdown. The listener adds no more before it calls this; what comes nevertheless is hung up on.
  void Shutdown(absl::Time deadline);

 private:
  void Over(ServerSession* session);

  const ListenOptions options_;
  CallHandler* const handler_;
  std::shared_ptr<Poller> poller_;

  Mutex mutex_;
  CondVar changed_;  // a session has ended, or the shutdown is complete
  enum class Phase { kServing, kShuttingDown, kDown } phase_ ABSL_GUARDED_BY(mutex_) = Phase::kServing;
  absl::flat_hash_map<ServerSession*, std::shared_ptr<ServerSession>> sessions_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<ServerSession>> ending_ ABSL_GUARDED_BY(mutex_);  // over, but with calls in progress
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSIONS_H_
