#ifndef SHMRPC_TRANSPORTS_TCP_SOCKET_LINK_H_
#define SHMRPC_TRANSPORTS_TCP_SOCKET_LINK_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "runtime/src/fork.h"
#include "transports/framed/link.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::tcp {

// Frames over a connected stream socket, TCP or Unix, one after the other without anything between them.
//
// Threads: as framed::Link says. The sender's and the receiver's members are disjoint; what both or others read is
// atomic. The socket is closed by the destructor only, so that Shutdown may come from anywhere.
//
// Memory: none while nothing is under way. The receiver reads straight into the caller's chunk, and keeps a buffer only
// for what belongs to later frames or to one that has not come completely; the sender's buffer holds what the kernel
// has not taken yet, kMaxUnsentBytes at most.
//
// Readiness: fd() may be watched edge-triggered. Receive says kEmpty only after the kernel said EAGAIN, PrepareToPark
// says true only after that, and SendBufferFull is true only after EAGAIN on sending.
//
// The end: a failure to send does not throw away what the peer sent before it went. Receive first hands out all of
// that, then says kEnd. Reserve says null as soon as either direction is known to be closed.
class SocketLink final : public framed::Link {
 public:
  // How many committed bytes may wait here for the kernel to take them.
  static constexpr size_t kMaxUnsentBytes = 256 * 1024;

  // `socket` is connected and non-blocking. `name` is "tcp" or "unix". `initial_bytes` were read from the socket
  // already, behind the handshake.
  SocketLink(framed::UniqueFd socket, std::string name, std::string_view initial_bytes);
  ~SocketLink() override = default;

  const std::string& name() const override { return name_; }

  uint8_t* Reserve(size_t size) override;
  void Commit(size_t size) override;
  void Flush(bool always_ring) override;
  bool SendBufferFull() const override;
  bool HasRoom() const override;
  // Flushes first: then it is the kernel that has no room, and the socket will become writable.
  bool AskForRoom() override;
  void RingIfPeerBehind() override {}
  void FinishSending() override;

  ReceiveResult Receive(framed::Chunk* chunk) override;
  // True as well when Receive would report, without a system call, that the link is at its end.
  bool HasFrame() override;
  bool PrepareToPark() override;
  void Unpark() override {}
  void DrainWakeups(bool) override {}
  absl::Status end_status() const override { return end_status_; }

  bool PeerBehind() const override { return false; }
  int fd() const override { return socket_.get(); }
  bool HungUp() const override { return closed_.load(std::memory_order_relaxed); }
  bool CheapToPoll() const override { return false; }
  void Shutdown() override;

 private:
  // A piece of the send buffer without gaps: [begin, end).
  struct Run {
    size_t begin;
    size_t end;
  };

  // The sender.
  size_t NextFramePosition() const;
  void MakeSendRoom(size_t size);
  void MarkSent(size_t bytes);
  void ForgetUnsent();
  void BreakSending(int error);

  // The receiver.
  size_t Buffered() const { return receive_end_ - receive_begin_; }
  // A whole frame is in the buffer, or a length word that no frame may have.
  bool NextIsBuffered() const;
  ReceiveResult TakeBuffered(framed::Chunk* chunk);
  ReceiveResult ReadIntoChunk(framed::Chunk* chunk);
  ReceiveResult ReadIntoBuffer(framed::Chunk* chunk);
  void MakeReceiveRoom(size_t total);
  void Keep(const uint8_t* bytes, size_t size);
  ReceiveResult NothingRead(ssize_t result);
  ReceiveResult End(absl::Status status);
  ReceiveResult EndWithBadLength(uint32_t length);

  const framed::UniqueFd socket_;
  const internal::NotForChildren not_for_children_{socket_.get()};
  const std::string name_;
  const std::string peer_;

  // Either direction is closed, or what was to be sent has been: nothing is sent any more.
  std::atomic<bool> closed_{false};
  // This side called Shutdown.
  std::atomic<bool> shut_down_{false};
  // errno of the send that failed, or 0.
  std::atomic<int> send_error_{0};

  // ---- The sender's. Committed and unsent frames are in the runs from first_run_ on, in ascending order. Each frame
  // starts 8-byte aligned, so that there are gaps behind frames whose size is not a multiple of 8; frames without a
  // gap between them share a run.
  std::unique_ptr<uint8_t[]> send_buffer_;
  size_t send_capacity_ = 0;
  std::vector<Run> runs_;
  size_t first_run_ = 0;
  size_t reserved_at_ = 0;
  size_t reserved_size_ = 0;
  size_t most_unsent_ = 0;         // since the send buffer was empty
  std::atomic<size_t> unsent_{0};  // the bytes in the runs; written by the sender only
  // The kernel has not taken all that Flush gave it. Written by the sender only.
  std::atomic<bool> kernel_full_{false};

  // ---- The receiver's. Bytes that came and were not handed out are in receive_buffer_[receive_begin_, receive_end_).
  std::unique_ptr<uint8_t[]> receive_buffer_;
  size_t receive_capacity_ = 0;
  size_t receive_begin_ = 0;
  size_t receive_end_ = 0;
  bool buffer_used_ = false;   // since the last PrepareToPark
  bool kernel_empty_ = false;  // the last thing the kernel said was EAGAIN
  bool ended_ = false;
  absl::Status end_status_;
};

}  // namespace shmrpc::tcp

#endif  // SHMRPC_TRANSPORTS_TCP_SOCKET_LINK_H_
