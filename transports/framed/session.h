#ifndef SHMRPC_TRANSPORTS_FRAMED_SESSION_H_
#define SHMRPC_TRANSPORTS_FRAMED_SESSION_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/call_stream.h"
#include "transports/framed/chunk_pool.h"
#include "transports/framed/flow_control.h"
#include "transports/framed/frame.h"
#include "transports/framed/keepalive.h"
#include "transports/framed/link.h"
#include "transports/framed/poller.h"
#include "transports/framed/sender.h"
#include "transports/framed/spin_policy.h"

namespace shmrpc::framed {

// A message that arrives in pieces. A link carries one such message at a time, see Sender.
//
// Each piece is taken out of its chunk at once, so that the receiver goes on with the same chunk, which stays in the
// CPU's cache.
//
// For whom a message is, is decided with its first piece and holds to its end: pieces that were begun for nobody are
// thrown away even if a call with their id has begun meanwhile.
//
// Not synchronised: belongs to the receiver of a session.
class Assembly {
 public:
  bool active() const { return active_; }
  // Whether pieces of a message of this call are still to come. Until then the peer sends nothing else of the call that
  // MayStandBetweenPieces does not name.
  bool IsOf(uint64_t call_id) const { return active_ && first_.call_id == call_id; }
  // The header of the first piece, of the message that is or was the latest.
  const FrameHeader& first() const { return first_; }
  // What flow control counts for that message: nothing for a request or a response.
  uint64_t cost() const { return first_.type == FrameType::kMessage ? MessageCost(announced_) : 0; }
  // Whether nobody wants the message that is in pieces.
  bool discards() const { return message_ == nullptr; }

  // Begins with the frame in `chunk`, whose part of the message starts at `offset`; the message is `message_bytes` long
  // in all, and will be parsed as `type`, if that is known and not null.
  void Begin(const FrameHeader& header, size_t offset, size_t message_bytes, const google::protobuf::Descriptor* type,
             const Chunk& chunk);
  // The same for a message that nobody wants: the pieces are counted and thrown away.
  void BeginDiscarding(const FrameHeader& header, size_t offset, size_t message_bytes);

  enum class Progress { kMore, kComplete, kMalformed };
  // Takes the fragment in `chunk`.
  Progress Add(const FrameHeader& header, const Chunk& chunk);

  // Forgets what has come. To be called after kComplete, too.
  void End();

  // Of all messages in pieces so far.
  uint64_t bytes_taken() const { return bytes_taken_; }

  // For error messages.
  std::string Describe() const;
  // After kComplete: the message; null if it was thrown away.
  LargeMessagePtr Take() { return std::move(message_); }

 private:
  bool active_ = false;
  FrameHeader first_;
  size_t announced_ = 0;
  size_t received_ = 0;
  uint64_t bytes_taken_ = 0;
  LargeMessagePtr message_;  // null: the pieces are thrown away
};

// What the two ends have agreed on, and how to wait.
struct SessionOptions {
  SpinPolicy spin_policy;
  FlowControlOptions granted_by_peer;  // of what this side sends
  FlowControlOptions granted_to_peer;  // of what this side receives
  absl::Duration keepalive_timeout = absl::InfiniteDuration();
  std::optional<absl::Duration> peers_keepalive_timeout = std::nullopt;  // none: the peer takes no part in keepalive
  // Of what is kept for a peer that does not take it, see Sender.
  size_t max_unsent_bytes = ConnectionLimits().max_unsent_bytes;
};

// What both ends of a framed connection have in common: a link, its two halves, and the way a poller looks after it.
class Session : public Pollable, private Sender::Host {
 public:
  int fd() const override { return link_->fd(); }
  void OnEvents(uint32_t events) override;
  void RevokeBatches() override { sender_.RevokeBatches(); }

 protected:
  // `events`: what the session is added to the poller with.
  Session(std::unique_ptr<Link> link, Poller* poller, const SessionOptions& options, bool may_spill, uint32_t events);

  // The receiver's chores before it looks for frames: takes back the parking announcement, takes doorbells, continues
  // sending. Caller holds right_.
  void BeginReceiving();

  // Goes on with what could not be sent before. Without right_, too: the thread that has it may be asleep, waiting for
  // input only.
  void ContinueSending();

  // To be called before the link is asked for a frame: ends the calling thread's batch, if it has one, before there is
  // a system call for more input. Caller holds right_.
  void EndBatchUnlessMore() {
    SendBatch& batch = SendBatch::OfThisThread();
    if (batch.IsOf(&sender_) && !link_->CheapToPoll() && !link_->HasFrame()) batch.End();
  }

  // Whether, with nothing received at present, it pays to look again. Caller holds right_.
  bool KeepSpinning();
  // Whether epoll has said that the descriptor is at its end.
  bool HangUpWasReported() const { return hang_up_reported_.load(std::memory_order_relaxed); }
  // Something was received. Caller holds right_.
  void NoteReceived();

