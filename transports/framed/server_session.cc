#include "transports/framed/server_session.h"

#include <sys/epoll.h>

#include <chrono>
#include <thread>
#include <utility>

#include "absl/base/attributes.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/log.h"
#include "runtime/src/spin_pause.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::framed {
namespace {

constexpr char kShuttingDown[] = "the server is shutting down";

constexpr size_t kCallsKept = 64;

// How long a handler's thread waits for room before its reply goes to private memory. Long against what a client that
// reads needs to take a ring's worth; short against what a thread is worth.
constexpr std::chrono::milliseconds kPatience{10};

}  // namespace

ServerSession::ServerSession(std::unique_ptr<Link> link, std::shared_ptr<Poller> poller, Options options,
                             internal::ConnectionLimiter::PlacePtr place)
    : Session(std::move(link), poller.get(), options.session, /*may_spill=*/true, EPOLLIN),
      kept_poller_(std::move(poller)),
      options_(std::move(options)),
      place_(std::move(place)) {}

ServerSession::~ServerSession() = default;

absl::Status ServerSession::Start() {
  absl::Status status = poller_->Add(shared_from_this(), EPOLLIN);
  // What came together with the hello is not reported by epoll any more.
  if (status.ok()) poller_->Kick(shared_from_this());
  return status;
}

void ServerSession::BeginDrain() {
  // Before any refusal: a client that is refused tries elsewhere, not here again.
  FrameHeader header;
  header.type = FrameType::kGoAway;
  sender_.SendControl(header);
  MutexLock lock(&calls_mutex_);
  draining_.store(true, std::memory_order_seq_cst);
}

void ServerSession::SayFarewell() {
  std::vector<uint64_t> in_progress;
  {
    // No call has been accepted since the draining began: a call that is not here has been answered, or will never be
    // handed to its handler.
    MutexLock lock(&calls_mutex_);
    calls_.ForEach([&](const FramedServerCall* call) { in_progress.push_back(call->id); });
  }
  // A reply of its own that comes behind this one is ignored.
  for (const uint64_t id : in_progress) Refuse(id, absl::UnavailableError(kShuttingDown));
  FrameHeader header;
  header.type = FrameType::kGoAway;
  header.flags = kFlagNotProcessed;
  sender_.SendControl(header);
}

bool ServerSession::IsDrained() const {
  MutexLock lock(&calls_mutex_);
  return calls_.empty() && !sender_.HasLeftover();
}

bool ServerSession::IsIdle() const {
  MutexLock lock(&calls_mutex_);
  return calls_.empty();
}

void ServerSession::Close() { Fail(absl::UnavailableError(kShuttingDown)); }

void ServerSession::Fail(const absl::Status& status) {
  if (over_.exchange(true)) return;
  if (absl::IsInternal(status) || absl::IsResourceExhausted(status)) {
    static internal::LogLimiter limiter;
    internal::LogWarningLimited(limiter, absl::StrCat("connection from ", options_.peer.address, " over ",
                                                      link_->name(), " ended: ", status.message()));
  }
  sender_.Close();
  link_->Shutdown();
  std::vector<FramedServerCall*> to_run;
  internal::ConnectionLimiter::PlacePtr place;  // released without the lock
  {
    MutexLock lock(&calls_mutex_);
    if (calls_.empty()) place = std::move(place_);
    if (!calls_.empty()) self_ = std::static_pointer_cast<ServerSession>(shared_from_this());
    calls_.ForEach([&](FramedServerCall* call) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      Cancelled(call);
      if (MarkDue(call) == WakeUp::kRun) to_run.push_back(call);
    });
  }
  for (FramedServerCall* call : to_run) RunEvents(call);
  if (has_tasks_.load(std::memory_order_seq_cst)) poller_->Kick(shared_from_this());
  options_.on_over(this);
}

bool ServerSession::OnKeepaliveTick() {
  if (!keepalive_.enabled() || over_) return false;
  bool expects = false;
  {
    // Of calls that were cancelled the client knows nothing any more.
    MutexLock lock(&calls_mutex_);
    calls_.ForEach([&](const FramedServerCall* call) {
      if (!call->cancelled.load(std::memory_order_relaxed)) expects = true;
    });
  }
  const KeepaliveResult result = TickKeepalive(expects);
  if (result.dead) Fail(SilentPeer("client", "the option keepalive_timeout"));
  return expects || result.heard;
}

