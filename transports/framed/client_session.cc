#include "transports/framed/client_session.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace shmrpc::framed {
namespace {

// A call's id is its slot's index and, above it, the slot's generation, which never repeats: a late reply to an earlier
// call in the same slot finds nothing, however late.
constexpr int kSlotBits = 20;
constexpr uint64_t kSlotMask = (uint64_t{1} << kSlotBits) - 1;

constexpr size_t kMaxMethodBytes = 4096;
constexpr size_t kMaxMethods = 65536;

// How often to look, before ringing, whether the server has taken what was sent: about two microseconds' worth.
constexpr int kPeerBehindLooks = 40;

// The calling thread's means to be woken while it sleeps on a link's descriptor; -1 when there is no descriptor left,
// and then it sleeps in short steps.
int ThreadEvent() {
  static thread_local UniqueFd event;
  if (!event.valid()) event.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return event.get();
}
constexpr absl::Duration kShortStep = absl::Milliseconds(10);

bool Passed(absl::Time deadline) { return deadline != absl::InfiniteFuture() && absl::Now() >= deadline; }

}  // namespace

ClientSession::ClientSession(std::unique_ptr<Link> link, Poller* poller, SpinPolicy spin_policy)
    : Session(std::move(link), poller, spin_policy, /*may_spill=*/false, /*events=*/0) {}

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
  ClientCall* const call = FindCall(id);
  if (call == nullptr) return nullptr;
  CallSlot& slot = slots_[id & kSlotMask];
  slot.call = nullptr;
  slot.id += uint64_t{1} << kSlotBits;
  free_slots_.push_back(static_cast<uint32_t>(id & kSlotMask));
  if (call->runs_user_code) async_calls_.fetch_sub(1, std::memory_order_seq_cst);
  return call;
}

bool ClientSession::IsActive(uint64_t id) {
  MutexLock lock(&calls_mutex_);
  return FindCall(id) != nullptr;
}

// The number of `method` on this connection, which the server is told with its first use.
absl::Status ClientSession::AnnounceMethod(absl::string_view method, absl::Time deadline, uint16_t* number) {
  if (method.size() > kMaxMethodBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the method's path is ", method.size(), " bytes long, more than ", kMaxMethodBytes));
  }
  for (;;) {
    auto found = method_numbers_.find(method);
    if (found != method_numbers_.end()) {
      *number = found->second;
      return absl::OkStatus();
    }
    if (method_numbers_.size() >= kMaxMethods) {
      return absl::ResourceExhaustedError(
          absl::StrCat("more than ", kMaxMethods, " different methods were called on one connection"));
    }
    const size_t size = kFrameHeaderBytes + method.size();
    bool waited = false;
    uint8_t* const frame = sender_.Reserve(size, deadline, &waited);
    if (frame == nullptr) return absl::UnavailableError("the connection was lost before the call was sent");
    if (waited && method_numbers_.contains(method)) continue;  // another thread was faster; forget the reservation
    FrameHeader header;
    header.type = FrameType::kMethod;
    header.code = static_cast<uint16_t>(method_numbers_.size());
    StoreFrameHeader(frame, header);
    std::memcpy(frame + kFrameHeaderBytes, method.data(), method.size());
    sender_.Commit(size);
    method_numbers_.emplace(method, header.code);
  }
}

