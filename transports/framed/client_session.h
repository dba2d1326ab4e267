#ifndef SHMRPC_TRANSPORTS_FRAMED_CLIENT_SESSION_H_
#define SHMRPC_TRANSPORTS_FRAMED_CLIENT_SESSION_H_

#include <atomic>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/node_hash_map.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/framed/session.h"

namespace shmrpc::framed {

class ClientCall;

// The client's end of a framed connection: starts calls and brings their ends.
//
// Who receives. A thread that waits for its call takes right_, if it is free, and then receives for everybody: it looks
// at the link, spinning or asleep, and delivers what arrives until its own call is over; then it hands the right to
// another waiting thread. Calls that nobody waits for (RunsUserCode) are looked after by the poller's thread, which is
// woken when the last waiting thread leaves; it also is who runs user code, never a thread that waits for another call.
//
// Streams. What comes for a call that streams is put into its CallStream and delivered by RunEvents, on the thread that
// finds it due or, for calls that run user code, on the poller's.
//
// Lifetime. Its connection holds a session, and when that has gone the session holds itself until all calls are
// released. So a call need not hold it, but whoever goes on after a call may have been released has a reference of its
// own: the poller's threads have one while they run a task.
//
// Locks: the sender's mutex, then calls_mutex_; waiters_mutex_ is taken with neither. right_ may be held when either is
// taken. User code runs with nothing held.
class ClientSession final : public Session {
 public:
  // `poller` outlives the session. Start() before anything else.
  ClientSession(std::unique_ptr<Link> link, Poller* poller, const SessionOptions& options);
  ~ClientSession() override;

  absl::Status Start() { return poller_->Add(shared_from_this(), 0); }

  void StartCall(const CallSpec& spec, const OutgoingMessage* request, CallEvents* events, std::atomic<Call*>* call);

  bool IsOver() const { return over_.load(std::memory_order_acquire); }
  absl::Status reason_over() const;

  // Ends all calls with CANCELLED and hangs up.
  void Close();

  Outcome Poll(bool scanning, Task** task) override;
  bool Park() override;

 private:
  friend class ClientCall;

  // A thread in WaitUntil that does not receive itself.
  struct Waiter {
    const ClientCall* call;  // null: waits for room
    CondVar changed;
    bool elected = false;  // it is its turn to receive
  };

  SendResult Send(ClientCall* call, const OutgoingMessage* message, bool last);
  void Receive(ClientCall* call);
  void DropMessages(ClientCall* call);
  void Cancel(ClientCall* call, absl::Status status);
  bool WaitUntil(const ClientCall* call, absl::FunctionRef<bool()> done, SteadyTime deadline);
  void Release(ClientCall* call);

  void ArmKeepalive() ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  void OnKeepaliveTimer() ABSL_LOCKS_EXCLUDED(calls_mutex_);
  bool HasCalls() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_) { return slots_.size() != free_slots_.size(); }

