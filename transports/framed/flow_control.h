#ifndef SHMRPC_TRANSPORTS_FRAMED_FLOW_CONTROL_H_
#define SHMRPC_TRANSPORTS_FRAMED_FLOW_CONTROL_H_

// The arithmetic of credits, as proto/PROTOCOL.md specifies it: how much of the messages of streams may be under way,
// which means sent and not yet given to the receiving application.
//
// Counted are the messages that have frames of their own (FrameType::kMessage), each with its size and
// kMessageOverheadBytes, so that empty ones count too. The receiver grants a window per call and one per connection; a
// message may be sent when
//
//   1. less is under way for the call than its window, and
//   2. less is under way for the connection than its window, or at most a quarter of its window for the call.
//
// The message itself may go beyond either window: so any message fits, and one that has begun never waits for credit,
// which would hold up the messages of other calls behind it. The quarter is what makes calls independent of each other:
// however many streams nobody reads, another stream goes on.
//
// The receiver checks the first rule; as it knows of what has been given to the application earlier than the sender, a
// sender that keeps the rule never seems to break it. Not so the second: messages that several threads send may reach
// the link in another order than the one in which they were counted, and each may go beyond the window. What a hostile
// sender can make the receiver keep is therefore bounded by its calls: a window and a message for each.
//
// Credit is returned in lumps of an eighth of the window or more: less than the quarter, so that a call whose messages
// were all read always has something left by rule 2.
//
// Not synchronised: guarded by the session's lock.

#include <cstdint>

#include "absl/status/status.h"
#include "shmrpc/transport.h"

namespace shmrpc::framed {

inline uint64_t MessageCost(size_t message_bytes) { return message_bytes + FlowControlOptions::kMessageOverheadBytes; }

// What a credit frame says; see FrameType::kCredit.
struct Credit {
  uint32_t call_bytes = 0;
  uint32_t connection_bytes = 0;
  bool empty() const { return call_bytes == 0 && connection_bytes == 0; }
};

// The sender's account of one connection, and the calls that wait for credit.
//
// A call that may not send waits for credit of its own while its window is used up, and for the connection's otherwise,
// in a queue. Of that queue so many are told as the connection's window has room for, each with the message that it
// waits to send; until a call has sent that, or is over, its place in the window is promised to it. So a credit costs
// what it lets through, however many calls wait: it does not wake all of them for the first to take everything.
//
//   1. A call in the queue waits, and its own window is not used up.
//   2. After TakeSendable has returned null, the queue is empty, or what is under way and what is promised fill the
//      connection's window. Therefore it is called until then after whatever makes either of them less.
class SendAccount {
 public:
  // What is kept for a call. It stays where it is, and OnOver is called before it goes.
  struct Call {
    uint64_t id = 0;  // the owner's, to find the call by
    uint64_t under_way = 0;

    // The account's.
    bool waits = false;      // for credit; TakeSendable has not returned it since
    bool is_queued = false;  // for the connection's credit, or to be told
    bool may_send = false;   // because of its own credit, whatever the connection's window says
    uint64_t wanted = 0;     // what it waits to send, or its window if that is less
    uint64_t promised = 0;   // of the connection's window
    Call* next_queued = nullptr;
    Call* previous_queued = nullptr;
  };

  // `granted`: by the peer.
  explicit SendAccount(const FlowControlOptions& granted) : granted_(granted) {}
  SendAccount(const SendAccount&) = delete;
  SendAccount& operator=(const SendAccount&) = delete;

  // Counts a message as sent. False, and it may not be sent: the call waits from now on.
  bool TrySend(Call* call, uint64_t cost);

  // What was counted was not sent after all. `call` is null when the call is over.
  void OnNotSent(Call* call, uint64_t cost);

  // Credit has come back. `call` is null when the call is over. INTERNAL: more than was under way.
  absl::Status OnCredit(Call* call, const Credit& credit);

  // The call sends nothing any more. What is under way for it stays so for the connection.
  void OnOver(Call* call) { Forget(call); }

  // A call that waits no longer, which is to try again; null: there is none.
  Call* TakeSendable();

 private:
  bool MaySend(const Call& call) const {
    return call.under_way < granted_.stream_bytes &&
           (under_way_ + promised_ < granted_.connection_bytes || call.under_way <= granted_.stream_bytes / 4);
  }
  // It does not wait, and nothing is promised to it.
  void Forget(Call* call);
  void Enqueue(Call* call, bool in_front);
  void Dequeue(Call* call);

  const FlowControlOptions granted_;
  uint64_t under_way_ = 0;
  uint64_t promised_ = 0;  // the sum of all calls' promises
  Call* first_queued_ = nullptr;
  Call* last_queued_ = nullptr;
};

// The receiver's account of one connection.
class ReceiveAccount {
 public:
  struct Call {
    uint64_t unreturned = 0;  // came, and the sender has not been told that it was read
    uint64_t read = 0;        // of that: read
  };

  // `granted`: to the peer.
  explicit ReceiveAccount(const FlowControlOptions& granted) : granted_(granted) {}

  // A message has come. INTERNAL: it should not have been sent.
  absl::Status OnReceived(Call* call, uint64_t cost);

  // The application has got it; what is to be told to the sender now, if anything. `call` is null when the call is over
  // or gets no further messages.
  Credit OnRead(Call* call, uint64_t cost);

 private:
  const FlowControlOptions granted_;
  uint64_t read_ = 0;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_FLOW_CONTROL_H_
