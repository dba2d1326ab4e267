// The part of ClientSession that is about streams: messages with frames of their own, credits, and the events of calls
// that have them.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transports/framed/client_session.h"

namespace shmrpc::framed {

// ---- What the application asks for.

SendResult ClientSession::Send(ClientCall* call, const OutgoingMessage* message, bool last) {
  const uint64_t id = call->id;
  FrameHeader header;
  header.type = FrameType::kMessage;
  header.call_id = id;
  if (!last) header.flags |= kFlagOpen;
  if (message == nullptr) header.flags |= kFlagNoMessage;
  {
    MutexLock lock(&calls_mutex_);
    if (FindCall(id) != call || call->stream->cut) return SendResult::kOver;
    if (message != nullptr) {
      ClientCall::Stream& stream = *call->stream;
      stream.sent.id = id;
      if (!send_account_.TrySend(&stream.sent, MessageCost(message->size()))) return SendResult::kWait;
    }
  }
  const Sender::Outcome outcome =
      sender_.Send(header, std::string_view(), message, call->deadline, [this, id] { return !IsActive(id); });
  if (outcome == Sender::Outcome::kSent) return SendResult::kSent;
  // Also while the call is active still: the deadline has passed, and whoever keeps it is about to say so.
  Sendable sendable;
  {
    MutexLock lock(&calls_mutex_);
    ClientCall* const active = FindCall(id);
    if (active != nullptr) active->stream->cut = true;
    if (outcome == Sender::Outcome::kNothingSent && message != nullptr) {
      send_account_.OnNotSent(active == nullptr ? nullptr : &active->stream->sent, MessageCost(message->size()));
      sendable = MarkSendable();
    }
  }
  WakeSendable(sendable);
  return SendResult::kOver;
}

void ClientSession::Receive(ClientCall* call) {
  WakeUp wake_up;
  {
    MutexLock lock(&calls_mutex_);
    call->stream->wanted = true;
    wake_up = MarkDue(call);
  }
  Wake(call, wake_up);
}

void ClientSession::DropMessages(ClientCall* call) {
  WakeUp wake_up = WakeUp::kNothing;
  {
    MutexLock lock(&calls_mutex_);
    if (call->stream == nullptr) return;
    call->stream->dropping = true;
    wake_up = MarkDue(call);
  }
  Wake(call, wake_up);
}

// The server has ended the call. If that waits behind messages, they are lost now: the server's status, told without
// them, would pass a part of the stream off as the whole.
void ClientSession::CancelEnded(ClientCall* call, absl::Status status) {
  WakeUp wake_up = WakeUp::kNothing;
  {
    MutexLock lock(&calls_mutex_);
    if (call->stream == nullptr) return;
    ClientCall::Stream& stream = *call->stream;
    // Not ended: the thread that has received the end is about to note it.
    const bool loses_messages = !stream.dropping && (!stream.ended || !stream.inbox.empty());
    if (loses_messages && !stream.done) stream.cancelled = std::move(status);
    stream.dropping = true;
    wake_up = MarkDue(call);
  }
  Wake(call, wake_up);
}

// ---- Telling it what has happened.

ClientSession::WakeUp ClientSession::MarkDue(ClientCall* call) {
  ClientCall::Stream& stream = *call->stream;
  if (stream.busy || stream.queued || stream.done || !stream.IsDue()) return WakeUp::kNothing;
  if (!call->runs_user_code) {
    stream.busy = true;
    return WakeUp::kRun;
  }
  stream.queued = true;
  PushEnded(call);
  return WakeUp::kKick;
}

// `call` may be gone when there is nothing to do.
void ClientSession::Wake(ClientCall* call, WakeUp wake_up) {
  switch (wake_up) {
    case WakeUp::kNothing:
      return;
    case WakeUp::kRun:
      return RunEvents(call);
    case WakeUp::kKick:
      return poller_->Kick(shared_from_this());
  }
}

ClientSession::Sendable ClientSession::MarkSendable() {
  Sendable sendable;
  while (const SendAccount::Call* const found = send_account_.TakeSendable()) {
    ClientCall* const call = FindCall(found->id);
    if (call == nullptr || call->stream == nullptr) continue;  // it is about to end
    call->stream->sendable_due = true;
    const WakeUp wake_up = MarkDue(call);
    if (wake_up == WakeUp::kRun) sendable.to_run.push_back(call);
    if (wake_up == WakeUp::kKick) sendable.kick = true;
  }
  return sendable;
}

void ClientSession::WakeSendable(const Sendable& sendable) {
  if (sendable.kick) poller_->Kick(shared_from_this());
  for (ClientCall* call : sendable.to_run) RunEvents(call);
}

bool ClientSession::BeginQueued(ClientCall* call) {
  // Without the lock: it is set before a call that streams is queued, and never for one that is queued because it
  // ended.
  if (call->stream == nullptr) return false;
  MutexLock lock(&calls_mutex_);
  call->stream->queued = false;
  call->stream->busy = true;
  return true;
}

void ClientSession::RunEvents(ClientCall* call) {
  const std::shared_ptr<Pollable> alive = shared_from_this();  // the call may be gone, and with it the session
  const uint64_t id = call->id;
  CallEvents* const events = call->events;
  calls_mutex_.Lock();
  ClientCall::Stream& stream = *call->stream;
  for (;;) {
    if (stream.headers_due) {
      stream.headers_due = false;
      stream.headers_told = true;
      Metadata headers = std::move(stream.headers);
      calls_mutex_.Unlock();
      events->OnHeaders(std::move(headers));
      calls_mutex_.Lock();
      continue;
    }
    if (stream.sendable_due) {
      stream.sendable_due = false;
      if (!stream.ended) {
        calls_mutex_.Unlock();
        events->OnSendable();
        calls_mutex_.Lock();
      }
      continue;
    }
    if (!stream.inbox.empty() && (stream.dropping || stream.wanted || !stream.one_by_one)) {
      const ReceivedMessage message = std::move(stream.inbox.front());
      stream.inbox.pop_front();
      Credit credit;
      if (message.cost() != 0) {
        credit = receive_account_.OnRead(stream.ended ? nullptr : &stream.received, message.cost());
      }
      const bool deliver = !stream.dropping;
      const uint64_t credit_to = stream.ended ? 0 : id;
      if (deliver) stream.wanted = false;
      calls_mutex_.Unlock();
      if (deliver) events->OnMessage(message.View());
      SendCredit(credit_to, credit);
      calls_mutex_.Lock();
      continue;
    }
    if (stream.ended && stream.inbox.empty()) {
      stream.done = true;
      CallEnd end = stream.cancelled.ok() ? call->TakeEnd() : CallEnd{.status = std::move(stream.cancelled)};
      calls_mutex_.Unlock();
      events->OnStatus(std::move(end));
      NotifyWaiter(call);
      return;
    }
    break;
  }
  stream.busy = false;
  calls_mutex_.Unlock();
  NotifyWaiter(call);
}

// ---- What comes. The caller holds right_.

// A call whose stream ends because the server says so. TakeCall has returned it, call->pieces may point into `chunk`.
void ClientSession::EndStream(ClientCall* call, ChunkPtr& chunk) {
  WakeUp wake_up;
  Sendable sendable;
  {
    MutexLock lock(&calls_mutex_);
    ClientCall::Stream& stream = *call->stream;
    if (call->has_headers && !stream.headers_told && !stream.headers_due) {
      stream.headers_due = true;
      stream.headers = std::move(call->end.initial_metadata);
    }
    if (call->has_message && call->end.status.ok()) {
      if (call->large != nullptr) {
        stream.inbox.emplace_back(std::move(call->large), /*cost=*/0);
      } else {
        if (call->chunks.empty() && chunk != nullptr) call->chunks.push_back(std::move(chunk));
        stream.inbox.emplace_back(std::move(call->pieces), std::move(call->chunks), /*cost=*/0);
      }
      call->pieces.clear();
      call->chunks.clear();
    }
    stream.ended = true;
    send_account_.OnOver(&stream.sent);
    wake_up = MarkDue(call);
    sendable = MarkSendable();
  }
  Wake(call, wake_up);
  WakeSendable(sendable);
}

absl::Status ClientSession::HandleHeaders(const FrameHeader& header, const Chunk& chunk) {
  Metadata metadata;
  const std::string_view frame(reinterpret_cast<const char*>(chunk.data), header.length);
  absl::Status decoded = DecodeHeaders(frame, header, &metadata);
  if (!decoded.ok() && !absl::IsInvalidArgument(decoded)) return decoded;
  ClientCall* call;
  WakeUp wake_up = WakeUp::kNothing;
  {
    MutexLock lock(&calls_mutex_);
    call = FindCall(header.call_id);
    if (call == nullptr) return absl::OkStatus();
    if (call->stream == nullptr) call->stream = std::make_unique<ClientCall::Stream>();
    ClientCall::Stream& stream = *call->stream;
    if (stream.headers_told || stream.headers_due) return Malformed("headers that come too late");
    if (decoded.ok()) {
      stream.headers_due = true;
      stream.headers = std::move(metadata);
      wake_up = MarkDue(call);
    }
  }
  if (!decoded.ok()) {
    CancelAndReset(header.call_id, absl::InternalError(decoded.message()));
  } else {
    Wake(call, wake_up);
  }
  return absl::OkStatus();
}

absl::Status ClientSession::HandleMessage(const FrameHeader& header, ChunkPtr& chunk) {
  const bool more = (header.flags & kFlagMore) != 0;
  if (more && assembly_.active()) return Malformed("a message in pieces inside another");
  MessageControl control;
  const std::string_view frame(reinterpret_cast<const char*>(chunk->data), header.length);
  absl::Status status = DecodeMessageControl(frame, header, /*from_client=*/false, &control);
  if (!status.ok()) return status;
  const uint64_t cost = MessageCost(control.message_bytes);
  bool wanted = false;
  size_t limit = 0;
  const google::protobuf::Descriptor* type = nullptr;
  {
    MutexLock lock(&calls_mutex_);
    ClientCall* const call = FindCall(header.call_id);
    ReceiveAccount::Call nobody;
    if (call != nullptr && call->stream == nullptr) call->stream = std::make_unique<ClientCall::Stream>();
    status = receive_account_.OnReceived(call != nullptr ? &call->stream->received : &nobody, cost);
    if (!status.ok()) return status;
    wanted = call != nullptr;
    if (wanted) limit = call->max_receive_message_bytes;
    if (wanted && more) type = call->events->message_type();
  }
  if (wanted && control.message_bytes > limit) {
    CancelAndReset(header.call_id,
                   absl::ResourceExhaustedError(absl::StrCat(
                       "a message of ", control.message_bytes, " bytes came, more than the client's limit of ", limit,
                       ": raise max_receive_message_bytes of the channel or the call")));
    wanted = false;
  }
  if (more) {
    if (wanted) {
      assembly_.Begin(header, control.message_offset, control.message_bytes, type, *chunk);
    } else {
      assembly_.BeginDiscarding(header, control.message_offset, control.message_bytes);
    }
  } else if (wanted) {
    DeliverMessage(header.call_id, ReceivedMessage(chunk, control.message_offset, control.message_bytes, cost));
  } else {
    ReturnUnread(cost);
  }
  return absl::OkStatus();
}

void ClientSession::DeliverMessage(uint64_t call_id, ReceivedMessage message) {
  const uint64_t cost = message.cost();
  ClientCall* call = nullptr;
  WakeUp wake_up = WakeUp::kNothing;
  {
    MutexLock lock(&calls_mutex_);
    ClientCall* const found = FindCall(call_id);
    if (found != nullptr && found->stream != nullptr) {
      call = found;
      ClientCall::Stream& stream = *call->stream;
      if (!stream.headers_told) stream.headers_due = true;  // without metadata if no frame has brought any
      stream.inbox.push_back(std::move(message));
      wake_up = MarkDue(call);
    }
  }
  if (call == nullptr) return ReturnUnread(cost);
  if (wake_up == WakeUp::kKick && poller_receives_.load(std::memory_order_relaxed)) return;  // this thread looks itself
  Wake(call, wake_up);
}

absl::Status ClientSession::HandleCredit(const FrameHeader& header, const Chunk& chunk) {
  Credit credit;
  const std::string_view frame(reinterpret_cast<const char*>(chunk.data), header.length);
  absl::Status status = DecodeCredit(frame, header, &credit);
  if (!status.ok()) return status;
  Sendable sendable;
  {
    MutexLock lock(&calls_mutex_);
    ClientCall* const call = FindCall(header.call_id);
    const bool streams = call != nullptr && call->stream != nullptr;
    status = send_account_.OnCredit(streams ? &call->stream->sent : nullptr, credit);
    if (!status.ok()) return status;
    sendable = MarkSendable();
  }
  if (poller_receives_.load(std::memory_order_relaxed)) sendable.kick = false;  // this thread looks itself
  WakeSendable(sendable);
  return absl::OkStatus();
}

}  // namespace shmrpc::framed