  uint64_t AddCall(ClientCall* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  ClientCall* FindCall(uint64_t id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  ClientCall* TakeCall(uint64_t id) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  ClientCall* TakeCallLocked(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  bool IsActive(uint64_t id) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  bool WasAnswered(uint64_t id) ABSL_LOCKS_EXCLUDED(calls_mutex_);

  // Events of calls that stream. The first two say what is to be done about an event that has become due, once the
  // lock is released: Wake does it.
  enum class WakeUp { kNothing, kRun, kKick };
  WakeUp MarkDue(ClientCall* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  void Wake(ClientCall* call, WakeUp wake_up) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  // The same for all calls that need wait for credit no longer.
  struct Sendable {
    std::vector<ClientCall*> to_run;
    bool kick = false;
  };
  Sendable MarkSendable() ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  void WakeSendable(const Sendable& sendable) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  // With `busy` set by the caller.
  void RunEvents(ClientCall* call) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  // A call from the list of those that the poller has something to tell of. False: it does not stream.
  bool BeginQueued(ClientCall* call) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  void CancelAndReset(uint64_t id, absl::Status status);
  void CancelEnded(ClientCall* call, absl::Status status);
  void SendReset(uint64_t id, const absl::Status& status);
  void EndHere(ClientCall* call, absl::Status status, bool not_processed = false) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  void EndStream(ClientCall* call, ChunkPtr& chunk) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  absl::Status AnnounceMethod(std::string_view method, SteadyTime deadline, absl::FunctionRef<bool()> stop,
                              uint16_t* number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(sender_.mutex());

  bool PollUntil(absl::FunctionRef<bool()> done, SteadyTime deadline);
  void Sleep(absl::FunctionRef<bool()> done, SteadyTime deadline);
  void HandOver();
  void ReleaseRight();
  void GiveRightBack() override;
  void PassOn(bool parked);
  bool ElectWaiter() ABSL_LOCKS_EXCLUDED(waiters_mutex_);
  bool AcquireForPoller();
  Outcome FindTask(Task** task);
  bool TakeEnded(Task** task) ABSL_LOCKS_EXCLUDED(calls_mutex_);

  Link::ReceiveResult ReceiveOne();
  absl::Status HandleFrame(ChunkPtr& chunk);
  absl::Status HandleResponse(const FrameHeader& header, ChunkPtr& chunk);
  absl::Status HandleFragment(const FrameHeader& header, ChunkPtr& chunk);
  absl::Status HandleHeaders(const FrameHeader& header, const Chunk& chunk);
  absl::Status HandleMessage(const FrameHeader& header, ChunkPtr& chunk);
  absl::Status HandleCredit(const FrameHeader& header, const Chunk& chunk);
  void DeliverMessage(uint64_t call_id, ReceivedMessage message);
  void EndCall(ClientCall* call, ChunkPtr& chunk);
  void QueueEnd(ClientCall* call, ChunkPtr& chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  void PushEnded(ClientCall* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  ClientCall* PopEnded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);  // null when there is none
  // Ends the connection and its calls. `none_processed`: the server says so of all calls that are left; otherwise it is
  // true of those whose request was not sent whole.
  void Fail(const absl::Status& reason, bool none_processed = false);
  void NoteSent(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(sender_.mutex());
  absl::Status HandleGoAway(const FrameHeader& header);
  void NotifyWaiter(const ClientCall* call);
  // Wakes the threads that wait for room, if there is some.
  void TellOfRoom() ABSL_LOCKS_EXCLUDED(waiters_mutex_);
  bool WaitForRoom(SteadyTime deadline, absl::FunctionRef<bool()> stop) override;
  // Makes senders that wait ask whether to stop.
  void WakeWaitingSenders() ABSL_LOCKS_EXCLUDED(waiters_mutex_);

  std::atomic<bool> over_{false};
  std::atomic<bool> link_ended_{false};  // and there is nothing more to receive
  std::atomic<int> async_calls_{0};      // outstanding calls that nobody waits for; changed with calls_mutex_
  std::atomic<bool> has_ended_{false};   // there is an ended call to tell of; changed with calls_mutex_
  // Whether the poller looks after the link: it is in the hot set, or parked with input being reported, or about to be
  // polled. Set by who wants that (and kicks the poller if it was not set), cleared by the poller's thread when it
  // leaves the link to a thread that holds right_, or when no asynchronous call is outstanding.
  std::atomic<bool> poller_present_{false};
  std::atomic<bool> poller_receives_{false};  // the poller's thread holds right_

  struct CallSlot {
    ClientCall* call = nullptr;
    uint64_t id = 0;  // of the current or, with the next generation, the coming call
  };
  std::vector<CallSlot> slots_ ABSL_GUARDED_BY(calls_mutex_);
  std::vector<uint32_t> free_slots_ ABSL_GUARDED_BY(calls_mutex_);
  std::vector<ClientCall*> unused_calls_ ABSL_GUARDED_BY(calls_mutex_);  // memory for coming calls
  size_t unreleased_calls_ ABSL_GUARDED_BY(calls_mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(calls_mutex_) = false;             // the connection has gone
  std::shared_ptr<Pollable> self_ ABSL_GUARDED_BY(calls_mutex_);  // while closed_ and there are unreleased calls
  // The calls that the poller has something to tell of, first in, first out; a list through the calls. has_ended_ says
  // whether there are any.
  ClientCall* first_ended_ ABSL_GUARDED_BY(calls_mutex_) = nullptr;
  ClientCall* last_ended_ ABSL_GUARDED_BY(calls_mutex_) = nullptr;
  TaskHistory callbacks_;  // of telling it
  // Whether behind the last reply that was received there was more that took no system call. A hint.
  std::atomic<bool> more_input_{false};
  absl::Status reason_over_ ABSL_GUARDED_BY(calls_mutex_);
  absl::Status reason_ended_ ABSL_GUARDED_BY(calls_mutex_);  // set with link_ended_

  // The keepalive's timer runs while calls are in flight, and is noticed to be of no use only when it is due.
  bool keepalive_armed_ ABSL_GUARDED_BY(calls_mutex_) = false;
  internal::DeadlineTimer::Handle keepalive_timer_ ABSL_GUARDED_BY(calls_mutex_);

  using MethodNumbers = absl::node_hash_map<std::string, uint16_t>;
  MethodNumbers method_numbers_ ABSL_GUARDED_BY(sender_.mutex());
  // The one that was used last, which mostly is the next one, too; null before the first.
  const MethodNumbers::value_type* latest_method_ ABSL_GUARDED_BY(sender_.mutex()) = nullptr;
  size_t method_bytes_ ABSL_GUARDED_BY(sender_.mutex()) = 0;  // of their names, as the limit counts
  // For each slot the highest id whose request was sent whole: what is not here the server cannot have processed.
  std::vector<uint64_t> sent_ids_ ABSL_GUARDED_BY(sender_.mutex());

  std::list<Waiter*> waiters_ ABSL_GUARDED_BY(waiters_mutex_);
  std::atomic<int> room_waiter_count_{0};
  std::atomic<bool> woke_waiter_{false};  // and the thread that receives has yet to make way for it
};

// One outstanding call; its memory is reused. Everything but the calls through Call's interface belongs to the session.
class ClientCall final : public Call, public Task {
 public:
  SendResult Send(const OutgoingMessage& message, bool last) override { return session->Send(this, &message, last); }
  void HalfClose() override { (void)session->Send(this, nullptr, /*last=*/true); }
  void Receive() override { session->Receive(this); }
  void DropMessages() override { session->DropMessages(this); }
  void Cancel(absl::Status status) override { session->Cancel(this, std::move(status)); }
  bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) override {
    return session->WaitUntil(this, done, deadline);
  }
  void Release() override { session->Release(this); }

  // Tells what there is to tell, on the poller's thread.
  void Run() override;

  ClientSession* session = nullptr;  // while in use, which keeps it
  CallEvents* events = nullptr;
  uint64_t id = 0;
  ClientCall* next_ended = nullptr;  // the session's
  bool runs_user_code = false;
  size_t max_receive_message_bytes = 0;
  SteadyTime deadline = SteadyTime::InfiniteFuture();

  // For calls that stream, or whose server does; null for others. Guarded by the session's calls_mutex_.
  struct Stream : CallStream {
    bool one_by_one = false;  // messages are delivered when asked for
    bool cut = false;         // a message was not sent: nothing may follow, or the rest would pass for the whole
    bool headers_due = false;
    bool headers_told = false;
    Metadata headers;
    bool ended = false;      // `end` holds the call's end
    absl::Status cancelled;  // what to end with instead, when messages were lost; otherwise OK
    bool WasAnswered() const { return headers_due || headers_told; }
    bool IsDue() const {
      return headers_due || sendable_due || (dropping && !inbox.empty()) ||
             (!inbox.empty() && (wanted || !one_by_one)) || (ended && inbox.empty());
    }
  };
  std::unique_ptr<Stream> stream;

  // The end, once it has come. What `pieces` point to is in `chunks`, in `small`, or in the receiving thread's chunk.
  ResponseControl end;
  bool has_headers = false;
  bool has_message = false;
  Pieces pieces;
  Chunks chunks;
  char small[256];
  LargeMessagePtr large;  // the message, if it came in several frames; then the two above are empty

  // What `end` says to the call's events.
  CallEnd TakeEnd() {
    return {.status = std::move(end.status),
            .trailing_metadata = std::move(end.trailing_metadata),
            .not_processed = end.not_processed};
  }

  // Calls the events. The object may be gone afterwards.
  void DeliverEnd();
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_CLIENT_SESSION_H_
