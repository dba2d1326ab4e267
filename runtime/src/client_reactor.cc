#include "shmrpc/client_reactor.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/client_asynchronous_stream.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/misuse.h"
#include "shmrpc/mutex.h"

namespace shmrpc {
namespace internal {

// The call of a reactor. It collects what the reactor has to be told, and sees to it that one thread at a time tells:
// `telling_` is that thread's right, and while it is taken its holder is left whatever comes. An event's thread takes
// the right and tells at once, unless user code must not run there. A thread of the user inside one of the Start
// functions must not, though events may come on it too: while there is one (`starting_`) nobody takes the right, and
// the last of them to leave passes it to the callback thread if there is something to tell.
class ClientReactorCall final : public AsynchronousStream {
 public:
  ClientReactorCall(std::shared_ptr<ChannelImpl> channel, const char* method, MethodKind kind, ClientContext* context,
                    const google::protobuf::MessageLite* request, google::protobuf::MessageLite* reply,
                    ClientReactor* reactor)
      : AsynchronousStream(std::move(channel), method, kind, context, reply), request_(request), reactor_(reactor) {}

  // What the reactor asks for. It may be gone when one of these returns, so the caller holds a reference.
  void StartCall() {
    {
      MutexLock lock(&told_mutex_);
      if (begun_) {
        (void)Misuse(absl::StrCat("StartCall was called twice for one call of ", parameters().method));
        return;
      }
      begun_ = true;
      ++starting_;
    }
    Begin(request_);
    EndStarting();
  }
  void StartRead(google::protobuf::MessageLite* message) {
    if (!BeginStarting(Told::kRead, "StartRead")) return;
    Answer(Told::kRead, Read(message));
    EndStarting();
  }
  void StartWrite(const google::protobuf::MessageLite& message, bool last) {
    if (!BeginStarting(Told::kWrite, "StartWrite")) return;
    Answer(Told::kWrite, Write(message, last));
    EndStarting();
  }
  void StartHalfClose() {
    if (!BeginStarting(Told::kHalfClose, "StartWritesDone")) return;
    Answer(Told::kHalfClose, HalfClose());
    EndStarting();
  }
  void AddHolds(int holds) {
    MutexLock lock(&told_mutex_);
    outstanding_ += holds;
  }
  void RemoveHold() {
    {
      MutexLock lock(&told_mutex_);
      if (outstanding_ == 0) {
        (void)Misuse(absl::StrCat("more RemoveHold than AddHold in a call of ", parameters().method));
        return;
      }
      --outstanding_;
      ++starting_;
    }
    EndStarting();
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
    TellOrPassOn();
  }

  bool TakeRight() ABSL_EXCLUSIVE_LOCKS_REQUIRED(told_mutex_) {
    if (telling_ || starting_ > 0) return false;
    telling_ = true;
    return true;
  }

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
    TellOrPassOn();
  }

  // False: the previous operation of the kind has not been answered. Then this one is not, and the call ends.
  bool BeginStarting(Told what, const char* function) {
    {
      MutexLock lock(&told_mutex_);
      if (!std::exchange(under_way_[static_cast<int>(what)], true)) {
        ++outstanding_;
        ++starting_;
        return true;
      }
    }
    absl::Status misuse = Misuse(absl::StrCat(function, " in a call of ", parameters().method,
                                              " whose previous one has not been answered yet: one at a time"));
    const NoUserCodeHere in_a_call_of_the_users;
    End(std::move(misuse));
    return false;
  }

  void Answer(Told what, Outcome outcome) {
    if (outcome == Outcome::kLater) return;
    MutexLock lock(&told_mutex_);
    Set(what, outcome == Outcome::kDone);
  }

  void EndStarting() {
    {
      MutexLock lock(&told_mutex_);
      --starting_;
      if (!SomethingToTell() || !TakeRight()) return;
    }
    PassOn();
  }

  // With the right.
  void TellOrPassOn() { NoUserCodeHere::IsSo() ? PassOn() : Tell(); }
  void PassOn() {
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

  // Tells all there is, with the right, which it gives back. An exception ends the program: nobody could be told of it.
  void Tell() noexcept {
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
      under_way_[i] = false;  // its answer may start the next one
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
  int starting_ ABSL_GUARDED_BY(told_mutex_) = 0;  // threads in Start functions, those in callbacks too
  Result results_[kTold] ABSL_GUARDED_BY(told_mutex_) = {};
  bool under_way_[kTold] ABSL_GUARDED_BY(told_mutex_) = {};  // operations that have yet to be answered
  bool begun_ ABSL_GUARDED_BY(told_mutex_) = false;
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
void ClientReactor::StartCall() {
  if (const auto call = CallOrMisuse("StartCall")) call->StartCall();
}
void ClientReactor::AddMultipleHolds(int holds) {
  if (const auto call = CallOrMisuse("AddHold")) call->AddHolds(holds);
}
void ClientReactor::RemoveHold() {
  if (const auto call = CallOrMisuse("RemoveHold")) call->RemoveHold();
}
void ClientReactor::StartReadMessage(google::protobuf::MessageLite* message) {
  if (const auto call = CallOrMisuse("StartRead")) call->StartRead(message);
}
void ClientReactor::StartWriteMessage(const google::protobuf::MessageLite* message, bool last) {
  if (const auto call = CallOrMisuse("StartWrite")) call->StartWrite(*message, last);
}
void ClientReactor::StartHalfClose() {
  if (const auto call = CallOrMisuse("StartWritesDone")) call->StartHalfClose();
}

std::shared_ptr<internal::ClientReactorCall> ClientReactor::CallOrMisuse(const char* function) {
  if (call_ != nullptr) return call_;
  (void)internal::Misuse(
      absl::StrCat(function, " of a reactor that has no call yet: give it to a stub's method first"));
  return nullptr;
}

void PrepareClientReactor(const std::shared_ptr<Channel>& channel, const char* method, MethodKind kind,
                          ClientContext* context, const google::protobuf::MessageLite* request,
                          google::protobuf::MessageLite* reply, ClientReactor* reactor) {
  reactor->call_ = std::make_shared<internal::ClientReactorCall>(ChannelAccess::shared_impl(*channel), method, kind,
                                                                 context, request, reply, reactor);
}

}  // namespace shmrpc
