#ifndef SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSION_H_
#define SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSION_H_

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "runtime/src/connection_limiter.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/framed/call_table.h"
#include "transports/framed/server_keepalive.h"
#include "transports/framed/session.h"

namespace shmrpc::framed {

class FramedServerCall;

// The server's end of a framed connection: takes requests off the link and sends replies.
//
// A thread of the poller that finds a request copies it out, gives right_ back, and runs the handler right there; other
// threads can take the next request meanwhile. Replies are sent by the handler's thread. A handler that waits in
// WaitUntil looks at the link itself for a while.
//
// Streams. What comes for a call that has events is put into its CallStream and delivered by RunEvents, on the thread
// that finds it due or, for events that run user code, on the poller's.
//
// Lifetime. Its listener holds a session until it is over, and from then on it holds itself for as long as it has
// calls. So a call need not hold it, but whoever goes on after a call may have ended has a reference of its own.
//
// Locks: calls_mutex_ is taken with neither the sender's mutex nor right_ wanted afterwards. Handlers run with nothing
// held.
class ServerSession final : public Session {
 public:
  // What a listener does with its sessions.
  struct Options {
    CallHandler* handler = nullptr;  // outlives the session
    size_t max_receive_message_bytes = kDefaultMaxMessageBytes;
    SessionOptions session;
    size_t hold_back_bytes = ConnectionLimits().hold_back_bytes;  // of replies that wait; then no more is received
    int max_calls = ConnectionLimits().max_calls_per_connection;
    Peer peer;
    // Called once when the connection is over, without locks; calls may still be running.
    std::function<void(ServerSession*)> on_over;
    std::shared_ptr<ServerKeepalive> keepalive;
  };

  // `place`: the connection's, given back when it is over and its handlers have returned; may be null.
  ServerSession(std::unique_ptr<Link> link, std::shared_ptr<Poller> poller, Options options,
                internal::ConnectionLimiter::PlacePtr place = nullptr);
  ~ServerSession() override;

  absl::Status Start();

  // Tells the client to begin no more calls; those that still come are refused as not processed.
  void BeginDrain();
  // No call is in progress and no reply is waiting to be sent.
  bool IsDrained() const;
  // No call is in progress: nothing will call the handler's or an application's code any more, and once it is over as
  // well, nothing the poller.
  bool IsIdle() const;

  // After BeginDrain: gives calls that are still in progress their answer, UNAVAILABLE, and then tells the client that
  // of all others none was processed. Then the client hangs up, and so the session is over.
  void SayFarewell();
  // After SayFarewell: what was sent is on its way to the client, and nothing will follow. False: not yet, try again.
  bool FinishSending() { return sender_.Finish(); }

  // Hangs up; calls in progress see themselves cancelled and their replies go nowhere.
  void Close();

  // A tick of the listener's keepalive. True: something is in progress.
  bool OnKeepaliveTick();
  absl::Duration keepalive_period() const { return keepalive_.period(); }

  Outcome Poll(bool scanning, Task** task) override;
  bool Park() override;

 private:
  friend class FramedServerCall;

  struct Method {
    Method(std::string_view its_path, const ResolvedMethod* as) : path(its_path), resolved(as) {}
    const std::string path;
    const ResolvedMethod* const resolved;
    TaskHistory history;
  };

  Outcome FindTask(bool scanning, Task** task);
  bool TakeQueuedTask(bool more, Task** task) ABSL_LOCKS_EXCLUDED(calls_mutex_);

