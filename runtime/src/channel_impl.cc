#include "runtime/src/channel_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {
namespace {

constexpr double kBackoffGrowth = 1.6;
constexpr double kBackoffJitter = 0.2;

// Connections do not tell when they are over: they are asked, which may be a system call.
constexpr absl::Duration kLossCheckInterval = absl::Milliseconds(50);

absl::Status ChannelGoneError() {
  return absl::CancelledError("the channel was destroyed before the call could start");
}

}  // namespace

ChannelImpl::ChannelImpl(std::string target_text, absl::Status status, std::vector<ChannelAddress> addresses,
                         ChannelOptions options)
    : target_text_(std::move(target_text)),
      status_(std::move(status)),
      addresses_(std::move(addresses)),
      options_(options),
      retry_throttle_(options_.retry_throttling),
      backoff_(options.initial_backoff) {}

ChannelImpl::~ChannelImpl() = default;

absl::Status ChannelImpl::InheritedChannelError() const {
  return absl::FailedPreconditionError(
      absl::StrCat("the channel to \"", absl::CHexEscape(target_text_),
                   "\" was inherited through fork() and belongs to the parent process; make a new one in the child"));
}

absl::Status ChannelImpl::NotConnectedError() const {
  std::string text = absl::StrCat("not connected to \"", absl::CHexEscape(target_text_), "\": ", last_error_.message());
  if (absl::IsInvalidArgument(last_error_)) return absl::InvalidArgumentError(text);
  absl::StrAppend(&text, " (", failures_in_a_row_, failures_in_a_row_ == 1 ? " attempt" : " attempts", " failed");
  if (state_ == State::kBackoff) {
    const absl::Duration wait = next_attempt_.Left();
    absl::StrAppend(&text, ", the next one may start in ",
                    absl::FormatDuration(absl::Ceil(wait, absl::Milliseconds(1))),
                    "; a call with wait_for_ready waits for it");
  }
  return absl::UnavailableError(absl::StrCat(text, ")"));
}

absl::Status ChannelImpl::DeadlineError() const {
  std::string text =
      absl::StrCat("the deadline passed before there was a connection to \"", absl::CHexEscape(target_text_), "\"");
  if (!last_error_.ok()) absl::StrAppend(&text, "; what failed last: ", last_error_.message());
  return absl::DeadlineExceededError(text);
}

std::string ChannelImpl::DescribeTransport() {
  if (!CheckProcess().ok()) return "none: the channel was inherited through fork()";
  if (!status_.ok()) return absl::StrCat("none: ", status_.message());
  ConnectionPtr connection;
  {
    MutexLock lock(&mutex_);
    switch (state_) {
      case State::kReady:
        connection = connection_;
        break;
      case State::kConnecting:
        return last_error_.ok() ? "none: connecting"
                                : absl::StrCat("none: connecting; before: ", last_error_.message());
      case State::kIdle:
      case State::kBackoff:
        return last_error_.ok() ? "none: no call has been made yet" : absl::StrCat("none: ", last_error_.message());
    }
  }
  if (connection->connection->IsOver()) return absl::StrCat("none: ", connection->connection->reason_over().message());
  TransportChoice choice = connection->connection->choice();
  if (addresses_.size() > 1) absl::StrAppend(&choice.name, " to ", absl::CHexEscape(connection->address.original));
  return choice.ToString();
}

bool ChannelImpl::TakeReady(Use use, ConnectionPtr* connection) {
  {
    MutexLock lock(&mutex_);
    if (connection_ == nullptr) return false;
    *connection = connection_;
    // Counted under the lock, so that whoever retires the connection sees this call.
    if (use == Use::kAsynchronous) connection_->load->asynchronous_calls.fetch_add(1);
  }
  EstablishedConnection& established = **connection;
  // Not under the lock: it may make a system call, and notice the loss and end calls.
  if (!established.connection->IsOver()) {
    if (!established.used.load(std::memory_order_relaxed)) established.used.store(true, std::memory_order_relaxed);
    return true;
  }
  DropLost(*connection);
  if (use == Use::kAsynchronous) EndAsynchronousCall(*established.load);
  connection->reset();
  return false;
}