  // For a thread that holds right_ and has parked the link: sleeps until the link's descriptor has something to say,
  // WakeSleeper is called, or the deadline. Not at all if done() by the time that WakeSleeper would find the thread.
  void SleepOnLink(absl::FunctionRef<bool()> done, SteadyTime deadline) ABSL_LOCKS_EXCLUDED(waiters_mutex_);
  // Wakes the thread in SleepOnLink, if there is one.
  void WakeSleeper() ABSL_EXCLUSIVE_LOCKS_REQUIRED(waiters_mutex_);
  // For who has just made true what a thread may wait for: whether there is one to be told. A thread that sleeps counts
  // itself in waiter_count_ and then looks; so it sees what was made true, or is seen here.
  bool HasWaiters() { return waiter_count_.fetch_add(0, std::memory_order_seq_cst) != 0; }  // a load could go before

  bool WaitForRoom(SteadyTime deadline, absl::FunctionRef<bool()> stop) override = 0;
  void WatchWritable() override;

  // Whether epoll reports input, besides hang-ups; see Poller::SetEvents. Caller holds right_.
  void ReportInput(bool report);

  // While a thread looks at a socket, or runs short tasks whose input it has read already, no other is to be woken for
  // each frame that comes; if a task takes long after all, the guardian notices. (A ring rings when parked.) Until
  // ReportInput(true). Caller holds right_.
  void LeaveInputToGuardian() {
    if (!link_->CheapToPoll()) ReportInput(false);
  }

  // A tick of the keepalive's timer; `expects`: see Keepalive. Without locks, never twice at once.
  struct KeepaliveResult {
    bool heard = false;  // something of the peer has come since the last tick, or lies there unread
    bool dead = false;   // the session is to end with SilentPeer
  };
  KeepaliveResult TickKeepalive(bool expects);
  // Why nothing more comes from the link.
  absl::Status EndStatus() const;
  absl::Status SilentPeer(std::string_view peer, std::string_view option) const;
  // Gives right_ back after a look that has received nothing and changed no announcement.
  virtual void GiveRightBack() = 0;

  absl::Status Malformed(std::string_view what) const;
  // For a frame of the call whose message is in assembly_.
  absl::Status MalformedBetweenPieces(const FrameHeader& header) const;

  // Returns credit to the peer. Without locks.
  void SendCredit(uint64_t call_id, const Credit& credit) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  // The same for a message that nobody will read; 0: it was not counted.
  void ReturnUnread(uint64_t cost) ABSL_LOCKS_EXCLUDED(calls_mutex_);

  const std::unique_ptr<Link> link_;
  Poller* const poller_;
  Sender sender_;
  const size_t max_unsent_bytes_;

  // Guards the calls of the session and what they share.
  mutable Mutex calls_mutex_;
  SendAccount send_account_ ABSL_GUARDED_BY(calls_mutex_);
  ReceiveAccount receive_account_ ABSL_GUARDED_BY(calls_mutex_);

  Keepalive keepalive_;

  // Guards what threads that sleep until something of the link's has come wait by.
  Mutex waiters_mutex_;
  std::atomic<int> waiter_count_{0};  // such threads, the one in SleepOnLink included

  // The right to be the link's receiver. Guards the members below.
  PollRight right_;
  SpinPolicy spin_policy_;
  Assembly assembly_;
  // This wait, which lasts from the first look that found nothing to the next frame.
  bool waits_ = false;
  bool sleeps_at_once_ = false;  // without spinning
  bool measured_ = false;        // it was long enough to look at the clock: waiting_since_ and latest_look_ are set
  bool spun_out_ = false;        // it has gone beyond its budget, and the thread has slept since
  int looks_since_clock_ = 0;
  SteadyClock::time_point waiting_since_;  // also set when it sleeps at once
  SteadyClock::time_point latest_look_;
  std::chrono::nanoseconds allowance_{};  // set when the wait was first measured
  uint64_t moved_before_ = 0;             // of large messages, both ways, when the latest wait began

 private:
  // Whether something of the peer's waits to be received, and nobody is about to.
  bool HasUnread();
  void ChangeEvents(uint32_t add, uint32_t remove) ABSL_LOCKS_EXCLUDED(events_mutex_);

  int sleeper_ ABSL_GUARDED_BY(waiters_mutex_) = -1;  // the eventfd of the thread in SleepOnLink

  std::atomic<bool> hang_up_reported_{false};
  std::atomic<uint32_t> woken_by_{0};  // the events, but for writability, that were reported and not yet looked into
  Mutex events_mutex_;
  std::atomic<uint32_t> events_;  // written with events_mutex_
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SESSION_H_