  absl::Status HandleFrame(ChunkPtr& chunk, FramedServerCall** call);
  absl::Status HandleMethod(const FrameHeader& header, const Chunk& chunk);
  absl::Status HandleRequest(const FrameHeader& header, ChunkPtr& chunk, FramedServerCall** call);
  absl::Status HandleReset(const FrameHeader& header);
  absl::Status HandleMessage(const FrameHeader& header, ChunkPtr& chunk);
  absl::Status HandleFragment(const FrameHeader& header, ChunkPtr& chunk, FramedServerCall** call);
  absl::Status HandleCredit(const FrameHeader& header, const Chunk& chunk);
  // `open`: more messages follow.
  void DeliverMessage(uint64_t call_id, ReceivedMessage* message, bool open);
  void EndTooLarge(uint64_t call_id, size_t message_bytes);
  // A call whose request is whole is registered here; null when it was refused.
  absl::Status BeginCall(std::unique_ptr<FramedServerCall> begun, FramedServerCall** call);
  // Only the receiver makes calls more, so if there is room for one it is there until it has begun. A session that
  // drains refuses calls for that.
  bool HasRoomForCall() const {
    return unanswered_calls_.load(std::memory_order_relaxed) < options_.max_calls || draining_;
  }
  void RefuseOneTooMany(uint64_t call_id);
  void Refuse(uint64_t call_id, const absl::Status& status, bool not_processed = false);
  void SendReply(uint64_t call_id, const ServerCall::Reply& reply, absl::FunctionRef<bool()> stop);
  void EndCall(FramedServerCall* call);
  void Fail(const absl::Status& status);
  bool WaitForRoom(SteadyTime deadline, absl::FunctionRef<bool()> stop) override;
  void GiveRightBack() override;
  void NoteActivity() {
    if (keepalive_.enabled()) options_.keepalive->NoteActivity();
  }
  // With so many replies that the client does not take, take nothing more from it, unless it is gone. Not with few: the
  // client may be idle, and what it has sent may tell the handlers of those replies that they are of no use any more.
  bool HoldsBack() const {
    return sender_.SpilledBytes() > options_.hold_back_bytes &&
           (sender_.overflowed() || (!link_->HasRoom() && !link_->HungUp()));
  }

  // What the calls ask for; see ServerCall.
  void StartEvents(FramedServerCall* call, ServerCallEvents* events);
  void Receive(FramedServerCall* call);
  void SendHeaders(FramedServerCall* call, const Metadata& metadata);
  SendResult Send(FramedServerCall* call, const OutgoingMessage& message);
  bool WaitUntil(FramedServerCall* call, absl::FunctionRef<bool()> done, SteadyTime deadline);
  void PollUntil(absl::FunctionRef<bool()> done, SteadyTime deadline);
  void Finished(FramedServerCall* call);

  // As in ClientSession.
  enum class WakeUp { kNothing, kRun, kKick };
  // MarkSendable is to follow.
  void Cancelled(FramedServerCall* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  WakeUp MarkDue(FramedServerCall* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  void Wake(FramedServerCall* call, WakeUp wake_up) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  struct Sendable {
    std::vector<FramedServerCall*> to_run;
    bool kick = false;
  };
  Sendable MarkSendable() ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_mutex_);
  void WakeSendable(const Sendable& sendable) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  void RunEvents(FramedServerCall* call) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  void RunQueued(FramedServerCall* call) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  void NotifyWaiters() ABSL_LOCKS_EXCLUDED(waiters_mutex_);
  void QueueTask(Task* task) ABSL_LOCKS_EXCLUDED(calls_mutex_);

  // A thread of the application's may have made an event due, and not yet kicked the poller for it, when the call has
  // already ended, and with it all that waited for it.
  const std::shared_ptr<Poller> kept_poller_;
  const Options options_;
  std::atomic<bool> draining_{false};  // set with calls_mutex_
  std::atomic<bool> over_{false};

  // With right_: what the client has told of itself.
  std::vector<std::unique_ptr<Method>> methods_;
  size_t method_bytes_ = 0;
  std::unique_ptr<FramedServerCall> spare_call_;  // memory for the next one
  std::unique_ptr<FramedServerCall> assembling_;  // its request is in assembly_

  CallTable<FramedServerCall> calls_ ABSL_GUARDED_BY(calls_mutex_);
  // Calls whose reply is not being sent yet; grows with calls_mutex_. Less than what is in calls_: the client may begin
  // its next call as soon as it has the reply, before this call is out of the table. Nothing else is ordered by it: who
  // has the client's next request has what its handler's thread did before it sent the reply.
  std::atomic<int> unanswered_calls_{0};
  internal::ConnectionLimiter::PlacePtr place_ ABSL_GUARDED_BY(calls_mutex_);
  std::shared_ptr<ServerSession> self_ ABSL_GUARDED_BY(calls_mutex_);  // while over_ and calls_ is not empty
  std::vector<std::unique_ptr<FramedServerCall>> unused_calls_ ABSL_GUARDED_BY(calls_mutex_);
  std::deque<Task*> tasks_ ABSL_GUARDED_BY(calls_mutex_);  // for the poller's threads
  std::atomic<bool> has_tasks_{false};
  TaskHistory queued_tasks_;  // of tasks_

  CondVar call_changed_;                  // something was delivered to a call that somebody waits for
  std::atomic<bool> waiter_told_{false};  // the latest that was received was for a thread that waited
};

// One call in progress; its memory is reused.
class FramedServerCall final : public ServerCall, public Task {
 public:
  ~FramedServerCall() override = default;

