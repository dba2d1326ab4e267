#include "transports/framed/client_session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::framed {
namespace {

// A call's id is its slot's index and, above it, the slot's generation, which never repeats: a late reply to an earlier
// call in the same slot finds nothing, however late.
constexpr int kSlotBits = 20;
constexpr uint64_t kSlotMask = (uint64_t{1} << kSlotBits) - 1;

}  // namespace

ClientSession::ClientSession(std::unique_ptr<Link> link, Poller* poller, const SessionOptions& options)
    : Session(std::move(link), poller, options, /*may_spill=*/false, /*events=*/0) {}

ClientSession::~ClientSession() {
  for (ClientCall* call : unused_calls_) delete call;
}

absl::Status ClientSession::reason_over() const {
  MutexLock lock(&calls_mutex_);
  return reason_over_;
}

// ---- Starting and ending calls.

uint64_t ClientSession::AddCall(ClientCall* call) {
  if (free_slots_.empty()) {
    if (slots_.size() > kSlotMask) return 0;
    free_slots_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.push_back({nullptr, slots_.size() | (uint64_t{1} << kSlotBits)});
  }
  CallSlot& slot = slots_[free_slots_.back()];
  free_slots_.pop_back();
  slot.call = call;
  return slot.id;
}

ClientCall* ClientSession::FindCall(uint64_t id) const {
  const uint64_t index = id & kSlotMask;
  if (index >= slots_.size() || slots_[index].id != id) return nullptr;
  return slots_[index].call;
}

// Takes the call out of the table; whoever gets it, and nobody else, tells its end.
ClientCall* ClientSession::TakeCall(uint64_t id) {
  MutexLock lock(&calls_mutex_);
  return TakeCallLocked(id);
}

ClientCall* ClientSession::TakeCallLocked(uint64_t id) {
  ClientCall* const call = FindCall(id);
  if (call == nullptr) return nullptr;
  CallSlot& slot = slots_[id & kSlotMask];
  slot.call = nullptr;
  slot.id += uint64_t{1} << kSlotBits;
  free_slots_.push_back(static_cast<uint32_t>(id & kSlotMask));
  // Nobody relies on seeing this at once: who still sees the call looks after the link once too often.
  if (call->runs_user_code) {
    async_calls_.store(async_calls_.load(std::memory_order_relaxed) - 1, std::memory_order_release);
  }
  return call;
}

// Whether there is such a call, and a handler must have begun with it.
bool ClientSession::WasAnswered(uint64_t id) {
  MutexLock lock(&calls_mutex_);
  const ClientCall* const call = FindCall(id);
  return call != nullptr && (call->has_headers || (call->stream != nullptr && call->stream->WasAnswered()));
}

bool ClientSession::IsActive(uint64_t id) {
  MutexLock lock(&calls_mutex_);
  return FindCall(id) != nullptr;
}

// The number of `method` on this connection, which the server is told with its first use.
absl::Status ClientSession::AnnounceMethod(std::string_view method, SteadyTime deadline, absl::FunctionRef<bool()> stop,
                                           uint16_t* number) {
  if (method.size() > kMaxMethodBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the method's path is ", method.size(), " bytes long, more than ", kMaxMethodBytes));
  }
  for (;;) {
    if (latest_method_ != nullptr && latest_method_->first == method) {
      *number = latest_method_->second;
      return absl::OkStatus();
    }
    const auto found = method_numbers_.find(ToAbsl(method));
    if (found != method_numbers_.end()) {
      latest_method_ = &*found;
      continue;
    }
    if (method_numbers_.size() >= kMaxMethods ||
        method_bytes_ + method.size() + kMethodOverheadBytes > kMaxMethodTableBytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("too many different methods were called on one connection: ", method_numbers_.size(), " with ",
                       method_bytes_, " bytes of names"));
    }
    const size_t size = kFrameHeaderBytes + method.size();
    bool waited = false;
    uint8_t* const frame = sender_.Reserve(size, deadline, stop, &waited);
    if (frame == nullptr) return absl::UnavailableError("the connection was lost before the call was sent");
    if (waited && method_numbers_.contains(ToAbsl(method)))
      continue;  // another thread was faster; forget the reservation
    FrameHeader header;
    header.type = FrameType::kMethod;
    header.code = static_cast<uint16_t>(method_numbers_.size());
    StoreFrameHeader(frame, header);
    std::memcpy(frame + kFrameHeaderBytes, method.data(), method.size());
    sender_.Commit(size);
    method_numbers_.emplace(method, header.code);
    method_bytes_ += method.size() + kMethodOverheadBytes;
  }
}

