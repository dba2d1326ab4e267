#include "shmrpc/client_reactor.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/client_asynchronous_stream.h"
#include "runtime/src/client_call_access.h"
#include "shmrpc/mutex.h"

namespace shmrpc {
namespace internal {

// The call of a reactor. It collects what the reactor has to be told, and sees to it that one thread at a time tells:
// `telling_` is that thread's right. Who finds it taken leaves the rest to its holder. An event's thread takes the
// right and tells at once; a thread of the user, inside one of the Start functions, only takes it so that nobody tells
// meanwhile, and passes it to the callback thread if there is something to tell.
class ClientReactorCall final : public AsynchronousStream {
 public:
  ClientReactorCall(std::shared_ptr<ChannelImpl> channel, const char* method, MethodKind kind, ClientContext* context,
                    const google::protobuf::MessageLite* request, google::protobuf::MessageLite* reply,
                    ClientReactor* reactor)
      : AsynchronousStream(std::move(channel), method, kind, context, reply), request_(request), reactor_(reactor) {}

  // What the reactor asks for. It may be gone when one of these returns, so the caller holds a reference.
  void StartCall() {
    const bool may_tell = BeginStarting(/*outstanding=*/0);
    Begin(request_);
    EndStarting(may_tell);
  }
  void StartRead(google::protobuf::MessageLite* message) {
    const bool may_tell = BeginStarting(1);
    Answer(Told::kRead, Read(message));
    EndStarting(may_tell);
  }
  void StartWrite(const google::protobuf::MessageLite& message, bool last) {
    const bool may_tell = BeginStarting(1);
    Answer(Told::kWrite, Write(message, last));
    EndStarting(may_tell);
  }
  void StartHalfClose() {
    const bool may_tell = BeginStarting(1);
    Answer(Told::kHalfClose, HalfClose());
    EndStarting(may_tell);
  }
  void AddHolds(int holds) {
    MutexLock lock(&told_mutex_);
    outstanding_ += holds;
  }
  void RemoveHold() {
    const bool may_tell = BeginStarting(-1);
    EndStarting(may_tell);
  }

 private:
  // In the order in which the reactor is told of those that have come together.
  enum class Told { kInitialMetadata, kRead, kWrite, kHalfClose, kDone };
  static constexpr int kTold = 4;  // those that are true or false
  enum class Result : char { kNothing, kTrue, kFalse };

  // AsynchronousStream
  void OnInitialMetadata() override { SetAndTell(Told::kInitialMetadata, true); }
  void OnReadDone(bool ok) override { SetAndTell(Told::kRead, ok); }
  void OnWriteDone(bool ok) override { SetAndTell(Told::kWrite, ok); }
  void OnHalfCloseDone(bool ok) override { SetAndTell(Told::kHalfClose, ok); }
  void OnStreamEnd(absl::Status status) override {
    {
      MutexLock lock(&told_mutex_);
      ended_ = true;
      status_ = std::move(status);
      if (!initial_metadata_told_) Set(Told::kInitialMetadata, false);
      if (!TakeRight()) return;
    }
    Tell();
  }

  bool TakeRight() ABSL_EXCLUSIVE_LOCKS_REQUIRED(told_mutex_) { return !std::exchange(telling_, true); }

  void Set(Told what, bool ok) ABSL_EXCLUSIVE_LOCKS_REQUIRED(told_mutex_) {
    results_[static_cast<int>(what)] = ok ? Result::kTrue : Result::kFalse;
    if (what == Told::kInitialMetadata) initial_metadata_told_ = true;
  }

  void SetAndTell(Told what, bool ok) {
    {
      MutexLock lock(&told_mutex_);
      Set(what, ok);
      if (!TakeRight()) return;
    }
    Tell();
  }

  bool BeginStarting(int outstanding) {
    MutexLock lock(&told_mutex_);
    outstanding_ += outstanding;
    return TakeRight();
  }

  void Answer(Told what, Outcome outcome) {
    if (outcome == Outcome::kLater) return;
    MutexLock lock(&told_mutex_);
    Set(what, outcome == Outcome::kDone);
  }

