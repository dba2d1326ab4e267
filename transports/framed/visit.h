#ifndef SHMRPC_TRANSPORTS_FRAMED_VISIT_H_
#define SHMRPC_TRANSPORTS_FRAMED_VISIT_H_

#include <chrono>
#include <cstddef>

#include "transports/framed/spin_policy.h"

namespace shmrpc::framed {

// One turn of a poller's thread with a pollable: what it may do there, and for how long. Whoever has input without end
// would keep the thread otherwise. What is done is counted in units, about a third of a microsecond each; the clock is
// read after kUnitsPerLook of them only, so that a small call costs a subtraction.
//
// Belongs to the thread.
class Visit {
 public:
  static constexpr int kUnitsPerLook = 32;
  static constexpr std::chrono::nanoseconds kLongest = std::chrono::microseconds(200);
  // What a task counts, and one of a kind that is slow, and a connection that is accepted.
  static constexpr int kTaskUnits = 8;
  static constexpr int kSlowUnits = kUnitsPerLook;

  // `scanning`: the poller goes round the hot set, and its guardian looks after what comes during a long task;
  // otherwise that is to be reported by epoll. `may_run`: a task that may block will be run; otherwise it stays where
  // it is, whoever is polled goes on receiving, and only tasks that do not block are given to the thread.
  Visit(bool scanning, bool may_run) : scanning_(scanning), may_run_(may_run) {}

  bool scanning() const { return scanning_; }
  bool may_run() const { return may_run_; }
  void set_may_run(bool may_run) { may_run_ = may_run; }

  static int UnitsOfFrame(size_t bytes) { return 1 + static_cast<int>(bytes / 1024); }

  // To be called after each frame, task or other thing done. False: the turn is over, it is the others'.
  bool Spend(int units) { return (left_ -= units) > 0 || Look(); }

  // The next turn.
  void Renew() {
    left_ = kUnitsPerLook;
    timed_ = false;
  }

 private:
  bool Look() {
    left_ = kUnitsPerLook;
    const SteadyClock::time_point now = SteadyClock::now();
    if (timed_) return now < end_;
    timed_ = true;
    end_ = now + kLongest;
    return true;
  }

  const bool scanning_;
  bool may_run_;
  int left_ = kUnitsPerLook;
  bool timed_ = false;  // the clock has been read, and end_ is set
  SteadyClock::time_point end_;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_VISIT_H_