void ClientSession::StartCall(const CallSpec& spec, const OutgoingMessage& request, CallEvents* events, Call** out) {
  const bool runs_user_code = events->RunsUserCode();
  FrameHeader header;
  header.type = FrameType::kRequest;
  static thread_local std::string control;
  EncodeRequestControl(spec.deadline, spec.metadata, &header.flags, &control);
  ClientCall* call = nullptr;
  absl::Status refused;
  uint64_t id = 0;
  {
    MutexLock lock(&calls_mutex_);
    if (over_.load(std::memory_order_relaxed)) {
      refused = reason_over_;
    }
    if (unused_calls_.empty()) {
      call = new ClientCall;
    } else {
      call = unused_calls_.back();
      unused_calls_.pop_back();
    }
    call->session = std::static_pointer_cast<ClientSession>(shared_from_this());
    call->events = events;
    call->runs_user_code = runs_user_code;
    call->max_receive_message_bytes = spec.max_receive_message_bytes;
    if (refused.ok()) {
      id = AddCall(call);
      if (id == 0) {
        refused = absl::ResourceExhaustedError(
            absl::StrCat("more than ", kSlotMask, " calls are in flight on one connection"));
      } else if (runs_user_code) {
        async_calls_.fetch_add(1, std::memory_order_seq_cst);
      }
    }
    call->id = id;
  }
  *out = call;
  if (!refused.ok()) {
    events->OnStatus(std::move(refused), Metadata());
    return;
  }
  // From here on another thread may end the call, and its owner release it: neither `call` nor `events` nor the
  // spec's metadata is touched.
  header.call_id = id;
  absl::Status status;
  {
    MutexLock lock(&sender_.mutex());
    status = AnnounceMethod(spec.method, spec.deadline, &header.code);
    // Not sent whole: the deadline has passed or the link is over, and then the call is ended by whoever noticed.
    if (status.ok()) {
      sender_.SendLocked(header, control, &request, spec.deadline, [this, id] { return !IsActive(id); });
    }
  }
  if (!status.ok() && !Passed(spec.deadline)) {
    ClientCall* const taken = TakeCall(id);
    if (taken != nullptr) {
      taken->end.status = std::move(status);
      taken->DeliverEnd();
    }
    return;
  }
  if (runs_user_code && !poller_present_.exchange(true, std::memory_order_seq_cst)) poller_->Kick(shared_from_this());
}

void ClientCall::DeliverEnd() {
  // The owner may release the call, and another thread reuse it, as soon as it has the status.
  const Chunks kept = std::move(chunks);
  chunks.clear();
  CallEvents* const to = events;
  absl::Status status = std::move(end.status);
  Metadata trailing = std::move(end.trailing_metadata);
  if (has_headers) to->OnHeaders(std::move(end.initial_metadata));
  if (has_message && status.ok()) to->OnMessage(IncomingMessage(pieces));
  to->OnStatus(std::move(status), std::move(trailing));
}

void ClientCall::Run() {
  const std::shared_ptr<ClientSession> alive = session;
  DeliverEnd();
}

void ClientSession::Release(ClientCall* call) {
  const std::shared_ptr<ClientSession> alive = std::move(call->session);
  call->session.reset();
  call->events = nullptr;
  call->end.initial_metadata.clear();
  call->end.trailing_metadata.clear();
  call->end.status = absl::OkStatus();
  call->has_headers = false;
  call->has_message = false;
  call->pieces.clear();
  call->chunks.clear();
  MutexLock lock(&calls_mutex_);
  unused_calls_.push_back(call);
}

void ClientSession::Cancel(ClientCall* call, absl::Status status) {
  const std::shared_ptr<Pollable> alive = shared_from_this();
  ClientCall* const taken = TakeCall(call->id);
  if (taken == nullptr) return;  // over, or its end is being told
  FrameHeader header;
  header.type = FrameType::kReset;
  header.call_id = taken->id;
  header.code = static_cast<uint16_t>(status.raw_code());
  sender_.SendControl(header);
  taken->end.status = std::move(status);
  taken->DeliverEnd();
  NotifyWaiter(taken);
}

// The end of a call has arrived; call->pieces may point into `chunk`. Caller holds right_.
void ClientSession::EndCall(ClientCall* call, ChunkPtr& chunk) {
  if (!call->runs_user_code) {
    call->DeliverEnd();
    NotifyWaiter(call);
    return;
  }
  if (chunk != nullptr && call->chunks.empty() && !call->pieces.empty()) call->chunks.push_back(std::move(chunk));
  {
    MutexLock lock(&calls_mutex_);
    ended_.push_back(call);
    has_ended_.store(true, std::memory_order_seq_cst);
  }
  if (!poller_receives_.load(std::memory_order_relaxed)) poller_->Kick(shared_from_this());
}