void ChannelImpl::NoticeLoss() {
  ConnectionPtr connection;
  {
    MutexLock lock(&mutex_);
    connection = connection_;
  }
  if (connection != nullptr && connection->connection->IsOver()) DropLost(connection);
}

void ChannelImpl::SetState(State state) {
  if (state == state_) return;
  state_ = state;
  ++state_changes_;
  changed_.SignalAll();
}

ChannelState ChannelImpl::PublicState() const {
  if (closed_) return ChannelState::kShutdown;
  switch (state_) {
    case State::kIdle:
      return ChannelState::kIdle;
    case State::kConnecting:
      return ChannelState::kConnecting;
    case State::kReady:
      return ChannelState::kReady;
    case State::kBackoff:
      return ChannelState::kTransientFailure;
  }
  return ChannelState::kShutdown;
}

ChannelState ChannelImpl::GetState(bool try_to_connect) {
  if (!status_.ok() || !CheckProcess().ok()) return ChannelState::kShutdown;
  NoticeLoss();
  MutexLock lock(&mutex_);
  EndBackoffIfDue(SteadyTime::Now());
  if (try_to_connect && state_ == State::kIdle && !closed_) WantConnection();
  return PublicState();
}

bool ChannelImpl::WaitForStateChange(ChannelState last_observed, SteadyTime deadline) {
  std::optional<uint64_t> state_changes;
  for (;;) {
    if (GetState(/*try_to_connect=*/false) != last_observed) return true;
    if (last_observed == ChannelState::kShutdown) return false;
    MutexLock lock(&mutex_);
    if (PublicState() != last_observed) return true;
    // It may have changed there and back again.
    if (state_changes.value_or(state_changes_) != state_changes_) return true;
    state_changes = state_changes_;
    const SteadyTime now = SteadyTime::Now();
    if (now >= deadline) return false;
    SteadyTime wake_up = deadline;
    if (state_ == State::kReady) wake_up = std::min(wake_up, now + kLossCheckInterval);
    if (state_ == State::kBackoff) wake_up = std::min(wake_up, next_attempt_);
    changed_.WaitUntil(&mutex_, wake_up);
  }
}

void ChannelImpl::DropLost(const ConnectionPtr& lost) {
  absl::Status reason = lost->connection->reason_over();
  ConnectionPtr dropped;  // the channel's reference, released after the lock
  MutexLock lock(&mutex_);
  if (connection_ != lost) return;  // another thread was faster
  dropped = std::move(connection_);
  connection_ = nullptr;
  if (lost->used.load(std::memory_order_relaxed) || SteadyTime::Now() - lost->since >= backoff_) {
    SetState(State::kIdle);
    last_error_ = std::move(reason);
    failures_in_a_row_ = 0;
    backoff_ = options_.initial_backoff;
  } else {
    // Otherwise a server that accepts and hangs up would be connected to without pause.
    StartBackoff(absl::UnavailableError(absl::StrCat("the connection was lost at once: ", reason.message())));
  }
  lost->load->retired.store(true);
  if (lost->load->asynchronous_calls.load() > 0) retired_.push_back(lost);
}

void ChannelImpl::DropRetired(const ConnectionLoad& load) {
  ConnectionPtr dropped;  // released after the lock
  MutexLock lock(&mutex_);
  const auto found = std::find_if(retired_.begin(), retired_.end(),
                                  [&](const ConnectionPtr& retired) { return retired->load.get() == &load; });
  if (found == retired_.end()) return;
  dropped = std::move(*found);
  retired_.erase(found);
}

void ChannelImpl::KeepForCall(const ConnectionPtr& connection) {
  connection->load->asynchronous_calls.store(1);
  connection->load->retired.store(true);
  MutexLock lock(&mutex_);
  retired_.push_back(connection);
}

void ChannelImpl::EndBackoffIfDue(SteadyTime now) {
  if (state_ == State::kBackoff && now >= next_attempt_) SetState(State::kIdle);
}