  std::string_view method() const override { return method_path; }
  const ResolvedMethod* resolved_method() const override { return resolved; }
  SteadyTime arrival() const override { return arrived; }
  SteadyTime deadline() const override { return deadline_; }
  const Metadata& metadata() const override { return client_metadata; }
  const Peer& peer() const override;
  bool IsCancelled() const override;
  absl::StatusCode ended_by_client() const override { return reset_by_client.load(std::memory_order_acquire); }
  void Start(ServerCallEvents* to) override { session->StartEvents(this, to); }
  void Receive() override { session->Receive(this); }
  void SendHeaders(const Metadata& headers) override { session->SendHeaders(this, headers); }
  SendResult Send(const OutgoingMessage& message) override { return session->Send(this, message); }
  bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime until) override {
    return session->WaitUntil(this, done, until);
  }
  void Finish(const Reply& reply) override;

  // Hands the call to the handler.
  void Run() override;
  TaskHistory* history() override { return method_history; }

  ServerSession* session = nullptr;  // while the call is in progress, which keeps it
  uint64_t id = 0;
  FramedServerCall* next_in_table = nullptr;
  std::string_view method_path;
  TaskHistory* method_history = nullptr;  // on this connection
  const ResolvedMethod* resolved = nullptr;
  SteadyTime arrived;
  SteadyTime deadline_ = SteadyTime::InfiniteFuture();
  Metadata client_metadata;
  std::atomic<bool> cancelled{false};
  std::atomic<absl::StatusCode> reset_by_client{absl::StatusCode::kOk};  // DEADLINE_EXCEEDED, CANCELLED, or no reset
  bool open = false;         // the request comes in messages of its own, or not at all
  bool has_request = false;  // in `pieces`
  Pieces pieces;             // of the request
  Chunks chunks;             // own what pieces point to
  LargeMessagePtr large;     // the request, if it came in several frames; then the two above are empty

  // For calls that stream or have events; null for others. Guarded by the session's calls_mutex_.
  struct Stream : CallStream {
    ServerCallEvents* events = nullptr;
    bool half_closed = false;
    bool half_close_told = false;
    bool cancelled_due = false;
    bool finished = false;
    bool IsDue() const {
      if (events == nullptr) return false;
      return cancelled_due || sendable_due || (wanted && (!inbox.empty() || (half_closed && !half_close_told))) ||
             finished;
    }
  };
  std::unique_ptr<Stream> stream;

  // Delivers events on a thread of the poller.
  struct EventTask final : Task {
    explicit EventTask(FramedServerCall* its_call) : call(its_call) {}
    void Run() override;
    FramedServerCall* const call;
  };
  EventTask event_task{this};

 private:
  void Abandon() override;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSION_H_
