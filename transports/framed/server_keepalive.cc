#include "transports/framed/server_keepalive.h"

#include <algorithm>

#include "shmrpc/steady_time.h"
#include "transports/framed/keepalive.h"

namespace shmrpc::framed {

void ServerKeepalive::Schedule() {
  const uint64_t generation = ++generation_;
  timer_ = KeepaliveTimer().Schedule(SteadyTime::Now() + period_, [weak = weak_from_this(), generation] {
    if (const auto self = weak.lock()) self->OnTimer(generation);
  });
}

void ServerKeepalive::Add(absl::Duration period) {
  internal::DeadlineTimer::Handle later;
  {
    MutexLock lock(&mutex_);
    if (stopped_ || period >= period_) return;
    period_ = period;
    if (!armed_.load(std::memory_order_relaxed) || looking_) return;
    later = timer_;
    Schedule();
  }
  KeepaliveTimer().Cancel(later);
}

void ServerKeepalive::Arm() {
  MutexLock lock(&mutex_);
  if (stopped_ || armed_.exchange(true) || looking_) return;
  Schedule();
}

void ServerKeepalive::OnTimer(uint64_t generation) {
  {
    MutexLock lock(&mutex_);
    if (stopped_ || generation != generation_) return;
    looking_ = true;
    // Before the look: what becomes active after it has been looked at arms again.
    armed_.store(false);
    period_ = absl::InfiniteDuration();
  }
  const Look look = look_();
  MutexLock lock(&mutex_);
  looking_ = false;
  if (stopped_) return;
  period_ = std::min(period_, look.period);
  if (look.active) armed_.store(true);
  if (armed_.load(std::memory_order_relaxed)) Schedule();
}

void ServerKeepalive::Stop() {
  internal::DeadlineTimer::Handle timer;
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    timer = timer_;
  }
  KeepaliveTimer().Cancel(timer);
}

}  // namespace shmrpc::framed