  void EndStarting(bool may_tell) {
    if (!may_tell) return;
    {
      MutexLock lock(&told_mutex_);
      if (!SomethingToTell()) {
        telling_ = false;
        return;
      }
    }
    CallbackThreads::Get().Run(
        [self = std::static_pointer_cast<ClientReactorCall>(shared_from_this())] { self->Tell(); });
  }

  bool IsDone() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(told_mutex_) { return ended_ && !done_told_ && outstanding_ == 0; }

  bool SomethingToTell() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(told_mutex_) {
    for (Result result : results_) {
      if (result != Result::kNothing) return true;
    }
    return IsDone();
  }

  // Tells all there is, with the right, which it gives back.
  void Tell() {
    const std::shared_ptr<AsynchronousCall> self = shared_from_this();
    bool answered = false;
    for (;;) {
      Told what;
      bool ok = false;
      {
        MutexLock lock(&told_mutex_);
        // Only now, because the callback may have started the next operation.
        if (answered) --outstanding_;
        if (!Next(&what, &ok)) {
          telling_ = false;
          return;
        }
      }
      answered = what == Told::kRead || what == Told::kWrite || what == Told::kHalfClose;
      switch (what) {
        case Told::kInitialMetadata:
          reactor_->OnReadInitialMetadataDone(ok);
          break;
        case Told::kRead:
          reactor_->OnReadDone(ok);
          break;
        case Told::kWrite:
          reactor_->OnWriteDone(ok);
          break;
        case Told::kHalfClose:
          reactor_->OnWritesDoneDone(ok);
          break;
        case Told::kDone:
          // Nothing but status_ is needed after it: it lives as long as this object.
          return reactor_->OnDone(status_);
      }
    }
  }

  bool Next(Told* what, bool* ok) ABSL_EXCLUSIVE_LOCKS_REQUIRED(told_mutex_) {
    for (int i = 0; i < kTold; ++i) {
      if (results_[i] == Result::kNothing) continue;
      *what = static_cast<Told>(i);
      *ok = std::exchange(results_[i], Result::kNothing) == Result::kTrue;
      return true;
    }
    if (!IsDone()) return false;
    done_told_ = true;
    *what = Told::kDone;
    return true;
  }

  const google::protobuf::MessageLite* const request_;
  ClientReactor* const reactor_;
  absl::Status status_;  // constant once ended_

  Mutex told_mutex_;
  bool telling_ ABSL_GUARDED_BY(told_mutex_) = false;
  Result results_[kTold] ABSL_GUARDED_BY(told_mutex_) = {};
  bool initial_metadata_told_ ABSL_GUARDED_BY(told_mutex_) = false;
  int outstanding_ ABSL_GUARDED_BY(told_mutex_) = 0;  // operations and holds
  bool ended_ ABSL_GUARDED_BY(told_mutex_) = false;
  bool done_told_ ABSL_GUARDED_BY(told_mutex_) = false;
};

}  // namespace internal

ClientReactor::ClientReactor() = default;
ClientReactor::~ClientReactor() = default;

// Each holds a reference of its own, because the reactor may be destroyed, by a callback on another thread, as soon as
// what was started is complete.
void ClientReactor::StartCall() { std::shared_ptr(call_)->StartCall(); }
void ClientReactor::AddMultipleHolds(int holds) { call_->AddHolds(holds); }
void ClientReactor::RemoveHold() { std::shared_ptr(call_)->RemoveHold(); }
void ClientReactor::StartReadMessage(google::protobuf::MessageLite* message) {
  std::shared_ptr(call_)->StartRead(message);
}
void ClientReactor::StartWriteMessage(const google::protobuf::MessageLite* message, bool last) {
  std::shared_ptr(call_)->StartWrite(*message, last);
}
void ClientReactor::StartHalfClose() { std::shared_ptr(call_)->StartHalfClose(); }

void PrepareClientReactor(const std::shared_ptr<Channel>& channel, const char* method, MethodKind kind,
                          ClientContext* context, const google::protobuf::MessageLite* request,
                          google::protobuf::MessageLite* reply, ClientReactor* reactor) {
  reactor->call_ = std::make_shared<internal::ClientReactorCall>(ChannelAccess::shared_impl(*channel), method, kind,
                                                                 context, request, reply, reactor);
}

}  // namespace shmrpc
