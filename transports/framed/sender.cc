#include "transports/framed/sender.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/spin_pause.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::framed {
namespace {

// To take a frame of the largest size off a ring takes 3 to 15 microseconds.
constexpr absl::Duration kRoomSpin = absl::Microseconds(30);

}  // namespace

uint8_t* Sender::Reserve(size_t size, SteadyTime deadline, absl::FunctionRef<bool()> stop, bool* waited) {
  for (;;) {
    if (closed_) return nullptr;
    if (FlushSpilled()) {
      uint8_t* frame = link_->Reserve(size);
      if (frame == nullptr && !*waited) frame = SpinForRoom(size);
      if (frame != nullptr) {
        reserved_spilled_ = false;
        return frame;
      }
    } else if (may_spill_) {
      return ReserveSpilled(size);  // patience is for the first only
    }
    if (!link_->AskForRoom()) {
      if (link_->HasRoom()) continue;
      return nullptr;  // the link is broken
    }
    Flush(/*always_ring=*/false);  // what was committed before must not wait for what comes
    *waited = true;
    mutex_.Unlock();
    const bool room = host_->WaitForRoom(deadline, stop);
    mutex_.Lock();
    if (!room || (!may_spill_ && stop())) {
      if (closed_ || !may_spill_) return nullptr;
      return ReserveSpilled(size);
    }
  }
}

// With the lock: there is no room for others' frames either, or not much.
uint8_t* Sender::SpinForRoom(size_t size) {
  if (!may_spin_ || !link_->CheapToPoll()) return nullptr;
  FlushLink(/*always_ring=*/false);  // a peer that sleeps makes no room
  const SteadyTime end = SteadyTime::Now() + kRoomSpin;
  for (int looks = 1;; ++looks) {
    internal::SpinPause();
    uint8_t* const frame = link_->Reserve(size);
    if (frame != nullptr || (looks % 32 == 0 && end.HasPassed())) return frame;
  }
}

uint8_t* Sender::ReserveSpilled(size_t size) {
  const size_t spilled = spilled_bytes_.load(std::memory_order_relaxed);
  if (size > max_spilled_bytes_ || spilled > max_spilled_bytes_ - size) {
    reserved_spilled_ = false;
    closed_ = true;
    std::deque<std::string>().swap(spilled_);
    spilled_bytes_.store(std::numeric_limits<size_t>::max(), std::memory_order_relaxed);
    leftover_.store(0, std::memory_order_relaxed);
    overflowed_.store(true, std::memory_order_release);
    link_->Shutdown();  // the receiver finds it, and ends the session
    pieces_done_.SignalAll();
    return nullptr;
  }
  reserved_spilled_ = true;
  spilled_.emplace_back(size, '\0');
  spilled_bytes_.fetch_add(size, std::memory_order_relaxed);
  return reinterpret_cast<uint8_t*>(spilled_.back().data());
}

void Sender::ForgetReservation() {
  if (reserved_spilled_) {
    spilled_bytes_.fetch_sub(spilled_.back().size(), std::memory_order_relaxed);
    spilled_.pop_back();
  }
  reserved_spilled_ = false;
}

void Sender::Commit(size_t size) {
  if (!reserved_spilled_) {
    link_->Commit(size);
    return;
  }
  spilled_bytes_.fetch_sub(spilled_.back().size() - size, std::memory_order_relaxed);
  spilled_.back().resize(size);
  reserved_spilled_ = false;
  NoteLeftover(kUnsent);
}

// Sends what was spilled as far as there is room; when that is not all of it the peer has been asked for room.
bool Sender::FlushSpilled() {
  while (!spilled_.empty()) {
    uint8_t* place;
    while (!spilled_.empty() && (place = link_->Reserve(spilled_.front().size())) != nullptr) {
      const std::string& frame = spilled_.front();
      // All but the length word, which is the link's: a ring's consumer takes the frame as soon as it sees that word.
      std::memcpy(place + sizeof(uint32_t), frame.data() + sizeof(uint32_t), frame.size() - sizeof(uint32_t));
      link_->Commit(frame.size());
      spilled_bytes_.fetch_sub(frame.size(), std::memory_order_relaxed);
      spilled_.pop_front();
    }
    FlushLink(/*always_ring=*/true);
    if (!spilled_.empty() && (link_->AskForRoom() || !link_->HasRoom())) return false;
  }
  return true;
}

// For a frame that the caller has just committed.
void Sender::FlushOrPutOff(size_t size) {
  SendBatch& batch = SendBatch::OfThisThread();
  if (!batch.IsOf(this)) return Flush(/*always_ring=*/false);
  if (batch.Takes(size)) return NoteLeftover(kPutOff);
  batch.Pause();
  Flush(/*always_ring=*/false);
  batch.Resume();
}

