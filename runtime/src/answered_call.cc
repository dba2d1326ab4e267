#include "runtime/src/answered_call.h"

#include <cstddef>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "runtime/src/callback_threads.h"
#include "shmrpc/message.h"

namespace shmrpc::internal {

// Events are delivered by one thread at a time, without the lock: the thread that asks for one, or a callback thread
// for events that run user code, which must not come from inside a function of Call.
//
// Shared by its owner until Release, by the threads that deliver, and by those that are inside one of its functions.
class AnsweredCall final : public Call, public std::enable_shared_from_this<AnsweredCall> {
 public:
  AnsweredCall(const CallSpec& spec, CallAnswer answer, CallEvents* events)
      : events_(events),
        runs_user_code_(events->RunsUserCode()),
        server_streams_(spec.server_streams),
        answer_(std::move(answer)),
        half_closed_(!spec.client_streams) {}

  // To be called once, when the owner knows the call.
  void Start() {
    self_ = shared_from_this();
    Advance();
  }

  // Call
  SendResult Send(const OutgoingMessage&, bool last) override {
    {
      MutexLock lock(&mutex_);
      if (over_ || !cancelled_.ok()) return SendResult::kOver;
      half_closed_ = half_closed_ || last;
    }
    if (last) Advance();
    return SendResult::kSent;
  }
  void HalfClose() override { Set(&half_closed_); }
  void Receive() override { Set(&asked_); }
  void DropMessages() override { Set(&dropped_); }
  void Cancel(absl::Status status) override {
    {
      MutexLock lock(&mutex_);
      cancelled_.Update(std::move(status));
    }
    Advance();
  }
  bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) override {
    const std::shared_ptr<AnsweredCall> self = shared_from_this();  // `done` may be the end
    MutexLock lock(&mutex_);
    while (!done()) {
      if (delivered_.WaitUntil(&mutex_, deadline)) return done();
    }
    return true;
  }
  void Release() override { const std::shared_ptr<AnsweredCall> self = std::move(self_); }

 private:
  struct NextEvent {
    std::optional<std::string> message;  // otherwise it is the end, with `status`
    absl::Status status;
  };

  void Set(bool* flag) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      *flag = true;
    }
    Advance();
  }

  void Advance() {
    if (!runs_user_code_) return Deliver();
    CallbackThreads::Get().Run([self = shared_from_this()] { self->Deliver(); });
  }

  void Deliver() {
    const std::shared_ptr<AnsweredCall> self = shared_from_this();  // the owner may release it inside OnStatus
    for (;;) {
      std::optional<NextEvent> event;
      {
        MutexLock lock(&mutex_);
        if (delivering_) return;  // that thread looks again
        event = TakeNext();
        if (!event.has_value()) return;
        delivering_ = true;
      }
      if (event->message.has_value()) {
        const std::string_view piece = *event->message;
        events_->OnMessage(IncomingMessage(std::span(&piece, piece.empty() ? 0 : 1)));
      } else {
        events_->OnStatus({std::move(event->status)});
      }
      MutexLock lock(&mutex_);
      delivering_ = false;
      delivered_.SignalAll();
    }
  }

  std::optional<NextEvent> TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (over_) return std::nullopt;
    const bool due = server_streams_ ? asked_ || dropped_ : half_closed_;
    if (cancelled_.ok() && !due) return std::nullopt;
    if (cancelled_.ok() && !dropped_ && next_ < answer_.replies.size()) {
      asked_ = false;
      return NextEvent{std::move(answer_.replies[next_++]), absl::OkStatus()};
    }
    over_ = true;
    return NextEvent{std::nullopt, cancelled_.ok() ? answer_.status : cancelled_};
  }

  CallEvents* const events_;
  const bool runs_user_code_;
  const bool server_streams_;
  std::shared_ptr<AnsweredCall> self_;  // from Start to Release

  Mutex mutex_;
  CondVar delivered_;
  CallAnswer answer_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;  // of the replies
  bool half_closed_ ABSL_GUARDED_BY(mutex_);
  bool asked_ ABSL_GUARDED_BY(mutex_) = false;    // for a message that has yet to come
  bool dropped_ ABSL_GUARDED_BY(mutex_) = false;  // nobody wants messages
  absl::Status cancelled_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;  // OnStatus has come, or is about to
  bool delivering_ ABSL_GUARDED_BY(mutex_) = false;
};

AnsweredConnection::~AnsweredConnection() {
  std::shared_ptr<AnsweredCall> call;
  {
    MutexLock lock(&mutex_);
    call = call_.lock();
  }
  if (call != nullptr) call->Cancel(absl::CancelledError("the channel was destroyed"));
}

void AnsweredConnection::StartCall(const CallSpec& spec, const OutgoingMessage*, CallEvents* events,
                                   std::atomic<Call*>* call) {
  auto started = std::make_shared<AnsweredCall>(spec, std::move(answer_), events);
  {
    MutexLock lock(&mutex_);
    call_ = started;
  }
  call->store(started.get(), std::memory_order_seq_cst);
  started->Start();
}

}  // namespace shmrpc::internal
