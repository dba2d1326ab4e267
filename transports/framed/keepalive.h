#ifndef SHMRPC_TRANSPORTS_FRAMED_KEEPALIVE_H_
#define SHMRPC_TRANSPORTS_FRAMED_KEEPALIVE_H_

#include <atomic>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "runtime/src/deadline_timer.h"
#include "shmrpc/options.h"
#include "transports/framed/spin_policy.h"

namespace shmrpc::framed {

// When a session says that it is alive, and when its silent peer is not.
//
// Each side tells in its hello how long it waits for a frame of the other while calls are in progress: its patience.
// The other then sends an *alive* frame (a beat) four times in that period. Nothing is asked and nothing answered: to
// answer, somebody would have to receive, which a process whose threads all run handlers does not do for a while. Beats
// are sent by a timer's thread that runs nothing else (KeepaliveTimer), so they stop only with the process or the way.
//
// Silence is counted in ticks of that timer, each with a quarter of the patience at most: a process that was itself
// stopped for an hour does not find that its peer was silent for an hour.
//
// Heard() is the receiver's; everything else belongs to whoever handles the timer's ticks, one at a time.
class Keepalive {
 public:
  // `patience` of this side and of the peer, InfiniteDuration where one waits for ever. No `peers_patience`: the peer
  // takes no part, and nothing is sent or expected. Less than kMinKeepaliveTimeout is taken for that: nobody can make a
  // peer send without pause.
  Keepalive(absl::Duration patience, std::optional<absl::Duration> peers_patience);

  // How often Tick wants to be called while there is something in progress. InfiniteDuration: never.
  absl::Duration period() const { return period_; }
  bool enabled() const { return period_ != absl::InfiniteDuration(); }
  absl::Duration patience() const { return patience_; }

  // A frame has come. For the receiver.
  void Heard() { frames_.store(frames_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }

  // Whether one has come since the last time.
  bool TakeHeard();

  struct Verdict {
    bool beat;  // it is time to say that this side is alive
    bool dead;  // the peer has been silent for too long
  };
  // `heard`: something of the peer has come since the last tick, or lies there unread. `expects`: calls are in
  // progress, so that the peer has to be heard of.
  Verdict Tick(SteadyClock::time_point now, bool heard, bool expects);

 private:
  const absl::Duration patience_;
  const absl::Duration beat_interval_;
  const absl::Duration period_;
  std::atomic<uint64_t> frames_{0};
  uint64_t frames_taken_ = 0;
  absl::Duration silent_for_;
  bool expected_ = false;  // at the last tick
  SteadyClock::time_point last_tick_;
  SteadyClock::time_point last_beat_;
};

// The timer of this process for the ticks. Not the one for deadlines, where users' callbacks may block. What runs here
// must not block, nor run users' code.
internal::DeadlineTimer& KeepaliveTimer();

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_KEEPALIVE_H_