void Sender::Flush(bool always_ring) {
  if (FlushSpilled()) FlushLink(always_ring);
}

void Sender::FlushLink(bool always_ring) {
  link_->Flush(always_ring);
  const bool full = link_->SendBufferFull();
  leftover_.store(full || !spilled_.empty() ? kUnsent : 0, std::memory_order_relaxed);
  if (full) host_->WatchWritable();
}

void Sender::NoteLeftover(uint32_t what) {
  leftover_.store(leftover_.load(std::memory_order_relaxed) | what, std::memory_order_relaxed);
}

void Sender::SendPutOff() {
  MutexLock lock(&mutex_);
  if (HasPutOff() && !closed_) Flush(/*always_ring=*/false);
}

// With the lock a thread that puts something off does so before this, and then it is sent here, or after it, and then
// it sees that it must not.
void Sender::RevokeBatches() {
  MutexLock lock(&mutex_);
  revocations_.store(revocations_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (HasPutOff() && !closed_) Flush(/*always_ring=*/false);
}

void Sender::WakeWaiting() {
  MutexLock lock(&mutex_);
  if (in_pieces_) pieces_done_.SignalAll();
}

bool Sender::Continue() {
  MutexLock lock(&mutex_);
  if (closed_) return true;
  Flush(/*always_ring=*/false);
  return !HasLeftover();
}

bool Sender::PrepareToSleep(bool wants_room) {
  MutexLock lock(&mutex_);
  if (closed_) return true;
  link_->RingIfPeerBehind();
  return !wants_room || link_->AskForRoom() || !link_->HasRoom();
}

void Sender::Close() {
  MutexLock lock(&mutex_);
  if (HasPutOff() && !closed_) link_->Flush(/*always_ring=*/false);
  closed_ = true;
  spilled_.clear();
  spilled_bytes_.store(0, std::memory_order_relaxed);
  leftover_.store(0, std::memory_order_relaxed);
  pieces_done_.SignalAll();
}

bool Sender::Finish() {
  MutexLock lock(&mutex_);
  if (closed_) return true;
  Flush(/*always_ring=*/false);
  if (!spilled_.empty() || link_->SendBufferFull()) return false;
  closed_ = true;
  link_->FinishSending();
  pieces_done_.SignalAll();
  return true;
}

void Sender::SendControl(const FrameHeader& header, std::string_view body, bool always_ring) {
  MutexLock lock(&mutex_);
  if (!closed_) SendControlLocked(header, body, always_ring);
}

void Sender::SendIfRoom(const FrameHeader& header) {
  MutexLock lock(&mutex_);
  if (closed_ || !FlushSpilled()) return;
  uint8_t* const frame = link_->Reserve(kFrameHeaderBytes);
  if (frame == nullptr) return;
  reserved_spilled_ = false;
  StoreFrameHeader(frame, header);
  Commit(kFrameHeaderBytes);
  Flush(/*always_ring=*/false);
}

void Sender::SendControlLocked(const FrameHeader& header, std::string_view body, bool always_ring) {
  const size_t size = kFrameHeaderBytes + body.size();
  uint8_t* frame = FlushSpilled() ? link_->Reserve(size) : nullptr;
  reserved_spilled_ = false;
  if (frame == nullptr) frame = ReserveSpilled(size);
  if (frame == nullptr) return;
  StoreFrameHeader(frame, header);
  if (!body.empty()) std::memcpy(frame + kFrameHeaderBytes, body.data(), body.size());
  Commit(size);
  if (always_ring) return Flush(/*always_ring=*/true);
  FlushOrPutOff(size);
}

Sender::Outcome Sender::SendLocked(FrameHeader header, std::string_view control, const OutgoingMessage* message,
                                   SteadyTime deadline, absl::FunctionRef<bool()> stop) {
  // The peer would have to end the connection, with all its calls.
  if (control.size() > kMaxEncodedControlBytes) return Outcome::kTooLarge;
  const size_t message_bytes = message == nullptr ? 0 : message->size();
  const size_t before = kFrameHeaderBytes + control.size();
  if (before + message_bytes > kMaxFrameBytes) return SendPieces(header, control, *message, deadline, stop);
  bool waited = false;
  uint8_t* const frame = Reserve(before + message_bytes, deadline, stop, &waited);
  // While this thread waited, the call may have been cancelled and its reset sent: nothing may follow that.
  if (frame == nullptr) return Outcome::kNothingSent;
  if (waited && stop()) {
    ForgetReservation();
    return Outcome::kNothingSent;
  }
  StoreFrameHeader(frame, header);
  if (!control.empty()) std::memcpy(frame + kFrameHeaderBytes, control.data(), control.size());
  if (message_bytes != 0) message->SerializeToArray(frame + before);
  Commit(before + message_bytes);
  FlushOrPutOff(before + message_bytes);
  return Outcome::kSent;
}

// The memory of frame after frame, for protobuf to write a message into. Between two frames the sender's lock is given
// up for a moment, so that others get their turn.
class Sender::FragmentStream final : public google::protobuf::io::ZeroCopyOutputStream {
 public:
  FragmentStream(Sender* sender, const FrameHeader& first, std::string_view control, size_t message_bytes,
                 SteadyTime deadline, absl::FunctionRef<bool()> stop)
      : sender_(sender),
        header_(first),
        control_(control),
        message_bytes_(static_cast<int64_t>(message_bytes)),
        deadline_(deadline),
        stop_(stop) {}

  bool Next(void** data, int* size) override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (frame_ != nullptr) {
      CommitFrame();
      sender_->mutex_.Unlock();
      sender_->mutex_.Lock();
    }
    if (stop_()) return false;
    const size_t before = kFrameHeaderBytes + control_.size();
    const size_t left = static_cast<size_t>(message_bytes_ - sent_);
    // A long control part goes with what there is room for, and at least something of the message.
    used_ = std::min({before + left, std::max(before + 1, sender_->link_->piece_bytes()), kMaxFrameBytes});
    bool waited = false;
    frame_ = sender_->Reserve(used_, deadline_, stop_, &waited);
    if (frame_ == nullptr) return false;
    if (waited && stop_()) {  // the reset may have been sent meanwhile, and nothing may follow that
      sender_->ForgetReservation();
      frame_ = nullptr;
      return false;
    }
    *data = frame_ + before;
    *size = static_cast<int>(used_ - before);
    sent_ += *size;
    return *size > 0;
  }

  void BackUp(int count) override {
    used_ -= static_cast<size_t>(count);
    sent_ -= count;
  }

  int64_t ByteCount() const override { return sent_; }

  // After the last byte. True when the message is complete.
  bool Finish() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (frame_ == nullptr || sent_ != message_bytes_) return false;
    CommitFrame();
    return true;
  }

  bool begun() const { return begun_; }

 private:
  void CommitFrame() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    FrameHeader header = header_;
    if (begun_) {
      header.type = FrameType::kFragment;
      header.flags = 0;
      header.code = 0;
    }
    if (sent_ < message_bytes_) header.flags |= kFlagMore;
    StoreFrameHeader(frame_, header);
    if (!control_.empty()) std::memcpy(frame_ + kFrameHeaderBytes, control_.data(), control_.size());
    sender_->Commit(used_);
    sender_->Flush(/*always_ring=*/false);
    frame_ = nullptr;
    control_ = std::string_view();
    begun_ = true;
  }

  Sender* const sender_;
  const FrameHeader header_;
  std::string_view control_;  // still to be sent
  const int64_t message_bytes_;
  const SteadyTime deadline_;
  const absl::FunctionRef<bool()> stop_;
  uint8_t* frame_ = nullptr;  // the frame being written
  size_t used_ = 0;           // of it, header and control part included
  int64_t sent_ = 0;          // message bytes handed to protobuf
  bool begun_ = false;        // the first frame has been committed
};