void ChannelImpl::StartBackoff(absl::Status error) {
  SetState(State::kBackoff);
  last_error_ = std::move(error);
  latest_failure_ = attempts_begun_;
  ++failures_in_a_row_;
  next_attempt_ = SteadyTime::Now() + backoff_ * absl::Uniform(random_, 1 - kBackoffJitter, 1 + kBackoffJitter);
  backoff_ = std::min(backoff_ * kBackoffGrowth, options_.max_backoff);
}

void ChannelImpl::WantConnection() {
  if (state_ == State::kIdle) {
    SetState(State::kConnecting);
    ++attempts_begun_;
  }
  if (connector_runs_) return;
  // The previous one has ended, or is about to and does not need the lock any more.
  if (connector_.joinable()) connector_.join();
  absl::StatusOr<std::thread> thread =
      internal::StartThread("shmrpc-connect", [self = shared_from_this()] { self->RunConnector(); });
  if (thread.ok()) {
    connector_ = *std::move(thread);
    connector_runs_ = true;
  } else if (state_ == State::kConnecting) {
    StartBackoff(thread.status());
  }
}

absl::Status ChannelImpl::WaitForConnection(SteadyTime deadline, Patience patience, const ClientContext* context,
                                            ConnectionPtr* connection) {
  uint64_t awaited_attempt = 0;
  for (;;) {
    if (TakeReady(Use::kSynchronous, connection)) return absl::OkStatus();
    MutexLock lock(&mutex_);
    if (state_ == State::kReady) continue;
    if (closed_) return ChannelGoneError();
    if (context != nullptr && ClientCallAccess::IsCancelled(*context)) return internal::CancelledByCaller();
    if (awaited_attempt != 0 && HasFailed(awaited_attempt, patience == Patience::kUntilReady)) {
      return NotConnectedError();
    }
    const SteadyTime now = SteadyTime::Now();
    EndBackoffIfDue(now);
    if (awaited_attempt == 0) {
      if (state_ == State::kBackoff && patience == Patience::kThisAttempt) return NotConnectedError();
      awaited_attempt = AwaitedAttempt();
    }
    if (now >= deadline) return DeadlineError();
    ++patient_threads_;
    WantConnection();
    if (connector_runs_) {
      changed_.WaitUntil(&mutex_, deadline);
    } else if (patience == Patience::kUntilReady) {
      // The system has no thread to give now. Nobody else will look at the clock.
      changed_.WaitUntil(&mutex_, std::min(deadline, now + options_.initial_backoff));
    }
    --patient_threads_;
  }
}

absl::Status ChannelImpl::Pause(SteadyTime end, const ClientContext* context) {
  MutexLock lock(&mutex_);
  for (;;) {
    if (closed_) return ChannelGoneError();
    if (context != nullptr && ClientCallAccess::IsCancelled(*context)) return internal::CancelledByCaller();
    if (end.HasPassed()) return absl::OkStatus();
    changed_.WaitUntil(&mutex_, end);
  }
}

void ChannelImpl::WakeWaiters() {
  MutexLock lock(&mutex_);
  changed_.SignalAll();
}

ChannelImpl::Readiness ChannelImpl::CheckReadinessLocked(bool wait_for_ready, absl::Status* failure) {
  if (closed_) {
    *failure = ChannelGoneError();
    return Readiness::kFailed;
  }
  EndBackoffIfDue(SteadyTime::Now());
  if (state_ == State::kBackoff && !wait_for_ready) {
    *failure = NotConnectedError();
    return Readiness::kFailed;
  }
  return Readiness::kMustWait;
}

ChannelImpl::Readiness ChannelImpl::CheckReadiness(bool wait_for_ready, ConnectionPtr* connection,
                                                   absl::Status* failure) {
  if (TakeReady(Use::kAsynchronous, connection)) return Readiness::kReady;
  MutexLock lock(&mutex_);
  return CheckReadinessLocked(wait_for_ready, failure);
}

