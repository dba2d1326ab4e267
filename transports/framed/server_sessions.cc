#include "transports/framed/server_sessions.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "shmrpc/steady_time.h"
#include "transports/framed/frame.h"

namespace shmrpc::framed {
namespace {

// How a shutdown waits for what nobody tells of: calls do not tell when they end, because who did so could outlive what
// it tells, nor does a reply that waits for room. The first ones end at once.
class Steps {
 public:
  SteadyTime Next() {
    length_ = std::min(2 * length_, absl::Milliseconds(10));
    return SteadyTime::Now() + length_;
  }

 private:
  absl::Duration length_ = absl::Microseconds(50);
};

// How long a client may take to hang up once it has been told that the connection is at its end. It does so as soon as
// it has been told, so this is for one that is stopped or far away.
constexpr absl::Duration kFarewellTime = absl::Seconds(1);

// For a client that has connected while the listener was shutting down, and may have begun to call.
void TurnAway(Link& link) {
  uint8_t* const frame = link.Reserve(kFrameHeaderBytes);
  if (frame == nullptr) return;  // it is gone
  FrameHeader header;
  header.type = FrameType::kGoAway;
  header.flags = kFlagNotProcessed;
  StoreFrameHeader(frame, header);
  link.Commit(kFrameHeaderBytes);
  link.Flush(/*always_ring=*/true);
  link.FinishSending();
}

}  // namespace

absl::Status ServerSessions::Init() {
  absl::StatusOr<std::unique_ptr<Poller>> poller = Poller::Create("shmrpc-server", options_.max_threads);
  if (!poller.ok()) return poller.status();
  poller_ = *std::move(poller);
  return absl::OkStatus();
}

void ServerSessions::Add(std::unique_ptr<Link> link, const Agreed& agreed, Peer peer,
                         internal::ConnectionLimiter::PlacePtr place) {
  ServerSession::Options options{
      .handler = handler_,
      .max_receive_message_bytes = options_.max_receive_message_bytes,
      .session = {.spin_policy = SpinPolicy(options_.wait_mode, agreed.may_spin),
                  .granted_by_peer = agreed.granted_by_peer,
                  .granted_to_peer = options_.flow_control,
                  .keepalive_timeout = options_.keepalive_timeout,
                  .peers_keepalive_timeout = agreed.peers_keepalive_timeout,
                  .max_unsent_bytes = options_.limits.max_unsent_bytes,
                  .memory = options_.connection_limiter == nullptr ? nullptr : options_.connection_limiter->memory()},
      .hold_back_bytes = options_.limits.hold_back_bytes,
      .max_calls = options_.limits.max_calls_per_connection,
      .max_idle = options_.limits.max_connection_idle,
      .peer = std::move(peer),
      .on_over = [this](ServerSession* session) { Over(session); },
      .keepalive = keepalive_,
  };
  std::shared_ptr<ServerSession> session;
  {
    MutexLock lock(&mutex_);
    if (phase_ == Phase::kServing) {
      session = std::make_shared<ServerSession>(std::move(link), poller_, std::move(options), std::move(place));
      sessions_.emplace(session.get(), session);
    }
  }
  if (session == nullptr) return TurnAway(*link);
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
  SessionList released;  // without the lock
  MutexLock lock(&mutex_);
  auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  ending_.push_back(found->second);
  released.push_back(std::move(found->second));
  sessions_.erase(found);
  ForgetEnded(&released);
  changed_.SignalAll();
}

bool ServerSessions::ForgetEnded(SessionList* seen) {
  const auto has_ended = [seen](const std::weak_ptr<ServerSession>& ending) {
    std::shared_ptr<ServerSession> session = ending.lock();
    if (session == nullptr) return true;
    seen->push_back(std::move(session));
    return seen->back()->IsIdle();
  };
  ending_.erase(std::remove_if(ending_.begin(), ending_.end(), has_ended), ending_.end());
  return ending_.empty();
}

void ServerSessions::WaitForDrain(const SessionList& sessions, SteadyTime deadline) {
  MutexLock lock(&mutex_);
  const auto drained = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::all_of(sessions.begin(), sessions.end(),
                       [&](const auto& session) { return IsOver(session.get()) || session->IsDrained(); });
  };
  for (Steps steps; !drained() && !deadline.HasPassed();) {
    changed_.WaitUntil(&mutex_, std::min(deadline, steps.Next()));
  }
}

void ServerSessions::WaitForFarewell(const SessionList& sessions, SteadyTime deadline) {
  for (Steps steps;;) {
    // Without the lock: the sender may find that the client is gone, and say so.
    bool all_sent = true;
    for (const auto& session : sessions) all_sent &= session->FinishSending();
    MutexLock lock(&mutex_);
    if (std::all_of(sessions.begin(), sessions.end(), [&](const auto& session) { return IsOver(session.get()); })) {
      return;
    }
    if (deadline.HasPassed()) return;
    changed_.WaitUntil(&mutex_, all_sent ? deadline : std::min(deadline, steps.Next()));
  }
}

void ServerSessions::Shutdown(SteadyTime deadline) {
  SessionList sessions;
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
  WaitForDrain(sessions, deadline);
  for (auto& session : sessions) session->SayFarewell();
  WaitForFarewell(sessions, std::min(deadline, SteadyTime::Now() + kFarewellTime));
  for (auto& session : sessions) session->Close();
  for (Steps steps;;) {
    // A poller's thread may be about to end one of them, having been first: it is in sessions_ still. Calls that are
    // told of their cancellation by the poller's threads end there, too.
    SessionList released;  // without the lock
    MutexLock lock(&mutex_);
    if (sessions_.empty() && ForgetEnded(&released)) break;
    changed_.WaitUntil(&mutex_, steps.Next());
  }
  sessions.clear();
  keepalive_->Stop();
  if (poller_ != nullptr) poller_->Stop();
  MutexLock lock(&mutex_);
  phase_ = Phase::kDown;
  changed_.SignalAll();
}

}  // namespace shmrpc::framed
