#ifndef SHMRPC_TRANSPORTS_GRPC_CALL_BASE_H_
#define SHMRPC_TRANSPORTS_GRPC_CALL_BASE_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/grpc/completion_threads.h"
#include "transports/grpc/conversions.h"

namespace shmrpc::grpc_transport {

// What calls of both sides have in common: they tell their events one at a time, let threads wait for them, and live
// until nobody needs them: the owner, each operation of the gRPC library that is under way, and whoever tells an event.
//
// What has happened is noted in the derived class under mutex_, where IsDue() sees it; then Wake has it told. Events
// that run user code are told on the completion threads only, unless it is said that here will do.
class CallBase {
 public:
  CallBase(const CallBase&) = delete;
  CallBase& operator=(const CallBase&) = delete;

  void Ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 protected:
  // With one reference, the owner's.
  explicit CallBase(std::shared_ptr<CompletionThreads> threads) : threads_(std::move(threads)) {}
  virtual ~CallBase() = default;

  // Whether there is an event to be told now.
  virtual bool IsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // Tells one that is due. On the one thread that tells events; the owner may let go of the call inside.
  virtual void TellNext() ABSL_LOCKS_EXCLUDED(mutex_) = 0;
  virtual bool RunsUserCode() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;

  // For a method that has something told as the last thing it does: what it sets off may end the call on another
  // thread.
  class Keep {
   public:
    explicit Keep(CallBase* call) : call_(call) { call_->Ref(); }
    ~Keep() { call_->Unref(); }
    Keep(const Keep&) = delete;
    Keep& operator=(const Keep&) = delete;

   private:
    CallBase* const call_;
  };

  enum class Where {
    kHere,       // user code may run on this thread, now
    kElsewhere,  // only what is not user code
  };
  // Has the events told that are due, by this thread, one that is at it already, or one of the completion threads.
  void Wake(Where where) ABSL_LOCKS_EXCLUDED(mutex_);

  // As Call::WaitUntil.
  bool Wait(absl::FunctionRef<bool()> done, SteadyTime deadline) ABSL_LOCKS_EXCLUDED(mutex_);

  // A Completion that calls a method of the call, which it keeps alive: start an operation with Begin() as its tag.
  template <typename T>
  class Operation final : public Completion {
   public:
    Operation(T* call, void (T::*complete)(bool)) : call_(call), complete_(complete) {}
    void* Begin() {
      call_->Ref();
      return static_cast<Completion*>(this);
    }
    void OnCompletion(bool ok) override {
      T* const call = call_;
      (call->*complete_)(ok);
      call->Unref();
    }

   private:
    T* const call_;
    void (T::*const complete_)(bool);
  };

  const std::shared_ptr<CompletionThreads> threads_;
  mutable Mutex mutex_;

 private:
  void TellAll();

  CondVar told_;  // an event has been told, and somebody waits
  std::atomic<int> references_{1};
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool telling_ ABSL_GUARDED_BY(mutex_) = false;    // some thread does, and goes on until nothing is due
  bool scheduled_ ABSL_GUARDED_BY(mutex_) = false;  // one of the completion threads is going to
};

// Messages on their way out, of which the gRPC library takes one at a time. Not synchronised.
class SendQueue {
 public:
  // Whether one more message may be put in: the gRPC library sends one, and this much waits behind it at most.
  bool HasRoom() const { return bytes_ < kMaxBytes; }
  bool empty() const { return messages_.empty(); }

  void Add(grpc::ByteBuffer message) {
    bytes_ += Cost(message);
    messages_.push_back(std::move(message));
  }
  grpc::ByteBuffer Take() {
    grpc::ByteBuffer message = std::move(messages_.front());
    messages_.pop_front();
    bytes_ -= Cost(message);
    return message;
  }
  void Clear() {
    messages_.clear();
    bytes_ = 0;
  }

 private:
  static constexpr size_t kMaxBytes = 16 * 1024;
  static constexpr size_t kOverheadBytes = 64;
  static size_t Cost(const grpc::ByteBuffer& message) { return message.Length() + kOverheadBytes; }

  std::deque<grpc::ByteBuffer> messages_;
  size_t bytes_ = 0;
};

// Messages that are read ahead of the application's asking for them: so the end of the client's or the server's
// messages is usually known together with the last of them.
inline constexpr size_t kMessagesReadAhead = 2;

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_CALL_BASE_H_