ChannelImpl::Readiness ChannelImpl::AddWaiter(std::shared_ptr<ConnectionWaiter> waiter, bool wait_for_ready,
                                              ConnectionPtr* connection, absl::Status* failure) {
  for (;;) {
    if (TakeReady(Use::kAsynchronous, connection)) return Readiness::kReady;
    MutexLock lock(&mutex_);
    if (state_ == State::kReady) continue;
    if (CheckReadinessLocked(wait_for_ready, failure) == Readiness::kFailed) return Readiness::kFailed;
    ConnectionWaiter& added = *waiter;
    added.awaited_attempt_ = AwaitedAttempt();
    WantConnection();
    if (!connector_runs_) {
      *failure = NotConnectedError();
      return Readiness::kFailed;
    }
    added.wait_for_ready_ = wait_for_ready;
    added.queued_ = true;
    added.position_ = waiters_.insert(waiters_.end(), std::move(waiter));
    return Readiness::kMustWait;
  }
}

absl::Status ChannelImpl::AddPausing(std::shared_ptr<ConnectionWaiter> waiter) {
  MutexLock lock(&mutex_);
  if (closed_) return ChannelGoneError();
  ConnectionWaiter& added = *waiter;
  added.queued_ = added.pausing_ = true;
  added.position_ = pausing_.insert(pausing_.end(), std::move(waiter));
  return absl::OkStatus();
}

bool ChannelImpl::RemoveWaiter(ConnectionWaiter* waiter) {
  std::shared_ptr<ConnectionWaiter> removed;  // released after the lock
  MutexLock lock(&mutex_);
  if (!waiter->queued_) return false;
  waiter->queued_ = false;
  removed = std::move(*waiter->position_);
  (std::exchange(waiter->pausing_, false) ? pausing_ : waiters_).erase(waiter->position_);
  return true;
}

void ChannelImpl::RunConnector() {
  const internal::NoUserCodeHere close_waits_for_this_thread;
  mutex_.Lock();
  for (;;) {
    if (closed_) break;
    if (state_ == State::kConnecting) {
      mutex_.Unlock();
      Attempt();
      ServeWaiters();
      mutex_.Lock();
      continue;
    }
    if (waiters_.empty() && (state_ != State::kBackoff || patient_threads_ == 0)) break;
    // Calls wait: the attempt failed and they want the next one, or the new connection was lost while they started.
    if (state_ == State::kBackoff && !next_attempt_.HasPassed()) {
      changed_.WaitUntil(&mutex_, next_attempt_);
    } else if (state_ == State::kReady) {
      mutex_.Unlock();
      ServeWaiters();
      mutex_.Lock();
    } else {
      SetState(State::kConnecting);
      ++attempts_begun_;
    }
  }
  connector_runs_ = false;
  mutex_.Unlock();
}

absl::StatusOr<ConnectionPtr> ChannelImpl::ConnectToFirst(int interrupt_fd) const {
  ConnectOptions connect_options;
  connect_options.transport = options_.transport;
  connect_options.wait_mode = options_.wait_mode;
  connect_options.flow_control = options_.flow_control;
  connect_options.keepalive_timeout = options_.keepalive_timeout;
  connect_options.shared_memory_access = options_.shared_memory_access;
  connect_options.unix_socket_access = options_.unix_socket_access;
  connect_options.interrupt_fd = interrupt_fd;
  const SteadyTime deadline = SteadyTime::Now() + options_.connect_timeout;
  std::string failures;
  bool hopeless = true;
  for (size_t i = 0; i < addresses_.size(); ++i) {
    const Target& target = addresses_[i].target;
    const SteadyTime now = SteadyTime::Now();
    connect_options.deadline = now + (deadline - now) / static_cast<int64_t>(addresses_.size() - i);
    absl::StatusOr<std::unique_ptr<Connection>> connected = addresses_[i].transport->Connect(target, connect_options);
    if (connected.ok()) return std::make_shared<EstablishedConnection>(*std::move(connected), target);
    if (absl::IsCancelled(connected.status())) return connected.status();
    hopeless = hopeless && absl::IsInvalidArgument(connected.status());
    if (addresses_.size() > 1) {
      absl::StrAppend(&failures, failures.empty() ? "" : "; ", absl::CHexEscape(target.original), ": ");
    }
    if (absl::IsDeadlineExceeded(connected.status())) {
      absl::StrAppend(
          &failures, "no connection within ",
          absl::FormatDuration(absl::Ceil(connect_options.deadline - now, absl::Milliseconds(1))),
          addresses_.size() > 1 ? " (its share of the option connect_timeout): " : " (the option connect_timeout): ");
    }
    absl::StrAppend(&failures, connected.status().message());
  }
  return hopeless ? absl::InvalidArgumentError(failures) : absl::UnavailableError(failures);
}

