#include "shmrpc/wait.h"

#include "runtime/src/callback_threads.h"
#include "runtime/src/deadline_timer.h"

namespace shmrpc {
namespace internal {

void ResumeSoon(Executor* executor, std::coroutine_handle<> waiting) {
  if (executor != nullptr) {
    executor->Execute([waiting] { waiting.resume(); });
  } else {
    CallbackThreads::Get().Run([waiting] { waiting.resume(); });
  }
}

void ResumeAllSoon(Executor* executor, WaitNode* first) {
  while (first != nullptr) {
    WaitNode* const next = first->next;  // once it is resumed it may be gone
    ResumeSoon(executor, first->waiting);
    first = next;
  }
}

void WaitList::Add(WaitNode* node) {
  if (end_.next == nullptr) end_.next = end_.previous = &end_;
  node->previous = end_.previous;
  node->next = &end_;
  node->previous->next = node;
  end_.previous = node;
}

bool WaitList::Remove(WaitNode* node) {
  if (node->previous == nullptr) return false;
  node->previous->next = node->next;
  node->next->previous = node->previous;
  node->previous = node->next = nullptr;
  return true;
}

WaitNode* WaitList::TakeFirst() {
  if (empty()) return nullptr;
  WaitNode* const first = end_.next;
  Remove(first);
  return first;
}

WaitNode* WaitList::TakeAll() {
  if (empty()) return nullptr;
  WaitNode* const first = end_.next;
  end_.previous->next = nullptr;
  for (WaitNode* node = first; node != nullptr; node = node->next) node->previous = nullptr;
  end_.next = end_.previous = nullptr;
  return first;
}

void WaitPlace::OnStop(WaitList* list, WaitNode* node) {
  Executor* const executor = executor_;
  {
    MutexLock lock(&mutex_);
    node->stopped = true;
    if (!list->Remove(node)) return;
  }
  ResumeSoon(executor, node->waiting);  // it waits, where it goes on, for this function to return
}

class SleepState {
 public:
  SleepState(Executor* executor, std::coroutine_handle<> waiting) : executor_(executor), waiting_(waiting) {}

  // False: it has been stopped already. `self` is this.
  static bool Begin(const std::shared_ptr<SleepState>& self, SteadyTime when) {
    MutexLock lock(&self->mutex_);
    if (self->phase_ == Phase::kOver) return false;
    self->phase_ = Phase::kWaiting;
    self->timer_ = DeadlineTimer::Get().Schedule(when, [self] { self->End(/*slept=*/true); });
    return true;
  }

  void End(bool slept) {
    {
      MutexLock lock(&mutex_);
      if (std::exchange(phase_, Phase::kOver) != Phase::kWaiting) return;
      slept_ = slept;
    }
    ResumeSoon(executor_, waiting_);
  }

  bool TakeResult() {
    DeadlineTimer::Handle timer;
    {
      MutexLock lock(&mutex_);
      if (slept_) return true;
      timer = timer_;
    }
    DeadlineTimer::Get().Cancel(timer);
    return false;
  }

 private:
  enum class Phase { kBeginning, kWaiting, kOver };
  Executor* const executor_;
  const std::coroutine_handle<> waiting_;
  Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kBeginning;
  bool slept_ ABSL_GUARDED_BY(mutex_) = false;
  DeadlineTimer::Handle timer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace internal

void Event::Set() {
  Executor* const executor = executor_;
  internal::WaitNode* all;
  {
    MutexLock lock(&mutex_);
    set_ = true;
    all = waiting_.TakeAll();
    for (internal::WaitNode* node = all; node != nullptr; node = node->next) node->ok = true;
  }
  internal::ResumeAllSoon(executor, all);
}

void Event::Reset() {
  MutexLock lock(&mutex_);
  set_ = false;
}

bool Event::IsSet() const {
  MutexLock lock(&mutex_);
  return set_;
}

bool Event::Waiter::await_suspend(std::coroutine_handle<> to_resume) {
  ListenToStop(to_resume);
  MutexLock lock(&event_->mutex_);
  if (event_->set_) {
    ok = true;
    return false;
  }
  if (stopped) return false;
  event_->waiting_.Add(this);
  return true;
}

Sleep::~Sleep() = default;

void Sleep::Stop::operator()() const noexcept { state->End(/*slept=*/false); }

bool Sleep::await_suspend(std::coroutine_handle<> waiting) {
  const auto state = std::make_shared<internal::SleepState>(executor_, waiting);
  state_ = state;
  if (stop_.stop_possible()) on_stop_.emplace(std::move(stop_), Stop{state.get()});
  return internal::SleepState::Begin(state, when_);
}

bool Sleep::await_resume() {
  on_stop_.reset();  // a stop does nothing any more, and is not about to
  return state_ == nullptr || state_->TakeResult();
}

}  // namespace shmrpc
