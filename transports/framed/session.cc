#include "transports/framed/session.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/spin_pause.h"

namespace shmrpc::framed {
namespace {

// The calling thread's means to be woken while it sleeps on a link's descriptor; -1 when there is no descriptor left,
// and then it sleeps in short steps.
int ThreadEvent() {
  static thread_local UniqueFd event;
  if (!event.valid()) event.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return event.get();
}
constexpr absl::Duration kShortStep = absl::Milliseconds(10);

// How often to look at a ring before the thread gives its receiver's right back for a moment, and how many looks go to
// one look at the clock: a quarter and half of a microsecond.
constexpr int kLooksAtOnce = 16;
constexpr int kLooksPerClock = 32;

std::string_view Bytes(const Chunk& chunk, size_t begin, size_t end) {
  return std::string_view(reinterpret_cast<const char*>(chunk.data) + begin, end - begin);
}

}  // namespace

void Assembly::Begin(const FrameHeader& header, size_t offset, size_t message_bytes,
                     const google::protobuf::Descriptor* type, const Chunk& chunk) {
  BeginDiscarding(header, offset, message_bytes);
  message_ = std::make_unique<internal::LargeMessage>(type, message_bytes);
  message_->Append(Bytes(chunk, offset, header.length));
}

void Assembly::BeginDiscarding(const FrameHeader& header, size_t offset, size_t message_bytes) {
  active_ = true;
  message_ = nullptr;
  first_ = header;
  announced_ = message_bytes;
  received_ = header.length - offset;
  bytes_taken_ += received_;
}

Assembly::Progress Assembly::Add(const FrameHeader& header, const Chunk& chunk) {
  if (!active_ || header.call_id != first_.call_id || (header.flags & ~kFlagMore) != 0) return Progress::kMalformed;
  const std::string_view piece = Bytes(chunk, kFrameHeaderBytes, header.length);
  received_ += piece.size();
  bytes_taken_ += piece.size();
  const bool more = (header.flags & kFlagMore) != 0;
  if (more ? received_ >= announced_ : received_ != announced_) return Progress::kMalformed;
  if (message_ != nullptr) message_->Append(piece);
  return more ? Progress::kMore : Progress::kComplete;
}

std::string Assembly::Describe() const {
  return absl::StrCat("(", active_ ? "" : "none was begun; the last was ", "call ", first_.call_id, ", ", received_,
                      " of ", announced_, " bytes)");
}

void Assembly::End() {
  active_ = false;
  message_ = nullptr;
}

Session::Session(std::unique_ptr<Link> link, Poller* poller, const SessionOptions& options, bool may_spill,
                 uint32_t events)
    : link_(std::move(link)),
      poller_(poller),
      sender_(this, link_.get(), may_spill, options.spin_policy.spins(), options.max_unsent_bytes),
      max_unsent_bytes_(options.max_unsent_bytes),
      send_account_(options.granted_by_peer),
      receive_account_(options.granted_to_peer),
      keepalive_(options.keepalive_timeout, options.peers_keepalive_timeout),
      spin_policy_(options.spin_policy),
      events_(events) {}

void Session::OnEvents(uint32_t events) {
  const uint32_t of_interest = events & ~static_cast<uint32_t>(EPOLLOUT);
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hang_up_reported_.store(true, std::memory_order_relaxed);
  if (of_interest != 0) woken_by_.fetch_or(of_interest, std::memory_order_release);
}

void Session::BeginReceiving() {
  link_->Unpark();
  if (woken_by_.load(std::memory_order_relaxed) != 0) {
    const uint32_t events = woken_by_.exchange(0, std::memory_order_acquire);
    if (events != 0) link_->DrainWakeups((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
  }
  ContinueSending();
}

void Session::ContinueSending() {
  if (!sender_.NeedsContinue() || !sender_.Continue()) return;
  if ((events_.load(std::memory_order_relaxed) & EPOLLOUT) == 0) return;
  ChangeEvents(0, EPOLLOUT);
  // A sender may have filled the socket again meanwhile and found that it was being watched.
  if (link_->SendBufferFull()) WatchWritable();
}

void Session::WatchWritable() { ChangeEvents(EPOLLOUT, 0); }

void Session::ReportInput(bool report) { report ? ChangeEvents(EPOLLIN, 0) : ChangeEvents(0, EPOLLIN); }

void Session::ChangeEvents(uint32_t add, uint32_t remove) {
  const uint32_t seen = events_.load(std::memory_order_relaxed);
  if ((seen & add) == add && (seen & remove) == 0) return;
  MutexLock lock(&events_mutex_);
  const uint32_t events = (events_.load(std::memory_order_relaxed) | add) & ~remove;
  if (events == events_.load(std::memory_order_relaxed)) return;
  events_.store(events, std::memory_order_relaxed);
  poller_->SetEvents(this, events);
}

bool Session::KeepSpinning() {
  if (!spin_policy_.spins() || sleeps_at_once_) return false;
  if (!std::exchange(waits_, true) && !spin_policy_.BeginWait()) {
    sleeps_at_once_ = true;
    waiting_since_ = SteadyClock::now();
    return false;
  }
  if (link_->CheapToPoll()) {
    // To look at a ring costs little beside giving the link back and coming again, and beside a look at the clock. So
    // that is done some times right here, unless this thread has other sessions to go round.
    static thread_local const Session* latest = nullptr;
    const int looks = std::exchange(latest, this) == this ? kLooksAtOnce : 1;
    for (int i = 1; i < looks; ++i) {
      internal::SpinPause();
      if (link_->HasFrame()) return true;
    }
    looks_since_clock_ += looks;
    if (looks_since_clock_ < kLooksPerClock) return true;
    looks_since_clock_ = 0;
  }
  const SteadyClock::time_point now = SteadyClock::now();
  if (!std::exchange(measured_, true)) {
    waiting_since_ = now;
    const uint64_t moved = assembly_.bytes_taken() + sender_.BytesInPieces();
    allowance_ = SpinPolicy::AllowanceFor(moved - std::exchange(moved_before_, moved));
  }
  latest_look_ = now;
  spun_out_ = now - waiting_since_ >= spin_policy_.budget() + allowance_;
  return !spun_out_;
}

void Session::NoteReceived() {
  keepalive_.Heard();
  if (!waits_) return;
  // Only waits that were long enough to be measured teach something: shorter ones confirm the budget that they had. A
  // frame that came while this thread was spinning came after the latest look at the clock, and before the next: that
  // is as exact as need be, and the frame waits for no further look.
  if (measured_) {
    spin_policy_.OnWaited((spun_out_ ? SteadyClock::now() : latest_look_) - waiting_since_, allowance_);
  }
  if (sleeps_at_once_) spin_policy_.OnSlept(SteadyClock::now() - waiting_since_);
  waits_ = measured_ = spun_out_ = sleeps_at_once_ = false;
  looks_since_clock_ = 0;
}

void Session::SleepOnLink(absl::FunctionRef<bool()> done, SteadyTime deadline) {
  const int event = ThreadEvent();
  {
    MutexLock lock(&waiters_mutex_);
    sleeper_ = event;
  }
  waiter_count_.fetch_add(1, std::memory_order_seq_cst);
  Poller::TaskBlocks(/*attended=*/this);
  if (!done()) {  // once more, now that whoever makes it true knows of this thread
    pollfd fds[2] = {};
    fds[0].fd = link_->fd();
    fds[0].events = POLLIN | POLLRDHUP;
    if (link_->SendBufferFull()) fds[0].events |= POLLOUT;
    fds[1].fd = event;
    fds[1].events = POLLIN;
    if (event < 0) deadline = std::min(deadline, SteadyTime::Now() + kShortStep);
    const bool forever = deadline == SteadyTime::InfiniteFuture();
    const timespec timeout = absl::ToTimespec(forever ? absl::ZeroDuration() : deadline.Left());
    // The bits of poll and epoll are the same.
    static_assert(POLLIN == EPOLLIN && POLLRDHUP == EPOLLRDHUP && POLLHUP == EPOLLHUP && POLLERR == EPOLLERR);
    if (ppoll(fds, 2, forever ? nullptr : &timeout, nullptr) > 0) OnEvents(static_cast<uint32_t>(fds[0].revents));
  }
  waiter_count_.fetch_sub(1, std::memory_order_seq_cst);
  {
    MutexLock lock(&waiters_mutex_);
    sleeper_ = -1;
  }
  uint64_t ignored;
  (void)!read(event, &ignored, sizeof ignored);
}

void Session::WakeSleeper() {
  const uint64_t one = 1;
  if (sleeper_ >= 0) (void)!write(sleeper_, &one, sizeof one);
}

bool Session::HasUnread() {
  if (!right_.TryAcquire()) return false;  // whoever has it takes what there is
  bool unread = link_->HasFrame();
  if (!unread && !link_->CheapToPoll()) {  // a ring's descriptor tells of doorbells only
    pollfd readable = {link_->fd(), POLLIN, 0};
    unread = poll(&readable, 1, 0) > 0;
  }
  GiveRightBack();
  return unread;
}

Session::KeepaliveResult Session::TickKeepalive(bool expects) {
  KeepaliveResult result;
  // What nobody has received yet is a sign of life, too: it is this side that is slow.
  result.heard = keepalive_.TakeHeard();
  if (!result.heard && HasUnread()) {
    result.heard = true;
    // Or it is the peer, which has not rung. That must not pass for a sign of life while calls wait for ever.
    poller_->Kick(shared_from_this());
  }
  const Keepalive::Verdict verdict = keepalive_.Tick(SteadyClock::now(), result.heard, expects);
  result.dead = verdict.dead;
  if (verdict.beat && !result.dead && (expects || result.heard)) {
    FrameHeader header;
    header.type = FrameType::kAlive;
    // Without room there is no need: the peer has something of this side's to receive.
    sender_.SendIfRoom(header);
  }
  return result;
}

absl::Status Session::EndStatus() const {
  if (!sender_.overflowed()) return link_->end_status();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the peer has not taken what was sent to it, and more than the option max_unsent_bytes (", max_unsent_bytes_,
      ") of that would have waited: let it read, or raise the limit with the option connection_limits"));
}

absl::Status Session::SilentPeer(std::string_view peer, std::string_view option) const {
  return absl::UnavailableError(absl::StrCat("nothing was heard of the ", ToAbsl(peer), " for ",
                                             absl::FormatDuration(keepalive_.patience()), " (", ToAbsl(option),
                                             "): its process is stopped, or its host cannot be reached any more"));
}

void Session::SendCredit(uint64_t call_id, const Credit& credit) {
  if (credit.empty()) return;
  FrameHeader header;
  header.type = FrameType::kCredit;
  header.call_id = call_id;
  char body[kCreditBytes];
  EncodeCredit(credit, body);
  sender_.SendControl(header, std::string_view(body, sizeof body), /*always_ring=*/false);
}

void Session::ReturnUnread(uint64_t cost) {
  if (cost == 0) return;
  Credit credit;
  {
    MutexLock lock(&calls_mutex_);
    credit = receive_account_.OnRead(nullptr, cost);
  }
  SendCredit(0, credit);
}

absl::Status Session::Malformed(std::string_view what) const {
  return absl::InternalError(absl::StrCat("the peer broke the protocol: ", ToAbsl(what)));
}

absl::Status Session::MalformedBetweenPieces(const FrameHeader& header) const {
  return Malformed(absl::StrCat("a frame of type ", static_cast<int>(header.type),
                                " between the pieces of a message of the same call ", assembly_.Describe()));
}

}  // namespace shmrpc::framed
