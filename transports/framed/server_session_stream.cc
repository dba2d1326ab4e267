// The part of ServerSession that is about calls with events: their messages, credits, and the threads that wait for
// them.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/spin_pause.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/server_session.h"

namespace shmrpc::framed {

// ---- What the application asks for.

void ServerSession::StartEvents(FramedServerCall* call, ServerCallEvents* events) {
  WakeUp wake_up;
  {
    MutexLock lock(&calls_mutex_);
    if (call->stream == nullptr) {
      call->stream = std::make_unique<FramedServerCall::Stream>();
      call->stream->half_closed = true;
    }
    call->stream->events = events;
    if (call->cancelled.load(std::memory_order_relaxed)) call->stream->cancelled_due = true;
    wake_up = MarkDue(call);
  }
  Wake(call, wake_up);
}

void ServerSession::Receive(FramedServerCall* call) {
  WakeUp wake_up;
  {
    MutexLock lock(&calls_mutex_);
    call->stream->wanted = true;
    wake_up = MarkDue(call);
  }
  Wake(call, wake_up);
}

void ServerSession::SendHeaders(FramedServerCall* call, const Metadata& metadata) {
  FrameHeader header;
  header.type = FrameType::kHeaders;
  header.call_id = call->id;
  std::string body;
  EncodeHeaders(metadata, &header.flags, &body);
  if (!call->cancelled.load(std::memory_order_acquire)) {
    sender_.Send(header, body, nullptr, SteadyTime::InfiniteFuture(),
                 [call] { return call->cancelled.load(std::memory_order_acquire); });
  }
}

SendResult ServerSession::Send(FramedServerCall* call, const OutgoingMessage& message) {
  {
    MutexLock lock(&calls_mutex_);
    if (call->cancelled.load(std::memory_order_relaxed)) return SendResult::kOver;
    FramedServerCall::Stream& stream = *call->stream;
    stream.sent.id = call->id;
    if (!send_account_.TrySend(&stream.sent, MessageCost(message.size()))) return SendResult::kWait;
  }
  FrameHeader header;
  header.type = FrameType::kMessage;
  header.call_id = call->id;
  const Sender::Outcome outcome = sender_.Send(header, std::string_view(), &message, SteadyTime::InfiniteFuture(),
                                               [call] { return call->cancelled.load(std::memory_order_acquire); });
  if (outcome == Sender::Outcome::kSent) return SendResult::kSent;
  // The call is cancelled; or the link is broken, which whoever receives may not have noticed yet. A handler that
  // cannot send any more is to see why.
  WakeUp wake_up;
  Sendable sendable;
  {
    MutexLock lock(&calls_mutex_);
    if (outcome == Sender::Outcome::kNothingSent) {
      send_account_.OnNotSent(&call->stream->sent, MessageCost(message.size()));
    }
    Cancelled(call);
    wake_up = MarkDue(call);
    sendable = MarkSendable();
  }
  WakeSendable(sendable);
  Wake(call, wake_up);
  return SendResult::kOver;
}

// After the reply. Another thread may end the call, and let go of the session with it, before this one is done here.
void ServerSession::Finished(FramedServerCall* call) {
  if (call->stream == nullptr) return EndCall(call);  // without the lock: only what came before Finish could set it
  std::shared_ptr<ServerSession> alive;
  WakeUp wake_up;
  {
    MutexLock lock(&calls_mutex_);
    if (call->stream->events == nullptr) {
      wake_up = WakeUp::kNothing;
    } else {
      alive = std::static_pointer_cast<ServerSession>(shared_from_this());
      call->stream->finished = true;
      wake_up = MarkDue(call);
      if (wake_up == WakeUp::kNothing) return;  // whoever delivers events now ends the call
    }
  }
  if (wake_up == WakeUp::kNothing) return EndCall(call);
  Wake(call, wake_up);
}

// A handler waits for one of its events. It receives itself, spinning or asleep, as long as what comes is for handlers
// that wait; otherwise the link is left to the poller, which leaves it to the handler that it wakes next. So nobody is
// woken only to wake somebody else, as long as the traffic stays of one kind.
bool ServerSession::WaitUntil(FramedServerCall* call, absl::FunctionRef<bool()> done, SteadyTime deadline) {
  if (done()) return true;
  SendBatch::OfThisThread().End();  // what it waits for may be the answer to what it has put off
  if (right_.TryAcquire()) {
    PollUntil(done, deadline);
    if (done()) return true;
  }
  Poller::TaskBlocks();
  MutexLock lock(&waiters_mutex_);
  waiter_count_.fetch_add(1, std::memory_order_seq_cst);
  bool expired = false;
  while (!done() && !expired) expired = call_changed_.WaitUntil(&waiters_mutex_, deadline);
  waiter_count_.fetch_sub(1, std::memory_order_seq_cst);
  return done();
}

// Receives until done(), the deadline, or something comes that is the poller's; then gives right_ back, with the link
// parked or in somebody's care. Caller holds right_.
void ServerSession::PollUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) {
  BeginReceiving();
  bool ended = false;
  bool for_poller = false;
  for (unsigned looks = 1; !done() && !for_poller && !HoldsBack(); ++looks) {
    if (looks % 64 == 0 && deadline.HasPassed()) break;
    ChunkPtr chunk = ChunkPool::TakeForThread();
    const Link::ReceiveResult result = link_->Receive(chunk.get());
    if (result == Link::ReceiveResult::kFrame) {
      NoteReceived();
      FramedServerCall* begun = nullptr;
      const absl::Status status = HandleFrame(chunk, &begun);
      if (begun != nullptr) {
        begun->arrived = SteadyTime::InfinitePast();  // who knows when a thread takes it
        QueueTask(begun);
      }
      for_poller = has_tasks_.load(std::memory_order_relaxed);
      if (status.ok()) continue;
      Fail(status);
      ended = true;
      break;
    }
    if (result == Link::ReceiveResult::kEnd) {
      Fail(EndStatus());
      ended = true;
      break;
    }
    LeaveInputToGuardian();
    if (KeepSpinning()) {
      internal::SpinPause();
      continue;
    }
    if (deadline.HasPassed()) break;
    ReportInput(false);
    if (link_->PrepareToPark()) SleepOnLink(done, deadline);
    BeginReceiving();
    if (link_->CheapToPoll()) ReportInput(true);
  }
  // Input during what the handler does next is the guardian's, unless the client rings.
  bool in_care = ended || (!for_poller && done() && poller_->WatchDuringTask(shared_from_this()));
  if (!in_care) {
    ReportInput(true);
    in_care = HoldsBack() || link_->PrepareToPark();
  }
  const bool marked = right_.Release();
  if (marked || !in_care || for_poller) poller_->Kick(shared_from_this());
}