void ClientSession::Fail(const absl::Status& status) {
  std::vector<ClientCall*> calls;
  {
    MutexLock lock(&calls_mutex_);
    if (reason_over_.ok() || !link_ended_) reason_over_ = status;
    over_.store(true, std::memory_order_release);
    link_ended_ = true;
    for (CallSlot& slot : slots_) {
      if (slot.call != nullptr) calls.push_back(slot.call);
    }
  }
  sender_.Close();
  link_->Shutdown();
  for (ClientCall* call : calls) {
    if (TakeCall(call->id) != call) continue;
    call->end.status = status;
    call->pieces.clear();
    call->has_message = false;
    call->has_headers = false;
    ChunkPtr none;
    EndCall(call, none);
  }
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) waiter->changed.Signal();
}

void ClientSession::Close() {
  const std::shared_ptr<Pollable> alive = shared_from_this();
  Fail(absl::CancelledError("the channel was destroyed while the call was in progress"));
  poller_->Remove(this);
  for (;;) {
    ClientCall* call;
    {
      MutexLock lock(&calls_mutex_);
      if (ended_.empty()) return;
      call = ended_.front();
      ended_.pop_front();
    }
    call->Run();
  }
}

// ---- Receiving. The caller holds right_.

Link::ReceiveResult ClientSession::ReceiveOne() {
  if (link_ended_.load(std::memory_order_relaxed)) return Link::ReceiveResult::kEnd;
  ChunkPtr chunk = ChunkPool::TakeForThread();
  const Link::ReceiveResult result = link_->Receive(chunk.get());
  if (result == Link::ReceiveResult::kEmpty) return result;
  const absl::Status status = result == Link::ReceiveResult::kFrame ? HandleFrame(chunk) : link_->end_status();
  if (status.ok()) return result;
  Fail(status);
  return Link::ReceiveResult::kEnd;
}

absl::Status ClientSession::HandleFrame(ChunkPtr& chunk) {
  const FrameHeader header = LoadFrameHeader(chunk->data);
  switch (header.type) {
    case FrameType::kResponse:
      return HandleResponse(header, chunk);
    case FrameType::kFragment:
      return HandleFragment(header, chunk);
    case FrameType::kReset: {
      if (!assembly_.active() || assembly_.call_id() != header.call_id) return absl::OkStatus();
      assembly_.End();
      ClientCall* const call = TakeCall(header.call_id);
      if (call == nullptr) return absl::OkStatus();
      call->has_message = false;
      call->end.status = absl::UnavailableError("the server gave up in the middle of the reply");
      ChunkPtr none;
      EndCall(call, none);
      return absl::OkStatus();
    }
    case FrameType::kGoAway: {
      MutexLock lock(&calls_mutex_);
      if (!over_) reason_over_ = absl::UnavailableError("the server is shutting down");
      over_.store(true, std::memory_order_release);
      return absl::OkStatus();
    }
    default:
      return Malformed(absl::StrCat("a frame of type ", static_cast<int>(header.type), " from a server"));
  }
}

absl::Status ClientSession::HandleResponse(const FrameHeader& header, ChunkPtr& chunk) {
  const bool more = (header.flags & kFlagMore) != 0;
  if (more && assembly_.active()) return Malformed("a message in pieces inside another");
  ResponseControl control;
  const absl::string_view frame(reinterpret_cast<const char*>(chunk->data), header.length);
  absl::Status decoded = DecodeResponseControl(frame, header, &control);
  if (absl::IsInvalidArgument(decoded)) {
    control.status = absl::InternalError(decoded.message());
  } else if (!decoded.ok()) {
    return decoded;
  }
  const size_t offset = control.message_offset;
  const size_t message_bytes = control.message_bytes;
  const bool has_message = (header.flags & kFlagNoMessage) == 0;
  if (more) {
    bool wanted = false;
    {
      // The call stays in the table while its message is on the way: it can still be cancelled.
      MutexLock lock(&calls_mutex_);
      ClientCall* const call = FindCall(header.call_id);
      wanted = call != nullptr && control.status.ok() && message_bytes <= call->max_receive_message_bytes;
      if (wanted) {
        call->has_headers = true;
        call->has_message = has_message;
        call->end = std::move(control);
      }
    }
    assembly_.Begin(header, offset, message_bytes, /*discard=*/!wanted, chunk);
    if (wanted) return absl::OkStatus();
  }
  ClientCall* const call = TakeCall(header.call_id);
  if (call == nullptr) return absl::OkStatus();
  if (control.status.ok() && message_bytes > call->max_receive_message_bytes) {
    control.status = absl::ResourceExhaustedError(
        absl::StrCat("the reply is ", message_bytes, " bytes long, more than the client's limit of ",
                     call->max_receive_message_bytes, ": raise max_receive_message_bytes of the channel or the call"));
  }
  call->has_headers = true;
  call->has_message = has_message;
  call->end = std::move(control);
  if (frame.size() > offset) call->pieces.push_back(frame.substr(offset));
  EndCall(call, chunk);
  return absl::OkStatus();
}