void ServerSession::GiveRightBack() {
  if (right_.Release()) poller_->Kick(shared_from_this());
}

// ---- Requests. The caller holds right_.

// Takes a task that was queued for the poller's threads; `more`: there is input as well. False: there is none.
bool ServerSession::TakeQueuedTask(bool more, Task** task) {
  {
    MutexLock lock(&calls_mutex_);
    if (tasks_.empty()) return false;
    *task = tasks_.front();
    tasks_.pop_front();
    more = more || !tasks_.empty();
    has_tasks_.store(!tasks_.empty(), std::memory_order_seq_cst);
  }
  SendBatch::OfThisThread().NextTask(&sender_, more, &queued_tasks_);
  return true;
}

ABSL_ATTRIBUTE_ALWAYS_INLINE inline Pollable::Outcome ServerSession::FindTask(bool scanning, Task** task) {
  // The link has not been looked at, hence kTaskMore.
  if (has_tasks_.load(std::memory_order_seq_cst) && TakeQueuedTask(/*more=*/false, task)) return Outcome::kTaskMore;
  if (over_.load(std::memory_order_relaxed)) return Outcome::kOver;
  if (!right_.TryAcquire()) {
    ContinueSending();
    return Outcome::kElsewhere;
  }
  BeginReceiving();
  for (;;) {
    if (HoldsBack()) {
      if (sender_.overflowed()) {
        Fail(EndStatus());
        (void)right_.Release();
        return Outcome::kOver;
      }
      const bool marked = right_.Release();
      return marked ? Outcome::kSpin : Outcome::kEmpty;
    }
    EndBatchUnlessMore();
    ChunkPtr chunk = ChunkPool::TakeForThread();
    switch (link_->Receive(chunk.get())) {
      case Link::ReceiveResult::kFrame: {
        NoteReceived();
        FramedServerCall* call = nullptr;
        absl::Status status = HandleFrame(chunk, &call);
        if (!status.ok()) {
          Fail(status);
          (void)right_.Release();
          return Outcome::kOver;
        }
        if (call == nullptr) {
          if (!has_tasks_.load(std::memory_order_relaxed)) continue;
          // An event for the application goes before what else there may be.
          const bool more = link_->HasFrame();
          if (right_.Release()) poller_->Kick(shared_from_this());
          return TakeQueuedTask(more, task) ? Outcome::kTaskMore : Outcome::kSpin;
        }
        *task = call;
        const bool more = link_->HasFrame();
        const bool batch = SendBatch::OfThisThread().NextTask(&sender_, more, call->method_history);
        // Unless the guardian looks after it, have what comes during the task reported.
        if (batch) LeaveInputToGuardian();
        if (!scanning && !batch) ReportInput(true);
        const bool unattended = batch || (scanning ? more : !link_->PrepareToPark());
        // A mark is somebody who was woken for this session and left; there is no telling how long the handler takes.
        if (right_.Release()) poller_->Kick(shared_from_this());
        return unattended ? Outcome::kTaskMore : Outcome::kTask;
      }
      case Link::ReceiveResult::kEmpty: {
        // A handler that was woken comes and looks itself.
        const bool told = waiter_told_.load(std::memory_order_relaxed);
        if (told) waiter_told_.store(false, std::memory_order_relaxed);
        const bool spin = !told && KeepSpinning();
        if (spin && link_->CheapToPoll() && link_->HasFrame()) continue;
        if (spin) LeaveInputToGuardian();
        const bool marked = right_.Release();
        return spin || marked ? Outcome::kSpin : Outcome::kEmpty;
      }
      case Link::ReceiveResult::kEnd:
        Fail(EndStatus());
        (void)right_.Release();
        return Outcome::kOver;
    }
  }
}

Pollable::Outcome ServerSession::Poll(bool scanning, Task** task) {
  const Outcome outcome = FindTask(scanning, task);
  if (outcome != Outcome::kTask && outcome != Outcome::kTaskMore) SendBatch::OfThisThread().End();
  return outcome;
}

bool ServerSession::Park() {
  if (!right_.TryAcquire()) return true;  // whoever has the right parks
  ReportInput(true);                      // and at once, if there is input already
  // With a reply waiting for room, only room or a hang-up is of interest, and both wake us without being asked again.
  const bool parked = HoldsBack() || link_->PrepareToPark();
  const bool marked = right_.Release();
  return parked && !marked;
}

