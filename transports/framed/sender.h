#ifndef SHMRPC_TRANSPORTS_FRAMED_SENDER_H_
#define SHMRPC_TRANSPORTS_FRAMED_SENDER_H_

#include <atomic>
#include <deque>
#include <limits>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "shmrpc/message.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/frame.h"
#include "transports/framed/link.h"
#include "transports/framed/send_batch.h"

namespace shmrpc::framed {

// The sending half of a session: serialises the senders of one link, cuts messages into frames, and deals with a link
// that has no room.
//
// Two ways to deal with it. A client *waits*: the caller blocks until there is room, while the session receives. A
// server *spills*: after a little patience the frames go to private memory, and when that has become much the session
// receives nothing more until some were sent; so a client that does not read its replies costs no thread, and memory
// only up to that and for the replies of the calls that were already running. Frames that must not wait at all (resets,
// go-away) are spilled on both sides.
//
// A link that is cheap to poll is looked at for a moment before either: a peer that is receiving takes the frame that
// is in the way sooner than it could be asked to tell of it.
//
// One message at a time is in pieces on the link; others that do not fit one frame wait for their turn, while small
// messages go between the pieces. So the receiver puts together one message at most.
//
// Frames may be put off: left in the link, without the system call, or the look at a sleeping peer, that makes sure
// that they reach it. Only a thread with an open SendBatch does so, which has the rules for when they are sent; it
// sends them itself, unless another thread comes first. Every frame that is sent the usual way, and everything that
// looks after leftovers, sends them as well.
//
// Thread-safe.
class Sender {
 public:
  // What the session contributes.
  class Host {
   public:
    virtual ~Host() = default;
    // Called without the sender's lock. Blocks until the link seems to have room (true), the link is over, the deadline
    // passed, `stop` says so, or the host's patience is at its end. Whoever makes `stop` true sees to it that it is
    // asked.
    virtual bool WaitForRoom(SteadyTime deadline, absl::FunctionRef<bool()> stop) = 0;
    // Called with the sender's lock. The kernel has not taken all bytes: call Continue() once the link's descriptor is
    // writable.
    virtual void WatchWritable() = 0;
  };

  // `host` and `link` outlive this object. `may_spin`: the peer can make room while this side looks for it.
  // `max_spilled_bytes`: with more than that in private memory the link is shut down, see overflowed().
  Sender(Host* host, Link* link, bool may_spill, bool may_spin,
         size_t max_spilled_bytes = std::numeric_limits<size_t>::max())
      : host_(host), link_(link), may_spill_(may_spill), may_spin_(may_spin), max_spilled_bytes_(max_spilled_bytes) {}

  // Taken for everything that concerns the order of frames.
  Mutex& mutex() ABSL_LOCK_RETURNED(mutex_) { return mutex_; }

  enum class Outcome {
    kSent,
    kNothingSent,  // the link is over, the deadline passed, or `stop` said so
    kCutOff,       // the same, in the middle of a message in pieces: a reset followed
    kTooLarge,     // nothing was sent: the control part is larger than the protocol allows
  };

  // Sends one message with the control part before it; `message` may be null. `header`: type, flags, code and call_id;
  // the rest is filled in. `stop` is asked while it waits, without the sender's lock too. The first overload's caller
  // holds mutex() and has sent what must come just before; it is released in between when there is no room.
  Outcome SendLocked(FrameHeader header, std::string_view control, const OutgoingMessage* message, SteadyTime deadline,
                     absl::FunctionRef<bool()> stop) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Outcome Send(FrameHeader header, std::string_view control, const OutgoingMessage* message, SteadyTime deadline,
               absl::FunctionRef<bool()> stop) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return SendLocked(header, control, message, deadline, stop);
  }

  // Sends a frame without a message, which never blocks: when there is no room it goes before anything that is sent
  // later. With `always_ring` the peer is woken in any case.
  void SendControl(const FrameHeader& header, std::string_view body = {}, bool always_ring = true)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Sends a frame of nothing but a header if there is room for it now, and drops it otherwise: for what is of no use to
  // a peer that has yet to take what was sent before.
  void SendIfRoom(const FrameHeader& header) ABSL_LOCKS_EXCLUDED(mutex_);

