#ifndef SHMRPC_TRANSPORTS_SHM_SHM_LINK_H_
#define SHMRPC_TRANSPORTS_SHM_SHM_LINK_H_

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "runtime/src/fork.h"
#include "transports/framed/link.h"
#include "transports/framed/unique_fd.h"
#include "transports/shm/ring.h"
#include "transports/shm/segment.h"

namespace shmrpc::shm {

// The memory of one direction: its ControlBlock's page, then the ring. Only pages that have been touched cost memory.
inline constexpr size_t kRingBytes = 256 * 1024;
inline constexpr size_t kSegmentBytes = kControlBytes + kRingBytes;

// The pieces of large messages. Small enough that the receiver copies one out while the sender writes the next, and
// that its copy stays in the L1 cache until it has reached its place; large enough that a piece's header costs little.
inline constexpr size_t kPieceBytes = 16 * 1024;

// Frames over two rings in shared memory, one in each process's own segment, and a Unix socket, which is the doorbell
// and whose hang-up tells that the peer is gone. See ring.h for what protects either side from the other.
//
// Threads: as framed::Link says. The producer is the sender's, the consumer the receiver's; the socket may be written
// by both and read by the receiver.
class ShmLink final : public framed::Link {
 public:
  // Both segments are kSegmentBytes long. `socket` is the connected, non-blocking Unix socket that the descriptors were
  // passed over. `name`: see Link.
  ShmLink(framed::UniqueFd socket, Segment own, PeerSegment peer, std::string name = "shm");
  ~ShmLink() override = default;

  const std::string& name() const override { return name_; }

  uint8_t* Reserve(size_t size) override;
  void Commit(size_t size) override { producer_.Commit(size); }
  void Flush(bool always_ring) override;
  bool SendBufferFull() const override { return false; }
  size_t piece_bytes() const override { return kPieceBytes; }
  bool HasRoom() const override { return !send_broken_.load(std::memory_order_acquire) && producer_.HasRoom(); }
  bool AskForRoom() override;
  void RingIfPeerBehind() override;
  void FinishSending() override;

  ReceiveResult Receive(framed::Chunk* chunk) override;
  bool HasFrame() override { return consumer_.Peek() != 0; }
  bool PrepareToPark() override;
  void Unpark() override { consumer_.Unpark(); }
  void DrainWakeups(bool hung_up) override;
  absl::Status end_status() const override { return end_status_; }

  bool PeerBehind() const override { return producer_.PeerBehind(); }
  int fd() const override { return socket_.get(); }
  bool HungUp() const override { return hung_up_.load(std::memory_order_relaxed); }
  bool CheapToPoll() const override { return true; }
  void Shutdown() override;

 private:
  void RingDoorbell();
  void NoteIfSendBroken();
  bool TakesAfterHangUp(size_t length);

  const std::string name_;
  const framed::UniqueFd socket_;
  const internal::NotForChildren not_for_children_{socket_.get()};
  const Segment own_;
  const PeerSegment peer_;
  RingProducer producer_;
  RingConsumer consumer_;
  uint64_t rung_at_ = 0;                  // the sender's: what had been produced when the doorbell was last rung
  std::atomic<bool> send_broken_{false};  // producer_.broken() is final
  std::atomic<bool> hung_up_{false};      // the peer has closed the socket; written by the receiver
  size_t left_after_hang_up_ = kRingBytes;  // the receiver's
  absl::Status end_status_;
};

}  // namespace shmrpc::shm

#endif  // SHMRPC_TRANSPORTS_SHM_SHM_LINK_H_