absl::Status ServerSession::HandleFrame(ChunkPtr& chunk, FramedServerCall** call) {
  const FrameHeader header = LoadFrameHeader(chunk->data);
  if (assembly_.IsOf(header.call_id) && !MayStandBetweenPieces(header)) return MalformedBetweenPieces(header);
  switch (header.type) {
    case FrameType::kRequest:
      return HandleRequest(header, chunk, call);
    case FrameType::kMethod:
      return HandleMethod(header, *chunk);
    case FrameType::kReset:
      return HandleReset(header);
    case FrameType::kFragment:
      return HandleFragment(header, chunk, call);
    case FrameType::kMessage:
      return HandleMessage(header, chunk);
    case FrameType::kCredit:
      return HandleCredit(header, *chunk);
    case FrameType::kAlive:
      NoteActivity();  // of a request that has not come whole, maybe
      return absl::OkStatus();
    default:
      return Malformed(absl::StrCat("a frame of type ", static_cast<int>(header.type), " from a client"));
  }
}

absl::Status ServerSession::HandleFragment(const FrameHeader& header, ChunkPtr& chunk, FramedServerCall** call) {
  switch (assembly_.Add(header, *chunk)) {
    case Assembly::Progress::kMore:
      return absl::OkStatus();
    case Assembly::Progress::kMalformed:
      return Malformed(absl::StrCat("a fragment of call ", header.call_id, " that does not continue the message ",
                                    assembly_.Describe()));
    case Assembly::Progress::kComplete:
      break;
  }
  LargeMessagePtr large = assembly_.Take();
  assembly_.End();
  if (large == nullptr) {  // not for a call that has begun since, either
    ReturnUnread(assembly_.cost());
    return absl::OkStatus();
  }
  if (assembly_.first().type == FrameType::kMessage) {
    ReceivedMessage message(std::move(large), assembly_.cost());
    DeliverMessage(header.call_id, &message, (assembly_.first().flags & kFlagOpen) != 0);
    return absl::OkStatus();
  }
  assembling_->large = std::move(large);
  return BeginCall(std::move(assembling_), call);
}

absl::Status ServerSession::HandleMethod(const FrameHeader& header, const Chunk& chunk) {
  const std::string_view path(reinterpret_cast<const char*>(chunk.data) + kFrameHeaderBytes,
                              header.length - kFrameHeaderBytes);
  if (header.code != methods_.size()) {
    return Malformed(absl::StrCat("method number ", header.code, " where ", methods_.size(), " comes next"));
  }
  method_bytes_ += path.size() + kMethodOverheadBytes;
  if (methods_.size() >= kMaxMethods || path.size() > kMaxMethodBytes || method_bytes_ > kMaxMethodTableBytes) {
    return Malformed("too many method names");
  }
  methods_.push_back(std::make_unique<Method>(path, options_.handler->ResolveMethod(path)));
  return absl::OkStatus();
}

absl::Status ServerSession::HandleRequest(const FrameHeader& header, ChunkPtr& chunk, FramedServerCall** call) {
  const bool more = (header.flags & kFlagMore) != 0;
  if (more && assembly_.active()) return Malformed("a message in pieces inside another");
  if (header.call_id == 0) return Malformed("a request with the call_id 0, which stands for no call");
  if (header.code >= methods_.size()) {
    return Malformed(absl::StrCat("a request for method ", header.code, ", which was not announced"));
  }
  std::unique_ptr<FramedServerCall> begun = std::move(spare_call_);
  if (begun == nullptr) begun = std::make_unique<FramedServerCall>();
  RequestControl control;
  const std::string_view frame(reinterpret_cast<const char*>(chunk->data), header.length);
  absl::Status refused = DecodeRequestControl(frame, header, &control);
  if (!refused.ok() && !absl::IsInvalidArgument(refused)) return refused;
  const size_t offset = control.message_offset;
  if (refused.ok() && control.message_bytes > options_.max_receive_message_bytes) {
    refused = absl::ResourceExhaustedError(
        absl::StrCat("the request is ", control.message_bytes, " bytes long, more than the server's limit of ",
                     options_.max_receive_message_bytes, ": raise it with the option max_receive_message_bytes"));
  }
  if (!refused.ok()) {
    if (more) assembly_.BeginDiscarding(header, offset, control.message_bytes);
    Refuse(header.call_id, refused);
    return absl::OkStatus();
  }
  if (more && !HasRoomForCall()) {
    // Rather than gather a large message for nothing. Of others BeginCall finds it out.
    assembly_.BeginDiscarding(header, offset, control.message_bytes);
    RefuseOneTooMany(header.call_id);
    return absl::OkStatus();
  }
  begun->id = header.call_id;
  Method& method = *methods_[header.code];
  begun->method_path = method.path;
  begun->method_history = &method.history;
  begun->resolved = method.resolved;
  begun->arrived = more ? SteadyTime::InfinitePast() : control.arrival;
  begun->deadline_ = control.deadline;
  begun->client_metadata = std::move(control.metadata);
  begun->open = (header.flags & kFlagOpen) != 0;
  begun->has_request = (header.flags & kFlagNoMessage) == 0;
  if (more) {
    assembly_.Begin(header, offset, control.message_bytes, options_.handler->request_type(begun->method_path), *chunk);
    assembling_ = std::move(begun);
    return absl::OkStatus();
  }
  if (frame.size() > offset) {
    begun->pieces.push_back(frame.substr(offset));
    begun->chunks.push_back(std::move(chunk));
  }
  return BeginCall(std::move(begun), call);
}