  // Reserves room for the caller's own frame; waits for it if necessary. Null: over, the deadline passed, or `stop`
  // said so. `*waited` is set when the lock was released meanwhile.
  uint8_t* Reserve(size_t size, SteadyTime deadline, absl::FunctionRef<bool()> stop, bool* waited)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Commit(size_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Makes threads that wait for their turn to send a message in pieces ask their `stop`.
  void WakeWaiting() ABSL_LOCKS_EXCLUDED(mutex_);

  // Goes on with what could not be sent before. True when nothing is left.
  bool Continue() ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether something that was committed may not be on its way yet. Cheap; a hint.
  bool HasLeftover() const { return leftover_.load(std::memory_order_relaxed) != 0; }
  // The same without what the calling thread has put off and will send itself: whether to Continue.
  bool NeedsContinue() const {
    const uint32_t leftover = leftover_.load(std::memory_order_relaxed);
    return leftover != 0 && (leftover != kPutOff || !SendBatch::OfThisThread().IsOf(this));
  }

  // Sends what was put off, if nobody has done so already.
  void SendPutOff() ABSL_LOCKS_EXCLUDED(mutex_);
  // The same for a task that takes long, on behalf of its thread; and what that thread still sends during the task is
  // not put off.
  void RevokeBatches() ABSL_LOCKS_EXCLUDED(mutex_);
  uint32_t revocations() const { return revocations_.load(std::memory_order_relaxed); }

  // How much waits in private memory, a hint; more than any limit when that became too much.
  size_t SpilledBytes() const { return spilled_bytes_.load(std::memory_order_relaxed); }

  // More than max_spilled_bytes would have waited. What waited was dropped, as is everything sent from then on.
  bool overflowed() const { return overflowed_.load(std::memory_order_acquire); }

  // The bytes of messages in pieces that were sent so far. A hint.
  uint64_t BytesInPieces() const { return bytes_in_pieces_.load(std::memory_order_relaxed); }

  // What was put off is sent as far as the kernel takes it; everything sent from now on is dropped. Waiting senders
  // notice once the host lets them go.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

  // Once everything has been handed to the link: closes, and lets the peer see the end behind it. False: there is
  // something left; to be tried again.
  bool Finish() ABSL_LOCKS_EXCLUDED(mutex_);

  // For a thread about to sleep until the peer rings: sees to it that a peer that is busy with something long hears of
  // what it has not taken yet, and, if somebody `wants_room`, that it rings when there is some. False: there is room.
  bool PrepareToSleep(bool wants_room) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class FragmentStream;

  Outcome SendPieces(FrameHeader header, std::string_view control, const OutgoingMessage& message, SteadyTime deadline,
                     absl::FunctionRef<bool()> stop) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendControlLocked(const FrameHeader& header, std::string_view body, bool always_ring)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetReservation() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint8_t* SpinForRoom(size_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Null: that would be too much, and the sender has closed.
  uint8_t* ReserveSpilled(size_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FlushSpilled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FlushOrPutOff(size_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Flush(bool always_ring) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FlushLink(bool always_ring) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteLeftover(uint32_t what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasPutOff() const { return (leftover_.load(std::memory_order_relaxed) & kPutOff) != 0; }

  // What leftover_ is made of.
  static constexpr uint32_t kUnsent = 1;  // spilled_ is not empty, or the kernel left bytes
  static constexpr uint32_t kPutOff = 2;  // something was committed and not flushed

  Host* const host_;
  Link* const link_;
  const bool may_spill_;
  const bool may_spin_;
  const size_t max_spilled_bytes_;

  Mutex mutex_;  // also guards the sender's role of *link_
  CondVar pieces_done_;
  bool in_pieces_ ABSL_GUARDED_BY(mutex_) = false;  // some thread sends a message in pieces
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool reserved_spilled_ ABSL_GUARDED_BY(mutex_) = false;    // the current reservation is spilled_.back()
  std::deque<std::string> spilled_ ABSL_GUARDED_BY(mutex_);  // in order; complete but for the length
  std::atomic<size_t> spilled_bytes_{0};                     // changed with mutex_
  std::atomic<bool> overflowed_{false};                      // changed with mutex_
  std::atomic<uint32_t> leftover_{0};                        // changed with mutex_
  std::atomic<uint32_t> revocations_{0};                     // changed with mutex_
  std::atomic<uint64_t> bytes_in_pieces_{0};                 // changed with mutex_
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SENDER_H_
