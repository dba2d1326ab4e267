#ifndef SHMRPC_TRANSPORTS_FRAMED_LINK_H_
#define SHMRPC_TRANSPORTS_FRAMED_LINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace shmrpc::internal {
class MemoryAccount;
}

namespace shmrpc::framed {

// Limits that every link keeps. A frame with its header fits into one chunk of memory.
inline constexpr size_t kFrameHeaderBytes = 16;
inline constexpr size_t kMaxFrameBytes = 64 * 1024;

// Private memory for one received frame. Chunks are big (kMaxFrameBytes) and recycled; see ChunkPool.
struct Chunk {
  alignas(64) uint8_t data[kMaxFrameBytes];
};

// Carries frames between two processes, in order, both ways: a shared-memory ring pair or a stream socket. A frame is
// kFrameHeaderBytes to kMaxFrameBytes long and begins with its own length (uint32, little-endian, header included).
//
// Two roles use a link at the same time, each held by one thread at a time (the session's locks see to that):
//   the sender    calls Reserve, Commit, Flush, SendBufferFull, AskForRoom, RingIfPeerBehind, FinishSending;
//   the receiver  calls Receive, HasFrame, PrepareToPark, Unpark, DrainWakeups, end_status.
// fd, name, HasRoom, PeerBehind, HungUp, CheapToPoll and Shutdown may be called by any thread.
//
// Glossary. To park: to stop looking at the link and sleep on fd(). Doorbell: what wakes a parked peer.
class Link {
 public:
  virtual ~Link() = default;

  // "shm", "tcp", "unix", "inproc".
  virtual const std::string& name() const = 0;

  // From now on the link's private memory is taken from `account`, which outlives it; before anybody uses the link.
  virtual void CountIn(internal::MemoryAccount*) {}

  // ---- The sender.

  // Memory for a frame of `size` bytes, contiguous, 8-byte aligned; null when there is no room at present or the link
  // is closed. What was reserved before and not committed is forgotten. The first word is the link's until Commit: the
  // peer may be looking at it already.
  virtual uint8_t* Reserve(size_t size) = 0;

  // Hands over the frame in the reserved memory, `size` bytes, not more than were reserved. Its length word is written
  // here, so that a ring can publish with it.
  virtual void Commit(size_t size) = 0;

  // Makes what was committed reach the peer without further help from this side, as far as the kernel takes it at
  // once: never blocks. A ring rings the doorbell if the peer is parked, or in any case if `always_ring`.
  virtual void Flush(bool always_ring) = 0;

  // True when Flush left bytes behind that the kernel did not take: the session then waits until fd() is writable
  // and calls Flush again. Always false for a ring.
  virtual bool SendBufferFull() const = 0;

  // How long the frames of a message should be that does not fit into one. Constant; kFrameHeaderBytes and
  // kMaxControlBytes fit beside some of the message.
  virtual size_t piece_bytes() const { return kMaxFrameBytes; }

  // Whether Reserve(kMaxFrameBytes) would find room. Any thread; a hint that may be out of date.
  virtual bool HasRoom() const = 0;

  // After a Reserve that found no room: asks the peer for a doorbell as soon as it has made some. False when there is
  // room already. A socket need not ask: it becomes writable.
  virtual bool AskForRoom() = 0;

  // Rings the doorbell if the peer has not taken all that was sent here and has not been rung since it was sent. For a
  // caller that is about to sleep until a reply comes, while the peer, not parked, may be busy with something long.
  virtual void RingIfPeerBehind() = 0;

  // Nothing more will be sent: the peer sees kEnd once it has received everything. This side still receives. Only when
  // SendBufferFull() is false. Hanging up at once could take from the peer what it has not received yet.
  virtual void FinishSending() = 0;

  // ---- The receiver.

  enum class ReceiveResult {
    kFrame,  // `chunk` holds the next frame
    kEmpty,  // nothing there now
    kEnd,    // the peer has closed or broken the link: see end_status()
  };

  // Copies the next frame to `chunk` and frees its place in the link. The length word in the copy has been checked:
  // kFrameHeaderBytes to kMaxFrameBytes.
  virtual ReceiveResult Receive(Chunk* chunk) = 0;

  // True when a frame can be received without any system call.
  virtual bool HasFrame() = 0;

  // Announces that nobody looks at the link any more until a doorbell, and looks once more: false when a frame has come
  // meanwhile (and the announcement is taken back). After true: sleep until fd() is readable.
  virtual bool PrepareToPark() = 0;

  // Takes the announcement back. Called by whoever looks at the link again; cheap when it is not parked.
  virtual void Unpark() = 0;

  // To be called when fd() was reported: takes doorbells off a ring's socket. `hung_up`: a hang-up was reported as
  // well, which Receive then reports once everything that had been sent is received; it has to be passed on, because it
  // is reported once, maybe together with doorbells that hide it. A stream socket's bytes are Receive's business.
  virtual void DrainWakeups(bool hung_up) = 0;

  // Why Receive said kEnd. UNAVAILABLE: hung up. INTERNAL: the peer broke the protocol; the message says how.
  virtual absl::Status end_status() const = 0;

  // ---- Any thread.

  // Whether the peer has not yet taken all that was sent. Always false for a socket.
  virtual bool PeerBehind() const = 0;

  // For poll and epoll. Readable means a doorbell, bytes or a hang-up. Owned by the link.
  virtual int fd() const = 0;

  // Whether there will be no room again, because DrainWakeups has noticed, or been told, that the peer is gone, or a
  // stream socket takes no more. The receiver is then to come to the end, whatever waits for room.
  virtual bool HungUp() const { return false; }

  // Whether looking again at once may be cheaper than sleeping (a ring: a load; a socket: a system call).
  virtual bool CheapToPoll() const = 0;

  // Hangs up: the peer sees kEnd, and so does this side. Memory stays valid until destruction.
  virtual void Shutdown() = 0;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_LINK_H_