absl::Status ClientSession::HandleFragment(const FrameHeader& header, ChunkPtr& chunk) {
  switch (assembly_.Add(header, chunk)) {
    case Assembly::Progress::kMore:
      return absl::OkStatus();
    case Assembly::Progress::kMalformed:
      return Malformed(absl::StrCat("a fragment that does not continue the message of call ", assembly_.call_id()));
    case Assembly::Progress::kComplete:
      break;
  }
  ClientCall* const call = TakeCall(header.call_id);
  if (call != nullptr) {
    call->pieces = assembly_.TakePieces();
    call->chunks = assembly_.TakeChunks();
    ChunkPtr none;
    EndCall(call, none);
  }
  assembly_.End();
  return absl::OkStatus();
}

// ---- Waiting.

bool ClientSession::WaitUntil(const ClientCall* call, absl::FunctionRef<bool()> done, absl::Time deadline) {
  bool elected = false;  // others rely on this thread to receive, or to pass that on
  for (;;) {
    if (done()) {
      if (elected) PassOn(/*parked=*/false);
      return true;
    }
    bool acquired = !link_ended_ && right_.TryAcquire();
    bool expired = false;
    if (!acquired) {
      // This thread may be the only one that knows of its request, while the server is busy with somebody else's.
      for (int i = 0; i < kPeerBehindLooks && link_->PeerBehind(); ++i) SpinPause();
      if (link_->PeerBehind()) sender_.PrepareToSleep(/*wants_room=*/false);
      Waiter waiter;
      waiter.call = call;
      MutexLock lock(&waiters_mutex_);
      const auto place = waiters_.insert(waiters_.end(), &waiter);
      waiter_count_.fetch_add(1, std::memory_order_seq_cst);
      while (!done() && !waiter.elected && !expired) {
        // Once more after being counted: who gave the right back before could not see this waiter.
        acquired = !link_ended_ && right_.TryAcquire();
        if (acquired) break;
        expired = waiter.changed.WaitWithDeadline(&waiters_mutex_, deadline);
      }
      elected = waiter.elected;
      waiters_.erase(place);
      waiter_count_.fetch_sub(1, std::memory_order_seq_cst);
    }
    if (acquired) {
      elected = false;
      const bool result = PollUntil(done, deadline);
      HandOver();
      expired = !result && Passed(deadline);
    }
    if (expired) {
      if (elected) PassOn(/*parked=*/false);
      return done();
    }
  }
}

// Receives until done(), the deadline, or the end of the link. Caller holds right_.
bool ClientSession::PollUntil(absl::FunctionRef<bool()> done, absl::Time deadline) {
  BeginReceiving();
  // A socket is asked once it is readable, a ring at once.
  bool look = link_->CheapToPoll() || link_->HasFrame();
  unsigned frames = 0;
  for (;;) {
    if (look) {
      const Link::ReceiveResult result = ReceiveOne();
      if (result == Link::ReceiveResult::kFrame) NoteReceived();
      if (room_waiter_count_.load(std::memory_order_relaxed) > 0 && link_->HasRoom()) {
        MutexLock lock(&waiters_mutex_);
        for (Waiter* waiter : waiters_) {
          if (waiter->call == nullptr) waiter->changed.Signal();
        }
      }
      if (done()) return true;
      if (result == Link::ReceiveResult::kEnd) return false;
      if (result == Link::ReceiveResult::kFrame) {
        // A peer that sends without pause must not keep this thread from its deadline.
        if (++frames % 64 == 0 && Passed(deadline)) return false;
        continue;
      }
      if (KeepSpinning()) {
        SpinPause();
        continue;
      }
    }
    look = true;
    if (Passed(deadline)) return false;
    if (link_->PrepareToPark()) Sleep(done, deadline);
    BeginReceiving();
    if (done()) return true;  // room has come
  }
}