// ---- Telling it what has happened.

void ServerSession::Cancelled(FramedServerCall* call) {
  if (call->cancelled.exchange(true, std::memory_order_acq_rel)) return;
  if (call->stream == nullptr) return;
  call->stream->cancelled_due = true;
  send_account_.OnOver(&call->stream->sent);
}

ServerSession::WakeUp ServerSession::MarkDue(FramedServerCall* call) {
  if (call->stream == nullptr) return WakeUp::kNothing;
  FramedServerCall::Stream& stream = *call->stream;
  if (stream.busy || stream.queued || stream.done || !stream.IsDue()) return WakeUp::kNothing;
  if (!stream.events->RunsUserCode()) {
    stream.busy = true;
    return WakeUp::kRun;
  }
  stream.queued = true;
  tasks_.push_back(&call->event_task);
  has_tasks_.store(true, std::memory_order_seq_cst);
  return WakeUp::kKick;
}

void ServerSession::Wake(FramedServerCall* call, WakeUp wake_up) {
  if (wake_up == WakeUp::kRun) RunEvents(call);
  if (wake_up == WakeUp::kKick) poller_->Kick(shared_from_this());
}

ServerSession::Sendable ServerSession::MarkSendable() {
  Sendable sendable;
  while (const SendAccount::Call* const found = send_account_.TakeSendable()) {
    FramedServerCall* const call = calls_.Find(found->id);
    if (call == nullptr || call->stream == nullptr) continue;  // it is about to end
    call->stream->sendable_due = true;
    const WakeUp wake_up = MarkDue(call);
    if (wake_up == WakeUp::kRun) sendable.to_run.push_back(call);
    if (wake_up == WakeUp::kKick) sendable.kick = true;
  }
  return sendable;
}

