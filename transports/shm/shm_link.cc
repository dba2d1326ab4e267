#include "transports/shm/shm_link.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transports/framed/errno_name.h"

namespace shmrpc::shm {
namespace {

ControlBlock* Control(const Segment& segment) { return reinterpret_cast<ControlBlock*>(segment.data()); }

const ControlBlock* Control(const PeerSegment& segment) {
  return reinterpret_cast<const ControlBlock*>(segment.data());
}

}  // namespace

ShmLink::ShmLink(framed::UniqueFd socket, Segment own, PeerSegment peer, std::string name)
    : name_(std::move(name)),
      socket_(std::move(socket)),
      own_(std::move(own)),
      peer_(std::move(peer)),
      producer_(own_.data() + kControlBytes, kRingBytes, framed::kMaxFrameBytes, Control(own_), Control(peer_)),
      consumer_(peer_.data() + kControlBytes, kRingBytes, framed::kFrameHeaderBytes, framed::kMaxFrameBytes,
                Control(own_), Control(peer_)) {}

uint8_t* ShmLink::Reserve(size_t size) {
  uint8_t* const frame = producer_.Reserve(size);
  if (frame == nullptr) NoteIfSendBroken();
  return frame;
}

bool ShmLink::AskForRoom() {
  const bool asked = producer_.AskForRoom();
  if (!asked) NoteIfSendBroken();
  return asked;
}

// The sender has found out that the peer breaks the protocol: hang up, so that the receiver ends the session.
void ShmLink::NoteIfSendBroken() {
  if (producer_.broken().ok() || send_broken_.load(std::memory_order_relaxed)) return;
  send_broken_.store(true, std::memory_order_release);
  Shutdown();
}

void ShmLink::Flush(bool always_ring) {
  if (!producer_.TakeParked() && !always_ring) return;
  rung_at_ = producer_.produced();
  RingDoorbell();
}

void ShmLink::RingIfPeerBehind() {
  if (rung_at_ == producer_.produced() || !producer_.PeerBehind()) return;
  rung_at_ = producer_.produced();
  RingDoorbell();
}

void ShmLink::FinishSending() { ::shutdown(socket_.get(), SHUT_WR); }

void ShmLink::RingDoorbell() {
  const char bell = 0;
  // A full socket rings by itself: the peer has not taken earlier doorbells. A broken one is noticed by the receiver.
  (void)send(socket_.get(), &bell, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

framed::Link::ReceiveResult ShmLink::Receive(framed::Chunk* chunk) {
  // hung_up_ was noticed before this look at the ring: what the peer wrote before it went is in it.
  const size_t length = consumer_.Peek();
  if (length != 0 && (!hung_up_ || TakesAfterHangUp(length))) {
    if (consumer_.Take(length, chunk->data)) RingDoorbell();
    return ReceiveResult::kFrame;
  }
  if (!consumer_.broken().ok()) {
    end_status_ = consumer_.broken();
    return ReceiveResult::kEnd;
  }
  if (!hung_up_) return ReceiveResult::kEmpty;
  if (send_broken_.load(std::memory_order_acquire)) end_status_ = producer_.broken();
  if (end_status_.ok()) end_status_ = absl::UnavailableError("the peer closed the connection or its process ended");
  return ReceiveResult::kEnd;
}

// What the peer wrote before it went fits into the ring. With more it has not gone, and may go on for ever.
bool ShmLink::TakesAfterHangUp(size_t length) {
  if (length > left_after_hang_up_) return false;
  left_after_hang_up_ -= length;
  return true;
}

bool ShmLink::PrepareToPark() {
  bool ring = false;
  const bool parked = !hung_up_ && consumer_.PrepareToPark(&ring);
  if (ring) RingDoorbell();
  return parked;
}

void ShmLink::DrainWakeups(bool hung_up) {
  if (hung_up) hung_up_ = true;
  // More than a few doorbells can be waiting only if the peer rings without need; the rest is left for the next time.
  char bells[256];
  for (int i = 0; i < 16; ++i) {
    const ssize_t taken = recv(socket_.get(), bells, sizeof bells, MSG_DONTWAIT);
    if (taken == sizeof bells) continue;
    if (taken == 0) hung_up_ = true;
    if (taken < 0 && errno != EAGAIN && errno != EINTR) {
      hung_up_ = true;
      end_status_ = absl::UnavailableError(absl::StrCat("the connection broke: ", framed::ErrnoText(errno)));
    }
    return;
  }
}

void ShmLink::Shutdown() { ::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace shmrpc::shm
