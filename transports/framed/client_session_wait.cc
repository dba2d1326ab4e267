// The part of ClientSession that decides which thread receives: threads that wait for their calls, and the poller.

#include <algorithm>
#include <thread>

#include "runtime/src/spin_pause.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/client_session.h"

namespace shmrpc::framed {
namespace {

// How often to look, before ringing, whether the server has taken what was sent: about two microseconds' worth.
constexpr int kPeerBehindLooks = 40;

// So many requests at least are sent together, if there are as many.
constexpr int kLeastBatch = 4;
// How many frames the poller takes off the link, if they are there, before it runs a callback: a microsecond's worth.
constexpr int kFramesBeforeCallbacks = 8;
// What a frame counts of a visit.
constexpr int kFrameUnits = 4;

}  // namespace

bool ClientSession::WaitUntil(const ClientCall* call, absl::FunctionRef<bool()> done, SteadyTime deadline) {
  SendBatch::OfThisThread().End();  // what a callback waits for may be the answer to what it has put off
  bool elected = false;             // others rely on this thread to receive, or to pass that on
  for (;;) {
    if (done()) {
      if (elected) PassOn(/*parked=*/false);
      return true;
    }
    bool acquired = !link_ended_ && right_.TryAcquire();
    bool expired = false;
    if (!acquired) {
      // This thread may be the only one that knows of its request, while the server is busy with somebody else's.
      for (int i = 0; i < kPeerBehindLooks && link_->PeerBehind(); ++i) internal::SpinPause();
      if (link_->PeerBehind()) sender_.PrepareToSleep(/*wants_room=*/false);
      Poller::TaskBlocks();
      Waiter waiter;
      waiter.call = call;
      MutexLock lock(&waiters_mutex_);
      const auto place = waiters_.insert(waiters_.end(), &waiter);
      waiter_count_.fetch_add(1, std::memory_order_seq_cst);
      while (!done() && !waiter.elected && !expired) {
        // Once more after being counted: who gave the right back before could not see this waiter.
        acquired = !link_ended_ && right_.TryAcquire();
        if (acquired) break;
        expired = waiter.changed.WaitUntil(&waiters_mutex_, deadline);
      }
      elected = waiter.elected;
      waiters_.erase(place);
      waiter_count_.fetch_sub(1, std::memory_order_seq_cst);
    }
    if (acquired) {
      elected = false;
      const bool result = PollUntil(done, deadline);
      HandOver();
      expired = !result && deadline.HasPassed();
    }
    if (expired) {
      if (elected) PassOn(/*parked=*/false);
      return done();
    }
  }
}

// Receives until done(), the deadline, or the end of the link. Caller holds right_.
bool ClientSession::PollUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) {
  BeginReceiving();
  // When there is to be no spinning, a socket is asked only once it is readable.
  bool look = link_->CheapToPoll() || spin_policy_.spins() || link_->HasFrame();
  unsigned frames = 0;
  for (;;) {
    if (look) {
      const Link::ReceiveResult result = ReceiveOne();
      if (result == Link::ReceiveResult::kFrame) NoteReceived();
      TellOfRoom();
      if (done()) return true;
      if (result == Link::ReceiveResult::kEnd) return false;
      if (result == Link::ReceiveResult::kFrame) {
        // A peer that sends without pause must not keep this thread from its deadline.
        if (++frames % 64 == 0 && deadline.HasPassed()) return false;
        continue;
      }
      if (KeepSpinning()) {
        // A thread that was just woken may have no CPU but this one.
        if (woke_waiter_.load(std::memory_order_relaxed)) {
          woke_waiter_.store(false, std::memory_order_relaxed);
          std::this_thread::yield();
        } else if (!link_->HasFrame()) {
          internal::SpinPause();
        }
        continue;
      }
    }
    look = true;
    if (deadline.HasPassed()) return false;
    if (link_->PrepareToPark()) Sleep(done, deadline);
    BeginReceiving();
    if (done()) return true;  // room has come
  }
}

