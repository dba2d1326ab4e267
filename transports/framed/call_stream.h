#ifndef SHMRPC_TRANSPORTS_FRAMED_CALL_STREAM_H_
#define SHMRPC_TRANSPORTS_FRAMED_CALL_STREAM_H_

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "runtime/src/large_message.h"
#include "shmrpc/message.h"
#include "transports/framed/chunk_pool.h"
#include "transports/framed/flow_control.h"

namespace shmrpc::framed {

// What a received message is made of: the pieces' bytes, and the chunks that own them. Most messages are one piece.
using Pieces = absl::InlinedVector<std::string_view, 1>;
using Chunks = absl::InlinedVector<ChunkPtr, 1>;

// A message that came in several frames.
using LargeMessagePtr = std::unique_ptr<internal::LargeMessage>;

// A message that has come and waits until the application asks for it.
class ReceivedMessage {
 public:
  // The message in `length` bytes at `offset` of `chunk`. A small one is copied, so that it does not occupy a whole
  // chunk; of a larger one the chunk is taken. `cost`: as counted by flow control; 0 when it is not counted.
  ReceivedMessage(ChunkPtr& chunk, size_t offset, size_t length, uint64_t cost) : cost_(cost) {
    if (length == 0) return;
    const char* const bytes = reinterpret_cast<const char*>(chunk->data) + offset;
    if (length > kLargestCopy) {
      pieces_.emplace_back(bytes, length);
      chunks_.push_back(std::move(chunk));
      return;
    }
    copy_ = std::make_unique_for_overwrite<char[]>(length);
    std::memcpy(copy_.get(), bytes, length);
    pieces_.emplace_back(copy_.get(), length);
  }
  ReceivedMessage(Pieces pieces, Chunks chunks, uint64_t cost)
      : pieces_(std::move(pieces)), chunks_(std::move(chunks)), cost_(cost) {}
  ReceivedMessage(LargeMessagePtr large, uint64_t cost) : large_(std::move(large)), cost_(cost) {}

  // A view of it.
  IncomingMessage View() const { return large_ != nullptr ? IncomingMessage(*large_) : IncomingMessage(pieces_); }
  uint64_t cost() const { return cost_; }

 private:
  static constexpr size_t kLargestCopy = 16 * 1024;

  Pieces pieces_;
  Chunks chunks_;
  std::unique_ptr<char[]> copy_;
  LargeMessagePtr large_;  // then the others are empty
  uint64_t cost_;
};

// The state of a call that sends or receives with frames of their own, at either end, and of the delivery of its
// events. Guarded by the session's calls_mutex_.
//
// Events are delivered by one thread at a time: the one that has set `busy`. It goes on until nothing is due, so
// whoever makes something due while `busy` is set need not do more. Events that run the user's code are delivered by
// the poller's threads only: `queued` says that the call is in the list of those that wait for one.
struct CallStream {
  SendAccount::Call sent;
  ReceiveAccount::Call received;
  std::deque<ReceivedMessage> inbox;
  bool wanted = false;    // Receive waits for an answer
  bool dropping = false;  // nobody wants what is in the inbox and what comes
  bool sendable_due = false;

  bool busy = false;
  bool queued = false;
  bool done = false;  // the last event is being or has been delivered
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_CALL_STREAM_H_
