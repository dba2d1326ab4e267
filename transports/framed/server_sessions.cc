#include "transports/framed/server_sessions.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace shmrpc::framed {
namespace {

// How a shutdown waits for calls: they do not tell when they end, because who did so could outlive what it tells. The
// first ones end at once.
class Steps {
 public:
  absl::Time Next() {
    length_ = std::min(2 * length_, absl::Milliseconds(10));
    return absl::Now() + length_;
  }

 private:
  absl::Duration length_ = absl::Microseconds(50);
};

}  // namespace

absl::Status ServerSessions::Init() {
  absl::StatusOr<std::unique_ptr<Poller>> poller = Poller::Create("shmrpc-server", options_.max_threads);
  if (!poller.ok()) return poller.status();
  poller_ = *std::move(poller);
  return absl::OkStatus();
}

void ServerSessions::Add(std::unique_ptr<Link> link, const Agreed& agreed, Peer peer) {
  ServerSession::Options options{
      .handler = handler_,
      .max_receive_message_bytes = options_.max_receive_message_bytes,
      .session = {.spin_policy = SpinPolicy(options_.wait_mode, agreed.may_spin),
                  .granted_by_peer = agreed.granted_by_peer,
                  .granted_to_peer = options_.flow_control,
                  .keepalive_timeout = options_.keepalive_timeout,
                  .peers_keepalive_timeout = agreed.peers_keepalive_timeout},
      .peer = std::move(peer),
      .on_over = [this](ServerSession* session) { Over(session); },
      .keepalive = keepalive_,
  };
  auto session = std::make_shared<ServerSession>(std::move(link), poller_, std::move(options));
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kServing) return;  // the client sees the connection close
    sessions_.emplace(session.get(), session);
  }
  keepalive_->Add(session->keepalive_period());
  if (!session->Start().ok()) session->Close();
}

ServerKeepalive::Look ServerSessions::LookForKeepalive() {
  std::vector<std::shared_ptr<ServerSession>> sessions;
  {
    MutexLock lock(&mutex_);
    sessions.reserve(sessions_.size());
    for (auto& [key, session] : sessions_) sessions.push_back(session);
  }
  ServerKeepalive::Look look;
  for (const std::shared_ptr<ServerSession>& session : sessions) {
    look.period = std::min(look.period, session->keepalive_period());
    if (session->OnKeepaliveTick()) look.active = true;
  }
  return look;
}

void ServerSessions::Over(ServerSession* session) {
  std::vector<std::shared_ptr<ServerSession>> idle;  // destroyed without the lock
  MutexLock lock(&mutex_);
  auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  ending_.push_back(std::move(found->second));
  sessions_.erase(found);
  const auto first_idle =
      std::partition(ending_.begin(), ending_.end(), [](const auto& ending) { return !ending->IsIdle(); });
  std::move(first_idle, ending_.end(), std::back_inserter(idle));
  ending_.erase(first_idle, ending_.end());
  changed_.SignalAll();
}

void ServerSessions::Shutdown(absl::Time deadline) {
  std::vector<std::shared_ptr<ServerSession>> sessions;
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kServing) {
      while (phase_ != Phase::kDown) changed_.Wait(&mutex_);
      return;
    }
    phase_ = Phase::kShuttingDown;
    for (auto& [key, session] : sessions_) sessions.push_back(session);
  }
  for (auto& session : sessions) session->BeginDrain();
  {
    MutexLock lock(&mutex_);
    const auto drained = [&] {
      return std::all_of(sessions.begin(), sessions.end(), [&](const auto& session) {
        return sessions_.find(session.get()) == sessions_.end() || session->IsDrained();
      });
    };
    for (Steps steps; !drained() && absl::Now() < deadline;) {
      changed_.WaitWithDeadline(&mutex_, std::min(deadline, steps.Next()));
    }
  }
  for (auto& session : sessions) session->Close();
  {
    // A poller's thread may be about to end one of them, having been first: it is in sessions_ still. Calls that are
    // told of their cancellation by the poller's threads end there, too.
    MutexLock lock(&mutex_);
    const auto ended = [&] {
      return sessions_.empty() &&
             std::all_of(ending_.begin(), ending_.end(), [](const auto& session) { return session->IsIdle(); });
    };
    for (Steps steps; !ended();) changed_.WaitWithDeadline(&mutex_, steps.Next());
  }
  sessions.clear();
  keepalive_->Stop();
  if (poller_ != nullptr) poller_->Stop();
  std::vector<std::shared_ptr<ServerSession>> ended;
  MutexLock lock(&mutex_);
  ended.swap(ending_);
  phase_ = Phase::kDown;
  changed_.SignalAll();
}

}  // namespace shmrpc::framed