// Sleeps until the link's descriptor has something to say, or another thread has ended the call that is waited for.
// Caller holds right_, and the link is parked.
void ClientSession::Sleep(absl::FunctionRef<bool()> done, absl::Time deadline) {
  // The peer answers a wish for room once, maybe with less than is needed: wish again.
  if (!sender_.PrepareToSleep(room_waiter_count_.load(std::memory_order_seq_cst) > 0)) return;
  const int event = ThreadEvent();
  {
    MutexLock lock(&waiters_mutex_);
    sleeper_ = event;
  }
  waiter_count_.fetch_add(1, std::memory_order_seq_cst);
  if (!done()) {  // once more, now that whoever ends the call knows of this thread
    pollfd fds[2] = {};
    fds[0].fd = link_->fd();
    fds[0].events = POLLIN | POLLRDHUP;
    if (link_->SendBufferFull()) fds[0].events |= POLLOUT;
    fds[1].fd = event;
    fds[1].events = POLLIN;
    if (event < 0) deadline = std::min(deadline, absl::Now() + kShortStep);
    const bool forever = deadline == absl::InfiniteFuture();
    const timespec timeout = absl::ToTimespec(
        forever ? absl::ZeroDuration() : std::max(absl::ZeroDuration(), deadline - absl::Now()));
    if (ppoll(fds, 2, forever ? nullptr : &timeout, nullptr) > 0 && (fds[0].revents & ~POLLOUT) != 0) {
      OnEvents(EPOLLIN);
    }
  }
  waiter_count_.fetch_sub(1, std::memory_order_seq_cst);
  {
    MutexLock lock(&waiters_mutex_);
    sleeper_ = -1;
  }
  uint64_t ignored;
  (void)!read(event, &ignored, sizeof ignored);
}

// Gives right_ back and sees to it that somebody receives as long as somebody wants to.
void ClientSession::HandOver() {
  // The poller may be asleep, relying on announcements that this thread has taken back: make them again.
  bool parked = false;
  while (!parked && waiter_count_.load(std::memory_order_seq_cst) == 0 &&
         async_calls_.load(std::memory_order_seq_cst) > 0 && poller_present_.load(std::memory_order_seq_cst) &&
         !link_ended_) {
    parked = link_->PrepareToPark();
    if (!parked) (void)ReceiveOne();
  }
  (void)right_.Release();  // who has failed to acquire it is a waiter, or the poller after clearing poller_present_
  PassOn(parked);
}

// Somebody else is to receive from now on: a waiting thread, or else the poller, which need not be woken if it is
// present and the link is parked for it.
void ClientSession::PassOn(bool parked) {
  if (waiter_count_.load(std::memory_order_seq_cst) > 0 && ElectWaiter()) return;
  if (async_calls_.load(std::memory_order_seq_cst) == 0 || link_ended_) return;
  if (!poller_present_.exchange(true, std::memory_order_seq_cst) || !parked) poller_->Kick(shared_from_this());
}

bool ClientSession::ElectWaiter() {
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) {
    if (waiter->elected) continue;
    waiter->elected = true;
    waiter->changed.Signal();
    return true;
  }
  return !waiters_.empty();
}

// Wakes the thread that waits for this call, if there is one.
void ClientSession::NotifyWaiter(const ClientCall* call) {
  if (waiter_count_.load(std::memory_order_seq_cst) == 0) return;
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) {
    if (waiter->call == call) waiter->changed.Signal();
  }
  // Whose call the sleeper waits for is not known: it looks, and sleeps again.
  const uint64_t one = 1;
  if (sleeper_ >= 0) (void)!write(sleeper_, &one, sizeof one);
}

