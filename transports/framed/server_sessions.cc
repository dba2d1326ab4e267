#include "transports/framed/server_sessions.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "transports/framed/frame.h"

namespace shmrpc::framed {
namespace {

// How long a client may take to hang up once it has been told that the connection is at its end. It does so as soon as
// it has been told, so this is for one that is stopped or far away.
constexpr absl::Duration kFarewellTime = absl::Seconds(1);

// How often to look for what nobody tells of.
constexpr absl::Duration kStep = absl::Milliseconds(10);

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

void ServerSessions::Add(std::unique_ptr<Link> link, bool may_spin, const FlowControlOptions& granted_by_peer,
                         Peer peer) {
  ServerSession::Options options{
      .handler = handler_,
      .max_receive_message_bytes = options_.max_receive_message_bytes,
      .session = {.spin_policy = SpinPolicy(options_.wait_mode, may_spin),
                  .granted_by_peer = granted_by_peer,
                  .granted_to_peer = options_.flow_control},
      .peer = std::move(peer),
      .on_over = [this](ServerSession* session) { Over(session); },
      .on_drained =
          [this] {
            MutexLock lock(&mutex_);
            changed_.SignalAll();
          },
  };
  std::shared_ptr<ServerSession> session;
  {
    MutexLock lock(&mutex_);
    if (phase_ == Phase::kServing) {
      session = std::make_shared<ServerSession>(std::move(link), poller_.get(), std::move(options));
      sessions_.emplace(session.get(), session);
    }
  }
  if (session == nullptr) return TurnAway(*link);
  if (!session->Start().ok()) session->Close();
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

void ServerSessions::WaitForDrain(const SessionList& sessions, absl::Time deadline) {
  MutexLock lock(&mutex_);
  const auto drained = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::all_of(sessions.begin(), sessions.end(),
                       [&](const auto& session) { return IsOver(session.get()) || session->IsDrained(); });
  };
  // A reply that waits for room in the ring leaves without telling: hence the short steps.
  while (!drained() && absl::Now() < deadline) {
    changed_.WaitWithDeadline(&mutex_, std::min(deadline, absl::Now() + kStep));
  }
}

void ServerSessions::WaitForFarewell(const SessionList& sessions, absl::Time deadline) {
  for (;;) {
    // Without the lock: the sender may find that the client is gone, and say so.
    bool all_sent = true;
    for (const auto& session : sessions) all_sent &= session->FinishSending();
    MutexLock lock(&mutex_);
    if (std::all_of(sessions.begin(), sessions.end(), [&](const auto& session) { return IsOver(session.get()); })) {
      return;
    }
    const absl::Time now = absl::Now();
    if (now >= deadline) return;
    changed_.WaitWithDeadline(&mutex_, all_sent ? deadline : std::min(deadline, now + kStep));
  }
}

void ServerSessions::Shutdown(absl::Time deadline) {
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
  WaitForFarewell(sessions, std::min(deadline, absl::Now() + kFarewellTime));
  for (auto& session : sessions) session->Close();
  {
    // A session that one of the poller's threads is closing at this moment is not over yet. Calls that are told of
    // their cancellation by these threads end there, too.
    MutexLock lock(&mutex_);
    while (!sessions_.empty() ||
           !std::all_of(ending_.begin(), ending_.end(), [](const auto& session) { return session->IsIdle(); })) {
      changed_.WaitWithDeadline(&mutex_, absl::Now() + kStep);
    }
  }
  sessions.clear();
  if (poller_ != nullptr) poller_->Stop();
  std::vector<std::shared_ptr<ServerSession>> ended;
  MutexLock lock(&mutex_);
  ended.swap(ending_);
  phase_ = Phase::kDown;
  changed_.SignalAll();
}

}  // namespace shmrpc::framed
