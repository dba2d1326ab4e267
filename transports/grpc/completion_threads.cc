#include "transports/grpc/completion_threads.h"

#include <grpcpp/alarm.h>

#include <cstdint>
#include <deque>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "runtime/src/deadline_timer.h"
#include "runtime/src/thread.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/grpc/conversions.h"

namespace shmrpc::grpc_transport {

// Invariants, under mutex_:
//  1. Every thread is counted in exactly one of polling_ and running_.
//  2. While nobody polls, some thread runs user code that is short, or CheckSoon has been called.
//  3. waiting_ is empty unless running_ is the limit: who gives up running takes over what waits.
class CompletionThreads::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(const char* name, std::unique_ptr<grpc::CompletionQueue> queue, int max_user_threads)
      : name_(name), queue_(std::move(queue)), max_running_(max_user_threads) {}

  absl::Status Start() {
    for (int i = 0; i < kMinPolling; ++i) {
      absl::Status status = AddThread();
      if (!status.ok() && i == 0) return status;
    }
    return absl::OkStatus();
  }

  void Stop() {
    queue_->Shutdown();
    if (current_.of == this) return;
    MutexLock lock(&mutex_);
    while (polling_ + running_ > 0) ended_.Wait(&mutex_);
  }

  void RunSoon(UserCode code) {
    if (current_.of == this && current_.in_completion && current_.code == nullptr) {
      current_.code = std::move(code);
    } else {
      auto* const posted = new Posted(this, std::move(code));
      posted->alarm.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_REALTIME), static_cast<Completion*>(posted));
    }
  }

  grpc::CompletionQueue* queue() const { return queue_.get(); }

 private:
  // Two, so that usually somebody waits while another one runs short user code, and no thread has to be started.
  static constexpr int kMinPolling = 2;
  static constexpr absl::Duration kIdleTime = absl::Seconds(1);
  static constexpr absl::Duration kShort = absl::Milliseconds(1);  // user code that is worth no thread

  // What this thread is doing, for RunSoon.
  struct Current {
    Impl* of = nullptr;
    bool in_completion = false;
    UserCode code;
  };
  static thread_local Current current_;

  // User code that comes from elsewhere: an alarm that is due at once brings it into the queue.
  struct Posted final : Completion {
    Posted(Impl* to, UserCode posted_code) : impl(to), code(std::move(posted_code)) {}
    void OnCompletion(bool) override {
      impl->RunSoon(std::move(code));
      delete this;
    }
    Impl* const impl;
    UserCode code;
    grpc::Alarm alarm;
  };

  absl::Status AddThread() {
    {
      MutexLock lock(&mutex_);
      ++polling_;
    }
    absl::StatusOr<internal::Thread> thread = internal::StartThread(name_, [self = shared_from_this()] { self->Serve(); });
    if (thread.ok()) {
      thread->detach();
      return absl::OkStatus();
    }
    MutexLock lock(&mutex_);
    --polling_;
    return thread.status();
  }

  void Serve() {
    current_.of = this;
    for (;;) {
      SteadyTime patience = SteadyTime::InfiniteFuture();
      {
        MutexLock lock(&mutex_);
        if (polling_ > kMinPolling) patience = SteadyTime::Now() + kIdleTime;
      }
      void* tag = nullptr;
      bool ok = false;
      const auto next = queue_->AsyncNext(&tag, &ok, ToGrpcTime(patience));
      if (next == grpc::CompletionQueue::GOT_EVENT) {
        current_.in_completion = true;
        static_cast<Completion*>(tag)->OnCompletion(ok);
        current_.in_completion = false;
        if (current_.code != nullptr) Run(std::exchange(current_.code, nullptr));
        continue;
      }
      MutexLock lock(&mutex_);
      if (next == grpc::CompletionQueue::TIMEOUT && polling_ <= kMinPolling) continue;
      --polling_;
      ended_.SignalAll();
      return;
    }
  }

  void Run(UserCode code) {
    {
      MutexLock lock(&mutex_);
      if (running_ == max_running_) {
        waiting_.push_back(std::move(code));
        return;
      }
      ++begun_;
      ++running_;
      --polling_;
      if (polling_ == 0) CheckSoon();
    }
    for (;;) {
      code();
      code = nullptr;
      MutexLock lock(&mutex_);
      if (waiting_.empty()) {
        --running_;
        ++polling_;
        return;
      }
      ++begun_;
      code = std::move(waiting_.front());
      waiting_.pop_front();
    }
  }

  // Starts a thread if in a moment nobody polls and no user code has begun since: most is over before that would pay.
  void CheckSoon() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (check_scheduled_) return;
    check_scheduled_ = true;
    begun_before_check_ = begun_;
    internal::DeadlineTimer::Get().Schedule(SteadyTime::Now() + kShort, [weak = weak_from_this()] {
      if (const std::shared_ptr<Impl> self = weak.lock()) self->Check();
    });
  }

  void Check() {
    {
      MutexLock lock(&mutex_);
      check_scheduled_ = false;
      if (polling_ > 0) return;
      if (begun_ != begun_before_check_) return CheckSoon();
    }
    if (AddThread().ok()) return;
    // The system has no thread to give now, but may have later.
    MutexLock lock(&mutex_);
    CheckSoon();
  }

  const char* const name_;
  const std::unique_ptr<grpc::CompletionQueue> queue_;
  const int max_running_;

  Mutex mutex_;
  CondVar ended_;
  int polling_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool check_scheduled_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t begun_ ABSL_GUARDED_BY(mutex_) = 0;  // pieces of user code
  uint64_t begun_before_check_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<UserCode> waiting_ ABSL_GUARDED_BY(mutex_);
};

thread_local CompletionThreads::Impl::Current CompletionThreads::Impl::current_;

absl::StatusOr<std::unique_ptr<CompletionThreads>> CompletionThreads::Start(
    const char* name, std::unique_ptr<grpc::CompletionQueue> queue, int max_user_threads) {
  auto impl = std::make_shared<Impl>(name, std::move(queue), max_user_threads);
  absl::Status status = impl->Start();
  std::unique_ptr<CompletionThreads> threads(new CompletionThreads(std::move(impl)));
  if (!status.ok()) return status;
  return threads;
}

CompletionThreads::CompletionThreads(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
CompletionThreads::~CompletionThreads() { impl_->Stop(); }
grpc::CompletionQueue* CompletionThreads::queue() const { return impl_->queue(); }
void CompletionThreads::RunSoon(UserCode code) { impl_->RunSoon(std::move(code)); }

}  // namespace shmrpc::grpc_transport