Sender::Outcome Sender::SendPieces(FrameHeader header, std::string_view control, const OutgoingMessage& message,
                                   SteadyTime deadline, absl::FunctionRef<bool()> stop) {
  while (in_pieces_ && !closed_) {
    if (stop()) return Outcome::kNothingSent;
    if (pieces_done_.WaitUntil(&mutex_, deadline) && in_pieces_) return Outcome::kNothingSent;
  }
  if (closed_) return Outcome::kNothingSent;
  in_pieces_ = true;
  const uint32_t message_bytes = static_cast<uint32_t>(message.size());
  const std::string sized_control = absl::StrCat(
      ToAbsl(std::string_view(reinterpret_cast<const char*>(&message_bytes), sizeof message_bytes)), ToAbsl(control));
  FragmentStream stream(this, header, sized_control, message.size(), deadline, stop);
  const bool sent = message.SerializeToStream(&stream) && stream.Finish();
  in_pieces_ = false;
  bytes_in_pieces_.fetch_add(static_cast<uint64_t>(stream.ByteCount()), std::memory_order_relaxed);
  if (!sent && stream.begun() && !closed_) {
    FrameHeader reset;
    reset.type = FrameType::kReset;
    reset.call_id = header.call_id;
    reset.code = static_cast<uint16_t>(absl::StatusCode::kCancelled);
    SendControlLocked(reset, std::string_view(), /*always_ring=*/true);
  }
  pieces_done_.Signal();
  if (sent) return Outcome::kSent;
  return stream.begun() ? Outcome::kCutOff : Outcome::kNothingSent;
}

}  // namespace shmrpc::framed