// Sleeps until the link's descriptor has something to say, or another thread has ended the call that is waited for.
// Caller holds right_, and the link is parked.
void ClientSession::Sleep(absl::FunctionRef<bool()> done, SteadyTime deadline) {
  // The peer answers a wish for room once, maybe with less than is needed: wish again.
  if (!sender_.PrepareToSleep(room_waiter_count_.load(std::memory_order_seq_cst) > 0)) return;
  SleepOnLink(done, deadline);
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
  ReleaseRight();
  PassOn(parked);
}

// Who has failed to acquire it is a waiter, or the poller after clearing poller_present_. That may have been for the
// peer's hang-up, which is reported once, and which this thread may not have come to.
void ClientSession::ReleaseRight() {
  const bool marked = right_.Release();
  if (marked && HangUpWasReported() && !link_ended_) poller_->Kick(shared_from_this());
}

void ClientSession::GiveRightBack() {
  ReleaseRight();
  PassOn(/*parked=*/true);
}

// Somebody else is to receive from now on: a waiting thread, or else the poller, which need not be woken if it is
// present and the link is parked for it.
void ClientSession::PassOn(bool parked) {
  if (waiter_count_.load(std::memory_order_seq_cst) > 0 && ElectWaiter()) return;
  if (link_ended_) return;
  if (async_calls_.load(std::memory_order_seq_cst) == 0) {
    // The poller may have gone to sleep for a call that was cancelled since, relying on announcements that this thread
    // has taken back. The next call is not to rely on it: it sees that, or is seen here.
    if (!parked) poller_present_.store(false, std::memory_order_seq_cst);
    if (async_calls_.load(std::memory_order_seq_cst) == 0) return;
  }
  if (!poller_present_.exchange(true, std::memory_order_seq_cst) || !parked) poller_->Kick(shared_from_this());
}

bool ClientSession::ElectWaiter() {
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) {
    if (waiter->elected) return true;  // it is on its way, and will pass on what it does not need
    waiter->elected = true;
    waiter->changed.Signal();
    return true;
  }
  return !waiters_.empty();
}

// Wakes the thread that waits for this call, if there is one.
void ClientSession::NotifyWaiter(const ClientCall* call) {
  if (!HasWaiters()) return;
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) {
    if (waiter->call == call) {
      waiter->changed.Signal();
      woke_waiter_.store(true, std::memory_order_relaxed);
    }
  }
  WakeSleeper();  // whose call it waits for is not known: it looks, and sleeps again
}

void ClientSession::TellOfRoom() {
  if (room_waiter_count_.load(std::memory_order_seq_cst) == 0 || !link_->HasRoom()) return;
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) {
    if (waiter->call == nullptr) waiter->changed.Signal();
  }
}

// A sender counts itself and then asks; who has made it stop calls this afterwards: so one sees the other.
void ClientSession::WakeWaitingSenders() {
  sender_.WakeWaiting();
  if (room_waiter_count_.load(std::memory_order_seq_cst) == 0) return;
  MutexLock lock(&waiters_mutex_);
  for (Waiter* waiter : waiters_) {
    if (waiter->call == nullptr) waiter->changed.Signal();
  }
  WakeSleeper();
}

bool ClientSession::WaitForRoom(SteadyTime deadline, absl::FunctionRef<bool()> stop) {
  const auto has_room = [&] { return link_->HasRoom() || link_ended_ || stop(); };
  room_waiter_count_.fetch_add(1, std::memory_order_seq_cst);
  {
    // The thread that sleeps may have gone to sleep when there was nothing to send, and does not look out for room.
    MutexLock lock(&waiters_mutex_);
    WakeSleeper();
  }
  const bool room = WaitUntil(nullptr, has_room, deadline);
  room_waiter_count_.fetch_sub(1, std::memory_order_seq_cst);
  return room && !link_ended_;
}

// ---- The poller's side.