void ServerSession::WakeSendable(const Sendable& sendable) {
  if (sendable.kick) poller_->Kick(shared_from_this());
  for (FramedServerCall* call : sendable.to_run) RunEvents(call);
}

void ServerSession::QueueTask(Task* task) {
  MutexLock lock(&calls_mutex_);
  tasks_.push_back(task);
  has_tasks_.store(true, std::memory_order_seq_cst);
}

void FramedServerCall::EventTask::Run() {
  const std::shared_ptr<Pollable> alive = call->session->shared_from_this();
  call->session->RunQueued(call);
}

void ServerSession::RunQueued(FramedServerCall* call) {
  {
    MutexLock lock(&calls_mutex_);
    call->stream->queued = false;
    call->stream->busy = true;
  }
  RunEvents(call);
}

void ServerSession::RunEvents(FramedServerCall* call) {
  const std::shared_ptr<Pollable> alive = shared_from_this();
  const uint64_t id = call->id;
  calls_mutex_.Lock();
  FramedServerCall::Stream& stream = *call->stream;
  ServerCallEvents* const events = stream.events;
  for (;;) {
    if (stream.finished) {
      stream.done = true;
      calls_mutex_.Unlock();
      events->OnDone();
      EndCall(call);
      return;
    }
    if (stream.cancelled_due) {
      stream.cancelled_due = false;
      stream.wanted = false;
      calls_mutex_.Unlock();
      events->OnCancelled();
      calls_mutex_.Lock();
      continue;
    }
    if (stream.sendable_due) {
      stream.sendable_due = false;
      calls_mutex_.Unlock();
      events->OnSendable();
      calls_mutex_.Lock();
      continue;
    }
    if (stream.wanted && !call->cancelled.load(std::memory_order_relaxed)) {
      if (!stream.inbox.empty()) {
        const ReceivedMessage message = std::move(stream.inbox.front());
        stream.inbox.pop_front();
        stream.wanted = false;
        Credit credit;
        if (message.cost() != 0) credit = receive_account_.OnRead(&stream.received, message.cost());
        calls_mutex_.Unlock();
        events->OnMessage(message.View());
        SendCredit(id, credit);
        calls_mutex_.Lock();
        continue;
      }
      if (stream.half_closed && !stream.half_close_told) {
        stream.wanted = false;
        stream.half_close_told = true;
        calls_mutex_.Unlock();
        events->OnHalfClose();
        calls_mutex_.Lock();
        continue;
      }
    }
    break;
  }
  stream.busy = false;
  calls_mutex_.Unlock();
  NotifyWaiters();
}

// What a thread in WaitUntil waits for has been delivered before: it is either counted here, or sees that it is done.
void ServerSession::NotifyWaiters() {
  if (!HasWaiters()) return;
  waiter_told_.store(true, std::memory_order_relaxed);
  MutexLock lock(&waiters_mutex_);
  call_changed_.SignalAll();
  WakeSleeper();
}

// ---- What comes. The caller holds right_.