void ChannelImpl::Attempt() {
  const int interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int eventfd_errno = errno;
  {
    MutexLock lock(&mutex_);
    if (closed_) {
      if (interrupt_fd >= 0) close(interrupt_fd);
      return;
    }
    interrupt_fd_ = interrupt_fd;
  }

  // One that comes too late is destroyed after the lock is released.
  absl::StatusOr<ConnectionPtr> connected =
      interrupt_fd < 0 ? absl::UnavailableError(absl::StrCat("cannot create an eventfd: ", strerror(eventfd_errno)))
                       : ConnectToFirst(interrupt_fd);
  MutexLock lock(&mutex_);
  interrupt_fd_ = -1;
  if (interrupt_fd >= 0) close(interrupt_fd);
  if (closed_) return;
  if (connected.ok()) {
    connection_ = *std::move(connected);
    SetState(State::kReady);
  } else {
    StartBackoff(connected.status());
  }
}

void ChannelImpl::ServeWaiters() {
  // One at a time, because what a call does when it starts may change everything here.
  for (;;) {
    ConnectionPtr connection;
    {
      MutexLock lock(&mutex_);
      if (waiters_.empty()) return;
    }
    const bool ready = TakeReady(Use::kAsynchronous, &connection);
    std::shared_ptr<ConnectionWaiter> next;
    absl::Status failure;
    {
      MutexLock lock(&mutex_);
      auto found = waiters_.begin();
      while (found != waiters_.end() && !ready && !HasFailed((*found)->awaited_attempt_, (*found)->wait_for_ready_)) {
        ++found;
      }
      if (found != waiters_.end()) {
        next = std::move(*found);
        next->queued_ = false;
        waiters_.erase(found);
        if (!ready) failure = NotConnectedError();
      }
    }
    if (next == nullptr) {
      if (ready) EndAsynchronousCall(*connection->load);
      return;
    }
    if (ready) {
      next->OnConnected(connection);
    } else {
      next->OnNotConnected(std::move(failure));
    }
  }
}

void ChannelImpl::Close() {
  const internal::NoUserCodeHere in_a_destructor;
  WaiterList waiters;
  std::thread connector;
  ConnectionPtr connection;
  std::vector<ConnectionPtr> retired;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    SetState(State::kIdle);
    waiters.swap(waiters_);
    waiters.splice(waiters.end(), pausing_);
    for (const std::shared_ptr<ConnectionWaiter>& waiter : waiters) waiter->queued_ = waiter->pausing_ = false;
    connector = std::move(connector_);
    connection = std::move(connection_);
    retired.swap(retired_);
    // An eventfd takes this write unless its counter is full, and then it is readable already.
    if (interrupt_fd_ >= 0) eventfd_write(interrupt_fd_, 1);
    changed_.SignalAll();
  }
  if (connector.joinable()) {
    if (connector.get_id() == std::this_thread::get_id()) {
      connector.detach();  // it holds a reference to this object, and ends when it sees closed_
    } else {
      connector.join();
    }
  }
  for (const std::shared_ptr<ConnectionWaiter>& waiter : waiters) {
    waiter->OnNotConnected(ChannelGoneError());
  }
  // With `connection` and `retired` go the connections, which ends the calls in flight.
}

}  // namespace shmrpc
