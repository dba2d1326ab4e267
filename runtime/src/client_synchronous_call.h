#ifndef SHMRPC_RUNTIME_SRC_CLIENT_SYNCHRONOUS_CALL_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_SYNCHRONOUS_CALL_H_

#include <atomic>
#include <utility>
#include <vector>

#include "absl/base/optimization.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "runtime/src/answered_call.h"
#include "runtime/src/channel_impl.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/client_call_parameters.h"
#include "runtime/src/client_retry.h"
#include "shmrpc/client_context.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"

namespace shmrpc {

// What calls have in common whose caller waits for them: getting a connection, TryCancel, the deadline, the one end.
//
//   Attach ──▶ CheckParameters ──▶ Connect ──▶ Start ──▶ Wait … ──▶ Detach
//                                     ▲                    │
//                                     ╰─────── Retry ◀─────╯
//
// The caller's threads use it until Detach; TryCancel, on any thread, until Detach returns. When one of the steps
// before Start fails there is no call, and only Detach may follow (after a failed Attach, nothing).
class SynchronousCall : public CallEvents, public internal::CallInProgress {
 public:
  SynchronousCall(const SynchronousCall&) = delete;
  SynchronousCall& operator=(const SynchronousCall&) = delete;

  // CallEvents
  void OnHeaders(Metadata metadata) override {
    if (context_ != nullptr) ClientCallAccess::set_server_initial_metadata(context_, std::move(metadata));
  }
  bool RunsUserCode() const final { return false; }

  // CallInProgress
  void OnTryCancel() final;
  const char* method_in_progress() const final { return parameters_.method; }
  bool OnContextGone(absl::Status status) override;

 protected:
  SynchronousCall(ChannelImpl& channel, const char* method, MethodKind kind, ClientContext* context)
      : parameters_(method, kind, context, channel.options()), channel_(channel), context_(context) {}
  ~SynchronousCall() override = default;

  absl::Status Attach() { return context_ != nullptr ? ClientCallAccess::Begin(context_, this) : absl::OkStatus(); }
  absl::Status CheckParameters() { return parameters_.Check(channel_); }
  absl::Status Connect();
  // When Connect has failed or the call is over: whether there is to be another attempt, which then begins with
  // Connect. Waits for the time to come. False: `*status`, that of the latest attempt or what has come between, is the
  // call's. No other thread of the caller uses the call meanwhile.
  bool Retry(absl::Status* status) {
    return ABSL_PREDICT_FALSE(attempt_end_ != AttemptEnd::kMayHaveRun) && PrepareNextAttempt(status);
  }
  // Events come from now on.
  void Start(const OutgoingMessage* request);
  // In place of Connect and Start: an interceptor has answered the call, which is a stream.
  void StartAnswered(internal::CallAnswer answer);
  void Detach() {
    if (context_ != nullptr) ClientCallAccess::End(context_);
  }

  // Waits until `done()`, for which Call::WaitUntil's rules hold. When the deadline passes first, the call is cancelled
  // and `done()` has to turn true with its end.
  void Wait(absl::FunctionRef<bool()> done) {
    if (call_->WaitUntil(done, parameters_.deadline)) return;
    call_->Cancel(parameters_.TooLate());
    // Whoever delivers the status may not be done yet.
    call_->WaitUntil(done, SteadyTime::InfiniteFuture());
  }

  // For OnStatus, as the last thing it does: a waiting thread may destroy this object from then on.
  void End(CallEnd end) {
    if (context_ != nullptr) ClientCallAccess::set_server_trailing_metadata(context_, std::move(end.trailing_metadata));
    attempt_end_ = end.not_processed ? AttemptEnd::kNotProcessed : AttemptEnd::kMayHaveRun;
    if (ABSL_PREDICT_FALSE(parameters_.retry_policy != nullptr) && !end.not_processed) {
      channel_.retry_throttle().Record(*parameters_.retry_policy, end.status);
    }
    EndUnstarted(std::move(end.status));
  }
  // When one of the steps before Start has failed. Leaves the context alone, which may be another call's.
  void EndUnstarted(absl::Status status) {
    status_ = std::move(status);
    over_.store(true, std::memory_order_release);
  }
  // In the child of a fork() the call is the parent's: it is left alone, connection and all, and is over here, with
  // FAILED_PRECONDITION. To be asked before anything else is done with a call that was started earlier.
  void LetGoIfInherited() {
    if (ABSL_PREDICT_FALSE(!channel_.CheckProcess().ok()) && call_ != nullptr) LetGo();
  }
  ClientContext* context() const { return context_; }
  // The call is over, and its caller is not inside it.
  void ForgetContext() { context_ = nullptr; }
  const std::vector<ClientInterceptor>& interceptors() const { return channel_.options().interceptors; }
  bool IsOver() const { return over_.load(std::memory_order_acquire); }

  CallParameters parameters_;

 private:
  bool PrepareNextAttempt(absl::Status* status);
  void LetGo();

  ChannelImpl& channel_;
  ClientContext* context_;
  // Held to the end: a connection that another thread finds over would otherwise be destroyed under this call.
  ConnectionPtr connection_;

 protected:
  CallPtr call_;         // null until Start
  absl::Status status_;  // once IsOver()

 private:
  std::atomic<Call*> started_call_{nullptr};
  std::atomic<bool> over_{false};
  AttemptEnd attempt_end_ = AttemptEnd::kMayHaveRun;  // of the latest attempt, once it is over
  CallAttempts attempts_;
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_SYNCHRONOUS_CALL_H_
