#include "transports/framed/keepalive.h"

#include <algorithm>
#include <utility>

#include "runtime/src/fork.h"

namespace shmrpc::framed {
namespace {

constexpr int kBeatsInPatience = 4;

constinit internal::PerProcess<internal::DeadlineTimer> keepalive_timer;

}  // namespace

internal::DeadlineTimer& KeepaliveTimer() { return keepalive_timer.Get(); }

Keepalive::Keepalive(absl::Duration patience, std::optional<absl::Duration> peers_patience)
    : patience_(peers_patience.has_value() ? std::max(patience, kMinKeepaliveTimeout) : absl::InfiniteDuration()),
      beat_interval_(std::max(peers_patience.value_or(absl::InfiniteDuration()), kMinKeepaliveTimeout) /
                     kBeatsInPatience),
      period_(std::min(patience_ / kBeatsInPatience, beat_interval_)) {}

bool Keepalive::TakeHeard() {
  const uint64_t frames = frames_.load(std::memory_order_relaxed);
  return std::exchange(frames_taken_, frames) != frames;
}

Keepalive::Verdict Keepalive::Tick(SteadyClock::time_point now, bool heard, bool expects) {
  const absl::Duration since_tick = absl::FromChrono(now - std::exchange(last_tick_, now));
  if (heard || !expects || !std::exchange(expected_, true)) {
    silent_for_ = absl::ZeroDuration();
  } else {
    silent_for_ += std::min(since_tick, patience_ / kBeatsInPatience);
  }
  expected_ = expects;
  Verdict verdict;
  verdict.dead = silent_for_ >= patience_;
  // Ticks come a little early or late: a beat that is nearly due is sent.
  verdict.beat = absl::FromChrono(now - last_beat_) >= beat_interval_ - period_ / 2;
  if (verdict.beat) last_beat_ = now;
  return verdict;
}

}  // namespace shmrpc::framed
