#include "transports/framed/send_batch.h"

#include <algorithm>

#include "runtime/src/fork.h"
#include "transports/framed/sender.h"

namespace shmrpc::framed {

constinit thread_local SendBatch SendBatch::of_this_thread_;

namespace {
// What the thread that has forked was about to send is its parent's to send.
const internal::InForkedChild forget_batch([] { SendBatch::OfThisThread() = SendBatch(); });
}  // namespace

bool SendBatch::BeginOrContinue(Sender* sender, bool more, TaskHistory* history, int most_frames) {
  if (sender_ != sender) {
    End();
    if (!more) return false;
    sender_ = sender;
    tasks_began_ = now_();
  } else if (alone_ || !history->IsKnownFast() || unmeasured_ == kTasksPerLook) {
    Measure();
  }
  const bool slow = history->IsSlow();
  alone_ = !history->IsKnownFast();
  if (frames_ == 0) {
    began_ = tasks_began_;
  } else if (slow || tasks_began_ - began_ >= kMaxAge) {
    Send();
    began_ = tasks_began_ = now_();
  }
  most_frames_ = slow || !more ? 1 : std::min(most_frames, kMostFrames);
  histories_[unmeasured_++] = history;
  // Whoever revokes the batch during the task has seen it begin, hence after this load: see Poller::Slot::tasks.
  revocations_ = sender->revocations();
  return frames_ > 0 || most_frames_ > 1;
}

bool SendBatch::Takes(size_t size) {
  const bool takes = frames_ + 1 < most_frames_ && bytes_ + size < kMostBytes && revocations_ == sender_->revocations();
  frames_ = takes ? frames_ + 1 : 0;
  bytes_ = takes ? bytes_ + size : 0;
  return takes;
}

void SendBatch::Pause() { tasks_time_ += now_() - tasks_began_; }

void SendBatch::Resume() { tasks_began_ = now_(); }

// Of kinds that together took long any may have been the one; from now on they are measured alone.
void SendBatch::Measure() {
  const SteadyClock::time_point now = now_();
  const std::chrono::nanoseconds time = tasks_time_ + (now - tasks_began_);
  for (TaskHistory** history = histories_; history != histories_ + unmeasured_; ++history) {
    const bool noted = std::find(histories_, history, *history) != history;
    (*history)->OnTask(noted ? std::chrono::nanoseconds(0) : time);
  }
  unmeasured_ = 0;
  tasks_time_ = {};
  tasks_began_ = now;
}

void SendBatch::Send() {
  frames_ = 0;
  bytes_ = 0;
  sender_->SendPutOff();
}

void SendBatch::SendAndForget() {
  Measure();
  if (frames_ > 0) Send();
  sender_ = nullptr;
}

}  // namespace shmrpc::framed
