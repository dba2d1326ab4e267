#ifndef SHMRPC_TRANSPORTS_FRAMED_SEND_BATCH_H_
#define SHMRPC_TRANSPORTS_FRAMED_SEND_BATCH_H_

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "transports/framed/spin_policy.h"
#include "transports/framed/task_history.h"

namespace shmrpc::framed {

class Sender;

// What one thread of a poller, which runs task after task of one session, leaves in that session's link to be sent
// together: over a socket a system call for many replies, or requests, instead of one for each.
//
// A batch begins before a task, when there is more input that takes no system call to get (NextTask). Frames that the
// thread then sends over the session are put off (see Sender), until the first of:
//
//   - kMostFrames of them, or kMostBytes;
//   - a frame that is not put off: by another thread, in pieces, or one that has to ring;
//   - the last of the input: what its task sends goes at once, with all the others; and if it sends nothing, the thread
//     ends the batch before it looks for more with a system call (End);
//   - the thread's turning to another session;
//   - the end of a task, once the batch is kMaxAge old; of tasks that are known to be fast every kTasksPerLook-th is
//     looked at, because reading the clock takes some percent of a small call;
//   - a task of a kind that took long of late: they go before it, and what it sends goes at once;
//   - the task's waiting for something inside the library (End);
//   - the poller's guardian, which finds that a task is taking long (Sender::RevokeBatches): within about 2 ms.
//
// So nothing waits for another task that is known to be slow, or for one that waits in the library, and not longer than
// the guardian takes for any other. For that the guardian has to look: a task in whose batch something was put off is
// given to the poller as one that leaves something unattended (Pollable::Outcome::kTaskMore).
//
// One for each thread, which alone uses it. It never outlives its thread's reference to the session: a thread ends its
// batch before it lets go of the session (Poller).
class SendBatch {
 public:
  static constexpr int kMostFrames = 32;
  static constexpr size_t kMostBytes = 16 * 1024;
  static constexpr std::chrono::nanoseconds kMaxAge = std::chrono::microseconds(50);
  static constexpr int kTasksPerLook = 4;

  static SendBatch& OfThisThread() { return of_this_thread_; }

  bool IsOf(const Sender* sender) const { return sender_ == sender; }
  bool is_open() const { return sender_ != nullptr; }

  // The calling thread has ended its task, if it had one, and is about to run this one of `sender`'s session, of a kind
  // that `history`, which lives as long as the session, knows. `more`: it will find another one without a system call.
  // `most_frames`: when the session has reason to put off less than kMostFrames. May send: without the session's locks.
  // True: something that was put off waits for the task, or may do so soon.
  bool NextTask(Sender* sender, bool more, TaskHistory* history, int most_frames = kMostFrames) {
    return (sender_ != nullptr || more) && BeginOrContinue(sender, more, history, most_frames);
  }

  // Sends what was put off. Afterwards this thread puts off nothing more until NextTask.
  void End() {
    if (sender_ != nullptr) SendAndForget();
  }

  // For the sender of IsOf, whose mutex is held: whether a frame of `size` bytes that this thread has just committed is
  // to be put off.
  bool Takes(size_t size);
  // Around sending at once: that is not the task's time.
  void Pause();
  void Resume();

  // For tests, whose tasks are to take as long as they say, however busy the machine is. Outside of a batch.
  using Clock = SteadyClock::time_point (*)();
  void SetClockForTest(Clock clock) { now_ = clock; }

 private:
  bool BeginOrContinue(Sender* sender, bool more, TaskHistory* history, int most_frames);
  void Measure();
  void SendAndForget();
  void Send();

  static constinit thread_local SendBatch of_this_thread_;

  Clock now_ = &SteadyClock::now;
  Sender* sender_ = nullptr;  // whose batch is open
  int most_frames_ = 0;       // for the current task: so many are sent; 1 when all are sent at once
  int frames_ = 0;            // put off by this thread since it last sent; others may have sent them meanwhile
  size_t bytes_ = 0;
  uint32_t revocations_ = 0;  // the sender's, when the task began
  // The tasks that are measured together, with the current one; `alone_`: no other one is to join it.
  TaskHistory* histories_[kTasksPerLook] = {};
  int unmeasured_ = 0;
  bool alone_ = false;
  SteadyClock::time_point began_;          // a moment before the first of frames_
  SteadyClock::time_point tasks_began_;    // or the latest went on after it had sent something
  std::chrono::nanoseconds tasks_time_{};  // until then
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SEND_BATCH_H_