bool ClientSession::WaitForRoom(absl::Time deadline) {
  const auto has_room = [this] { return link_->HasRoom() || link_ended_; };
  room_waiter_count_.fetch_add(1, std::memory_order_seq_cst);
  const bool room = WaitUntil(nullptr, has_room, deadline);
  room_waiter_count_.fetch_sub(1, std::memory_order_seq_cst);
  return room && !link_ended_;
}

// ---- The poller's side.

bool ClientSession::AcquireForPoller() {
  poller_present_.store(true, std::memory_order_seq_cst);
  if (right_.TryAcquire()) return true;
  // Leave the link to the thread that has it. If that has just given the right back without seeing that the poller
  // left, the second try succeeds.
  poller_present_.store(false, std::memory_order_seq_cst);
  if (!right_.TryAcquire()) return false;
  poller_present_.store(true, std::memory_order_seq_cst);
  return true;
}

Pollable::Outcome ClientSession::Poll(bool, Task** task) {
  for (;;) {
    if (has_ended_.load(std::memory_order_seq_cst)) {
      MutexLock lock(&calls_mutex_);
      if (!ended_.empty()) {
        *task = ended_.front();
        ended_.pop_front();
        has_ended_.store(!ended_.empty(), std::memory_order_seq_cst);
        return Outcome::kTaskMore;  // replies that come during a long callback are not reported: let the watch look
      }
    }
    if (link_ended_) return Outcome::kOver;
    if (!AcquireForPoller()) return Outcome::kElsewhere;
    poller_receives_.store(true, std::memory_order_relaxed);
    BeginReceiving();
    Link::ReceiveResult result;
    // Until there is an end to tell: then that goes first.
    while ((result = ReceiveOne()) == Link::ReceiveResult::kFrame) {
      NoteReceived();
      if (has_ended_.load(std::memory_order_relaxed)) break;
    }
    const bool spin =
        result == Link::ReceiveResult::kEmpty && async_calls_.load(std::memory_order_relaxed) > 0 && KeepSpinning();
    poller_receives_.store(false, std::memory_order_relaxed);
    // A mark: another thread of the poller was woken for something, and has left it to this one.
    const bool marked = right_.Release();
    // Threads that wait for their own calls go first.
    if (waiter_count_.load(std::memory_order_seq_cst) > 0) {
      poller_present_.store(false, std::memory_order_seq_cst);
      if (ElectWaiter() && !has_ended_.load(std::memory_order_seq_cst)) return Outcome::kElsewhere;
    }
    if (result == Link::ReceiveResult::kEmpty && !marked) return spin ? Outcome::kSpin : Outcome::kEmpty;
  }
}

bool ClientSession::Park() {
  if (!AcquireForPoller()) return true;
  // What epoll reports changes with right_ held only, so that it fits what the last thread to park has found.
  if (async_calls_.load(std::memory_order_seq_cst) == 0) {
    ReportInput(false);
    poller_present_.store(false, std::memory_order_seq_cst);
    const bool marked = right_.Release();
    if (waiter_count_.load(std::memory_order_seq_cst) > 0) (void)ElectWaiter();
    // A call that was started meanwhile may have seen the poller present.
    const bool wanted = marked || async_calls_.load(std::memory_order_seq_cst) > 0;
    return !wanted || poller_present_.exchange(true, std::memory_order_seq_cst);
  }
  ReportInput(true);
  const bool parked = !link_ended_ && link_->PrepareToPark();
  if (parked) sender_.PrepareToSleep(/*wants_room=*/false);
  const bool marked = right_.Release();
  if (waiter_count_.load(std::memory_order_seq_cst) > 0) {
    poller_present_.store(false, std::memory_order_seq_cst);
    if (ElectWaiter()) return true;
    poller_present_.store(true, std::memory_order_seq_cst);
  }
  return parked && !marked;
}

}  // namespace shmrpc::framed