absl::Status ServerSession::BeginCall(std::unique_ptr<FramedServerCall> begun, FramedServerCall** call) {
  const uint64_t id = begun->id;
  begun->session = this;
  if (begun->open || !begun->has_request) {
    begun->stream = std::make_unique<FramedServerCall::Stream>();
    begun->stream->half_closed = !begun->open;
    if (begun->has_request) {
      if (begun->large != nullptr) {
        begun->stream->inbox.emplace_back(std::move(begun->large), /*cost=*/0);
      } else {
        begun->stream->inbox.emplace_back(std::move(begun->pieces), std::move(begun->chunks), /*cost=*/0);
      }
      begun->pieces.clear();
      begun->chunks.clear();
    }
  }
  if (!HasRoomForCall()) {
    RefuseOneTooMany(id);
    return absl::OkStatus();
  }
  {
    // With the lock either the call is seen by whoever waits for the last one, or the call sees the draining.
    MutexLock lock(&calls_mutex_);
    if (!draining_.load(std::memory_order_relaxed)) {
      if (calls_.Insert(begun.get())) {
        unanswered_calls_.fetch_add(1, std::memory_order_relaxed);
        // What ends the session marks the calls that it finds here, and has set over_ before: one of the two does it.
        const bool over = over_.load(std::memory_order_relaxed);
        begun->cancelled.store(over, std::memory_order_relaxed);
        begun->reset_by_client.store(absl::StatusCode::kOk, std::memory_order_relaxed);
        if (over) self_ = std::static_pointer_cast<ServerSession>(shared_from_this());
        NoteActivity();
        if (spare_call_ == nullptr && !unused_calls_.empty()) {
          spare_call_ = std::move(unused_calls_.back());
          unused_calls_.pop_back();
        }
        *call = begun.release();
        return absl::OkStatus();
      }
      return Malformed(absl::StrCat("a request for call ", id, ", which is in progress"));
    }
  }
  Refuse(id, absl::UnavailableError(kShuttingDown), /*not_processed=*/true);
  return absl::OkStatus();
}

void ServerSession::RefuseOneTooMany(uint64_t call_id) {
  const absl::Status status = absl::ResourceExhaustedError(absl::StrCat(
      "the connection has ", options_.max_calls,
      " calls in progress, as many as the option max_calls_per_connection allows, and the handler did not run: "
      "wait for some of them, or raise the limit with the option connection_limits"));
  static internal::LogLimiter limiter;
  internal::LogWarningLimited(limiter, absl::StrCat("refused a call from ", options_.peer.address, " over ",
                                                    link_->name(), ": ", status.message()));
  Refuse(call_id, status, /*not_processed=*/true);
}

absl::Status ServerSession::HandleReset(const FrameHeader& header) {
  if (assembly_.IsOf(header.call_id)) {
    assembly_.End();
    ReturnUnread(assembly_.cost());
    if (std::exchange(assembling_, nullptr) != nullptr) return absl::OkStatus();  // the call had not begun
  }
  FramedServerCall* call = nullptr;
  WakeUp wake_up = WakeUp::kNothing;
  Sendable sendable;
  {
    MutexLock lock(&calls_mutex_);
    call = calls_.Find(header.call_id);
    if (call == nullptr) return absl::OkStatus();  // the reply and the reset have crossed
    const bool by_deadline = header.code == static_cast<uint16_t>(absl::StatusCode::kDeadlineExceeded);
    call->reset_by_client.store(by_deadline ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kCancelled,
                                std::memory_order_release);
    Cancelled(call);
    wake_up = MarkDue(call);
    sendable = MarkSendable();
  }
  WakeSendable(sendable);
  Wake(call, wake_up);
  return absl::OkStatus();
}