void ClientSession::StartCall(const CallSpec& spec, const OutgoingMessage* request, CallEvents* events,
                              std::atomic<Call*>* out) {
  const bool runs_user_code = events->RunsUserCode();
  FrameHeader header;
  header.type = FrameType::kRequest;
  if (spec.client_streams) header.flags |= kFlagOpen;
  if (request == nullptr) header.flags |= kFlagNoMessage;
  std::string control;  // a deadline alone is kept in it without memory of its own
  EncodeRequestControl(spec.deadline, spec.metadata, &header.flags, &control, spec.now);
  ClientCall* call = nullptr;
  absl::Status refused;
  uint64_t id = 0;
  {
    MutexLock lock(&calls_mutex_);
    if (over_.load(std::memory_order_relaxed)) refused = reason_over_;
    if (unused_calls_.empty()) {
      call = new ClientCall;
    } else {
      call = unused_calls_.back();
      unused_calls_.pop_back();
    }
    ++unreleased_calls_;
    call->session = this;
    call->events = events;
    call->runs_user_code = runs_user_code;
    call->max_receive_message_bytes = spec.max_receive_message_bytes;
    if (spec.client_streams || spec.server_streams) {
      call->stream = std::make_unique<ClientCall::Stream>();
      call->stream->one_by_one = spec.server_streams;
      call->deadline = spec.deadline;
    }
    if (refused.ok()) {
      id = AddCall(call);
      if (!keepalive_armed_) ArmKeepalive();
      if (id == 0) {
        refused = absl::ResourceExhaustedError(
            absl::StrCat("more than ", kSlotMask, " calls are in flight on one connection"));
      } else if (runs_user_code) {
        async_calls_.store(async_calls_.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
      }
    }
    call->id = id;
    // With the lock: once the call is in the table, whoever loses the connection may end it.
    out->store(call, std::memory_order_seq_cst);
  }
  // The call is not released before this function returns, unless from inside it: so there is a session, although a
  // callback may destroy the connection at any time.
  if (!refused.ok()) {
    events->OnStatus({.status = std::move(refused), .not_processed = true});
    return;
  }
  // From here on another thread may end the call, and its owner release it: neither `call` nor `events` nor the
  // spec's metadata is touched.
  header.call_id = id;
  const auto stop = [&] {
    return (spec.cancelled != nullptr && spec.cancelled->load(std::memory_order_seq_cst)) || !IsActive(id);
  };
  absl::Status status;
  {
    MutexLock lock(&sender_.mutex());
    status = AnnounceMethod(spec.method, spec.deadline, stop, &header.code);
    // Not sent whole: the deadline has passed, the call is cancelled or the link is over, and then the call is ended by
    // whoever noticed.
    Sender::Outcome outcome = Sender::Outcome::kNothingSent;
    if (status.ok()) outcome = sender_.SendLocked(header, control, request, spec.deadline, stop);
    if (outcome == Sender::Outcome::kSent) NoteSent(id);
    if (outcome == Sender::Outcome::kTooLarge) {
      status = absl::InvalidArgumentError(absl::StrCat("the call's metadata takes ", control.size(),
                                                       " bytes encoded, more than the ", kMaxEncodedControlBytes,
                                                       " that a frame has for it: send larger data in the message"));
    }
  }
  if (!status.ok() && !spec.deadline.HasPassed() && !stop()) {
    const std::shared_ptr<Pollable> alive = shared_from_this();
    ClientCall* const taken = TakeCall(id);
    if (taken != nullptr) EndHere(taken, std::move(status), /*not_processed=*/true);
    return;
  }
  // A look first: nearly always the poller is there. If it is about to leave, it looks at async_calls_ afterwards.
  if (runs_user_code && !poller_present_.load(std::memory_order_seq_cst) &&
      !poller_present_.exchange(true, std::memory_order_seq_cst)) {
    poller_->Kick(shared_from_this());
  }
}

// Before the sender's mutex is released: so whoever closes the sender, and looks afterwards, knows of all that was
// sent. The ids of a slot only grow, so it does no harm when a call that has ended meanwhile is noted behind its
// successor.
void ClientSession::NoteSent(uint64_t id) {
  const size_t slot = id & kSlotMask;
  if (slot >= sent_ids_.size()) sent_ids_.resize(slot + 1);
  sent_ids_[slot] = std::max(sent_ids_[slot], id);
}

void ClientCall::DeliverEnd() {
  // The owner may release the call, and another thread reuse it, as soon as it has the status.
  const Chunks kept = std::move(chunks);
  chunks.clear();
  CallEvents* const to = events;
  CallEnd last = TakeEnd();
  if (has_headers) to->OnHeaders(std::move(end.initial_metadata));
  const LargeMessagePtr kept_large = std::move(large);
  if (has_message && last.status.ok()) {
    to->OnMessage(kept_large != nullptr ? IncomingMessage(*kept_large) : IncomingMessage(pieces));
  }
  to->OnStatus(std::move(last));
}

void ClientCall::Run() {
  ClientSession* const its_session = session;
  if (its_session->BeginQueued(this)) return its_session->RunEvents(this);
  DeliverEnd();
  its_session->NotifyWaiter(this);
}

// Ends a call that TakeCall has returned, for a reason on this side: at once, with what has not been read dropped.
void ClientSession::EndHere(ClientCall* call, absl::Status status, bool not_processed) {
  WakeUp wake_up = WakeUp::kNothing;
  Sendable sendable;
  bool streams;
  {
    MutexLock lock(&calls_mutex_);
    call->end.status = std::move(status);
    call->end.not_processed = not_processed;
    streams = call->stream != nullptr;
    if (streams) {
      call->stream->ended = true;
      call->stream->dropping = true;
      send_account_.OnOver(&call->stream->sent);
      wake_up = MarkDue(call);
      sendable = MarkSendable();
    }
  }
  if (streams) {
    Wake(call, wake_up);
    return WakeSendable(sendable);
  }
  call->DeliverEnd();
  NotifyWaiter(call);
}

void ClientSession::Release(ClientCall* call) {
  call->events = nullptr;
  call->end.initial_metadata.clear();
  call->end.trailing_metadata.clear();
  call->end.status = absl::OkStatus();
  call->end.not_processed = false;
  call->has_headers = false;
  call->has_message = false;
  call->pieces.clear();
  call->chunks.clear();
  call->large = nullptr;
  call->stream = nullptr;
  call->deadline = SteadyTime::InfiniteFuture();
  std::shared_ptr<Pollable> self;  // released after the lock
  MutexLock lock(&calls_mutex_);
  unused_calls_.push_back(call);
  if (--unreleased_calls_ == 0 && closed_) self.swap(self_);
}

void ClientSession::Cancel(ClientCall* call, absl::Status status) {
  const std::shared_ptr<Pollable> alive = shared_from_this();
  ClientCall* const taken = TakeCall(call->id);
  if (taken == nullptr) return CancelEnded(call, std::move(status));
  SendReset(taken->id, status);
  EndHere(taken, std::move(status));
  WakeWaitingSenders();
}

// As Cancel, for a reason that the receiver has found.
void ClientSession::CancelAndReset(uint64_t id, absl::Status status) {
  ClientCall* const taken = TakeCall(id);
  if (taken == nullptr) return;
  SendReset(id, status);
  taken->end.status = std::move(status);
  ChunkPtr none;
  EndCall(taken, none);
}

void ClientSession::SendReset(uint64_t id, const absl::Status& status) {
  FrameHeader header;
  header.type = FrameType::kReset;
  header.call_id = id;
  header.code = static_cast<uint16_t>(status.raw_code());
  sender_.SendControl(header);
}

// The end of a call has arrived; call->pieces may point into `chunk`. Caller holds right_.
void ClientSession::EndCall(ClientCall* call, ChunkPtr& chunk) {
  if (call->stream != nullptr) return EndStream(call, chunk);
  if (!call->runs_user_code) {
    call->DeliverEnd();
    NotifyWaiter(call);
    return;
  }
  {
    MutexLock lock(&calls_mutex_);
    QueueEnd(call, chunk);
  }
  if (!poller_receives_.load(std::memory_order_relaxed)) poller_->Kick(shared_from_this());
}

// For the poller: the end of a call that runs user code, and does not stream.
void ClientSession::QueueEnd(ClientCall* call, ChunkPtr& chunk) {
  if (chunk != nullptr && call->chunks.empty() && !call->pieces.empty()) {
    std::string_view& message = call->pieces[0];
    if (message.size() <= sizeof call->small) {
      // The thread keeps its chunk, for the next frame.
      std::memcpy(call->small, message.data(), message.size());
      message = std::string_view(call->small, message.size());
    } else {
      call->chunks.push_back(std::move(chunk));
    }
  }
  PushEnded(call);
}

void ClientSession::PushEnded(ClientCall* call) {
  call->next_ended = nullptr;
  if (first_ended_ == nullptr) {
    first_ended_ = call;
    has_ended_.store(true, std::memory_order_seq_cst);
  } else {
    last_ended_->next_ended = call;
  }
  last_ended_ = call;
}

ClientCall* ClientSession::PopEnded() {
  ClientCall* const call = first_ended_;
  if (call == nullptr) return nullptr;
  first_ended_ = call->next_ended;
  if (first_ended_ == nullptr) has_ended_.store(false, std::memory_order_relaxed);
  return call;
}

// The first reason is the calls': to hang up is to make the poller find a second one.
void ClientSession::Fail(const absl::Status& reason, bool none_processed) {
  std::vector<std::pair<ClientCall*, uint64_t>> calls;
  std::vector<uint64_t> sent_ids;
  absl::Status status;
  {
    MutexLock lock(&calls_mutex_);
    if (!link_ended_) reason_ended_ = reason;
    status = reason_ended_;
    if (reason_over_.ok()) reason_over_ = status;
    over_.store(true, std::memory_order_release);
    link_ended_ = true;
    for (CallSlot& slot : slots_) {
      if (slot.call != nullptr) calls.emplace_back(slot.call, slot.id);
    }
  }
  sender_.Close();
  link_->Shutdown();
  {
    MutexLock lock(&sender_.mutex());  // from now on nothing is sent
    sent_ids = sent_ids_;
  }
  for (const auto& [call, id] : calls) {
    const bool answered = WasAnswered(id);  // then its handler has begun, whatever the server says now
    if (TakeCall(id) != call) continue;
    const size_t slot = id & kSlotMask;
    const bool sent = slot < sent_ids.size() && sent_ids[slot] >= id;
    const bool not_processed = !answered && (none_processed || !sent);
    call->pieces.clear();
    call->has_message = false;
    call->has_headers = false;
    if (call->stream != nullptr) {
      EndHere(call, status, not_processed);
      continue;
    }
    call->end.status = status;
    call->end.not_processed = not_processed;
    ChunkPtr none;
    EndCall(call, none);
  }
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) waiter->changed.Signal();
}