absl::Status ServerSession::HandleMessage(const FrameHeader& header, ChunkPtr& chunk) {
  const bool more = (header.flags & kFlagMore) != 0;
  if (more && assembly_.active()) return Malformed("a message in pieces inside another");
  MessageControl control;
  const std::string_view frame(reinterpret_cast<const char*>(chunk->data), header.length);
  absl::Status status = DecodeMessageControl(frame, header, /*from_client=*/true, &control);
  if (!status.ok()) return status;
  const bool open = (header.flags & kFlagOpen) != 0;
  if ((header.flags & kFlagNoMessage) != 0) {
    DeliverMessage(header.call_id, nullptr, /*open=*/false);
    return absl::OkStatus();
  }
  const uint64_t cost = MessageCost(control.message_bytes);
  bool wanted = false;
  const google::protobuf::Descriptor* type = nullptr;
  {
    MutexLock lock(&calls_mutex_);
    ReceiveAccount::Call nobody;
    FramedServerCall* const call = calls_.Find(header.call_id);
    if (call != nullptr && (call->stream == nullptr || call->stream->half_closed)) {
      return Malformed(absl::StrCat("a message of call ", header.call_id, " after the client's last one"));
    }
    status = receive_account_.OnReceived(call == nullptr ? &nobody : &call->stream->received, cost);
    if (!status.ok()) return status;
    wanted = call != nullptr && !call->stream->finished && !call->cancelled.load(std::memory_order_relaxed);
    if (wanted && more) type = options_.handler->request_type(call->method_path);
  }
  if (wanted && control.message_bytes > options_.max_receive_message_bytes) {
    EndTooLarge(header.call_id, control.message_bytes);
    wanted = false;
  }
  if (more) {
    if (wanted) {
      assembly_.Begin(header, control.message_offset, control.message_bytes, type, *chunk);
    } else {
      assembly_.BeginDiscarding(header, control.message_offset, control.message_bytes);
    }
  } else if (wanted) {
    ReceivedMessage message(chunk, control.message_offset, control.message_bytes, cost);
    DeliverMessage(header.call_id, &message, open);
  } else {
    ReturnUnread(cost);
  }
  return absl::OkStatus();
}

// `message` is null for a half-close without one.
void ServerSession::DeliverMessage(uint64_t call_id, ReceivedMessage* message, bool open) {
  const uint64_t cost = message == nullptr ? 0 : message->cost();
  FramedServerCall* call = nullptr;
  WakeUp wake_up = WakeUp::kNothing;
  {
    MutexLock lock(&calls_mutex_);
    FramedServerCall* const found = calls_.Find(call_id);
    if (found != nullptr && found->stream != nullptr && !found->stream->finished) {
      call = found;
      if (message != nullptr) call->stream->inbox.push_back(std::move(*message));
      if (!open) call->stream->half_closed = true;
      wake_up = MarkDue(call);
    }
  }
  if (call == nullptr) return ReturnUnread(cost);
  // Whoever receives looks at the tasks before anything else.
  if (wake_up == WakeUp::kRun) RunEvents(call);
}

// The client is told first, so that nothing about the call goes before; then the handler, whose reply will be dropped,
// sees a cancelled call.
void ServerSession::EndTooLarge(uint64_t call_id, size_t message_bytes) {
  Refuse(call_id, absl::ResourceExhaustedError(absl::StrCat(
                      "a message of ", message_bytes, " bytes came, more than the server's limit of ",
                      options_.max_receive_message_bytes, ": raise it with the option max_receive_message_bytes")));
  FramedServerCall* call = nullptr;
  WakeUp wake_up = WakeUp::kNothing;
  Sendable sendable;
  {
    MutexLock lock(&calls_mutex_);
    call = calls_.Find(call_id);
    if (call == nullptr) return;
    Cancelled(call);
    wake_up = MarkDue(call);
    sendable = MarkSendable();
  }
  WakeSendable(sendable);
  Wake(call, wake_up);
}

absl::Status ServerSession::HandleCredit(const FrameHeader& header, const Chunk& chunk) {
  Credit credit;
  const std::string_view frame(reinterpret_cast<const char*>(chunk.data), header.length);
  absl::Status status = DecodeCredit(frame, header, &credit);
  if (!status.ok()) return status;
  Sendable sendable;
  {
    MutexLock lock(&calls_mutex_);
    FramedServerCall* const found = calls_.Find(header.call_id);
    const bool streams = found != nullptr && found->stream != nullptr;
    status = send_account_.OnCredit(streams ? &found->stream->sent : nullptr, credit);
    if (!status.ok()) return status;
    sendable = MarkSendable();
  }
  sendable.kick = false;  // whoever receives looks at the tasks before anything else
  WakeSendable(sendable);
  return absl::OkStatus();
}

}  // namespace shmrpc::framed