// ---- Replies.

void ServerSession::Refuse(uint64_t call_id, const absl::Status& status, bool not_processed) {
  ServerCall::Reply reply;
  reply.status = status;
  reply.not_processed = not_processed;
  SendReply(call_id, reply, [] { return false; });
}

void ServerSession::SendReply(uint64_t call_id, const ServerCall::Reply& reply, absl::FunctionRef<bool()> stop) {
  FrameHeader header;
  header.type = FrameType::kResponse;
  header.call_id = call_id;
  std::string control;
  EncodeResponseControl(reply.initial_metadata, reply.status, reply.trailing_metadata, &header.flags, &header.code,
                        &control);
  const OutgoingMessage* const message = header.code == 0 ? reply.message : nullptr;
  if (message == nullptr) header.flags |= kFlagNoMessage;
  if (reply.not_processed) header.flags |= kFlagNotProcessed;
  sender_.Send(header, control, message, SteadyTime::InfiniteFuture(), stop);
}

bool ServerSession::WaitForRoom(SteadyTime, absl::FunctionRef<bool()>) {
  // Another thread may be receiving, or none: this one only watches.
  const SteadyClock::time_point give_up = SteadyClock::now() + kPatience;
  for (int i = 0; SteadyClock::now() < give_up && !over_; ++i) {
    if (link_->HasRoom()) return true;
    if (i < 256) {
      internal::SpinPause();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  return link_->HasRoom();
}

void ServerSession::EndCall(FramedServerCall* call) {
  std::unique_ptr<FramedServerCall> ended(call);
  std::shared_ptr<ServerSession> alive;  // released after the lock
  ended->client_metadata.clear();
  if (ended->stream != nullptr) {
    alive = std::static_pointer_cast<ServerSession>(shared_from_this());
    // Out of the table first: then no more comes.
    Sendable sendable;
    {
      MutexLock lock(&calls_mutex_);
      calls_.Erase(ended.get());
      send_account_.OnOver(&ended->stream->sent);
      sendable = MarkSendable();
    }
    WakeSendable(sendable);
    uint64_t unread = 0;
    for (const ReceivedMessage& message : ended->stream->inbox) unread += message.cost();
    ended->stream = nullptr;
    ReturnUnread(unread);
  }
  std::shared_ptr<ServerSession> self;          // the same
  internal::ConnectionLimiter::PlacePtr place;  // the same
  MutexLock lock(&calls_mutex_);
  calls_.Erase(ended.get());
  if (calls_.empty()) {
    self.swap(self_);
    if (self != nullptr) place = std::move(place_);  // the connection is over
  }
  if (unused_calls_.size() < kCallsKept) unused_calls_.push_back(std::move(ended));
}

const Peer& FramedServerCall::peer() const { return session->options_.peer; }

bool FramedServerCall::IsCancelled() const {
  return cancelled.load(std::memory_order_acquire) || deadline_.HasPassed();
}

void FramedServerCall::Run() {
  // The call may be finished, and its memory reused, before the handler is done with the message.
  const Chunks request_chunks = std::move(chunks);
  const Pieces request_pieces = std::move(pieces);
  const LargeMessagePtr request_large = std::move(large);
  chunks.clear();
  pieces.clear();
  CallHandler* const handler = session->options_.handler;
  if (stream != nullptr) return handler->OnCall(ServerCallPtr(this), nullptr);
  const IncomingMessage request =
      request_large != nullptr ? IncomingMessage(*request_large) : IncomingMessage(request_pieces);
  handler->OnCall(ServerCallPtr(this), &request);
}

void FramedServerCall::Finish(const Reply& reply) {
  session->unanswered_calls_.fetch_sub(1, std::memory_order_relaxed);
  if (!cancelled.load(std::memory_order_acquire)) {
    session->SendReply(id, reply, [this] { return cancelled.load(std::memory_order_acquire); });
  }
  session->Finished(this);
}

void FramedServerCall::Abandon() {
  Reply reply;
  reply.status = absl::InternalError("the server lost the call");
  Finish(reply);
}

}  // namespace shmrpc::framed