void ClientSession::Close() {
  const std::shared_ptr<Pollable> alive = shared_from_this();
  {
    MutexLock lock(&calls_mutex_);
    closed_ = true;
    if (unreleased_calls_ > 0) self_ = alive;
  }
  Fail(absl::CancelledError("the channel was destroyed while the call was in progress"));
  poller_->Remove(this);
  internal::DeadlineTimer::Handle timer;
  {
    MutexLock lock(&calls_mutex_);
    timer = keepalive_timer_;
  }
  KeepaliveTimer().Cancel(timer);
  for (;;) {
    ClientCall* call;
    {
      MutexLock lock(&calls_mutex_);
      call = PopEnded();
      if (call == nullptr) return;
    }
    call->Run();
  }
}

// ---- Keepalive.

void ClientSession::ArmKeepalive() {
  if (!keepalive_.enabled() || link_ended_.load(std::memory_order_relaxed)) return;
  keepalive_armed_ = true;
  keepalive_timer_ = KeepaliveTimer().Schedule(SteadyTime::Now() + keepalive_.period(), [weak = weak_from_this()] {
    const std::shared_ptr<Pollable> session = weak.lock();
    if (session != nullptr) static_cast<ClientSession*>(session.get())->OnKeepaliveTimer();
  });
}

void ClientSession::OnKeepaliveTimer() {
  bool has_calls;
  {
    MutexLock lock(&calls_mutex_);
    has_calls = HasCalls();
  }
  if (TickKeepalive(has_calls).dead) return Fail(SilentPeer("server", "the option keepalive_timeout"));
  MutexLock lock(&calls_mutex_);
  keepalive_armed_ = false;
  if (HasCalls()) ArmKeepalive();
}

}  // namespace shmrpc::framed