bool ClientSession::AcquireForPoller() {
  if (!poller_present_.load(std::memory_order_seq_cst)) poller_present_.store(true, std::memory_order_seq_cst);
  if (right_.TryAcquire()) return true;
  // Leave the link to the thread that has it. If that has just given the right back without seeing that the poller
  // left, the second try succeeds.
  poller_present_.store(false, std::memory_order_seq_cst);
  if (!right_.TryAcquire()) return false;
  poller_present_.store(true, std::memory_order_seq_cst);
  return true;
}

Pollable::Outcome ClientSession::Poll(Visit* visit, Task** task) {
  const Outcome outcome = FindTask(visit, task);
  if (outcome != Outcome::kTaskMore) SendBatch::OfThisThread().End();
  return outcome;
}

// Takes a call that there is something to tell of. False: there is none.
bool ClientSession::TakeEnded(Task** task) {
  bool more = more_input_.load(std::memory_order_relaxed);
  {
    MutexLock lock(&calls_mutex_);
    ClientCall* const ended = PopEnded();
    if (ended == nullptr) return false;
    *task = ended;
    more = more || first_ended_ != nullptr;
  }
  // Of few calls in flight half: with all of them in one batch either side would wait for the other all the time.
  const int most_frames = std::max(async_calls_.load(std::memory_order_relaxed) / 2, kLeastBatch);
  SendBatch::OfThisThread().NextTask(&sender_, more, &callbacks_, most_frames);
  return true;
}

Pollable::Outcome ClientSession::FindTask(Visit* visit, Task** task) {
  for (;;) {
    // Replies that come during a long callback are not reported: let the guardian look.
    if (has_ended_.load(std::memory_order_seq_cst) && visit->may_run() && TakeEnded(task)) return Outcome::kTaskMore;
    if (link_ended_) return Outcome::kOver;
    if (!AcquireForPoller()) {
      ContinueSending();
      TellOfRoom();
      return Outcome::kElsewhere;
    }
    poller_receives_.store(true, std::memory_order_relaxed);
    BeginReceiving();
    Link::ReceiveResult result;
    bool spin = false;
    bool visit_over = false;
    int frames = 0;
    do {
      // Until there is an end to tell, and not much beyond: what is there already costs less now than one by one.
      for (;;) {
        EndBatchUnlessMore();
        result = ReceiveOne();
        if (result != Link::ReceiveResult::kFrame) break;
        NoteReceived();
        ++frames;
        visit_over = !visit->Spend(kFrameUnits);
        if (visit_over) break;
        if (!has_ended_.load(std::memory_order_relaxed) || !visit->may_run()) continue;
        const bool more = link_->HasFrame();
        more_input_.store(more, std::memory_order_relaxed);
        if (frames >= kFramesBeforeCallbacks || !more) break;
      }
      spin =
          result == Link::ReceiveResult::kEmpty && async_calls_.load(std::memory_order_relaxed) > 0 && KeepSpinning();
    } while (spin && link_->CheapToPoll() && link_->HasFrame());
    if (result == Link::ReceiveResult::kFrame && callbacks_.IsSlow()) {
      ReportInput(true);
    } else if (spin || frames > 1) {
      LeaveInputToGuardian();
    }
    poller_receives_.store(false, std::memory_order_relaxed);
    // A mark: another thread of the poller was woken for something, and has left it to this one.
    const bool marked = right_.Release();
    // Threads that wait for their own calls go first.
    if (waiter_count_.load(std::memory_order_seq_cst) > 0) {
      poller_present_.store(false, std::memory_order_seq_cst);
      if (ElectWaiter() && !has_ended_.load(std::memory_order_seq_cst)) return Outcome::kElsewhere;
    }
    if (visit_over) return Outcome::kMore;
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
    // With nobody to elect: a thread may have had the link meanwhile, taken back what was announced here, and found the
    // poller gone. So the poller does not go to sleep on that.
    return ElectWaiter();
  }
  return parked && !marked;
}

}  // namespace shmrpc::framed
