#ifndef SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_CALL_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_CALL_H_

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/channel_impl.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/client_call_parameters.h"
#include "runtime/src/client_interception.h"
#include "runtime/src/client_reply.h"
#include "runtime/src/client_retry.h"
#include "runtime/src/deadline_timer.h"
#include "shmrpc/client_context.h"
#include "shmrpc/message.h"
#include "shmrpc/mutex.h"
#include "shmrpc/transport.h"

namespace shmrpc {

// What calls have in common that nobody waits for: getting a connection, the deadline, TryCancel, the one end; the
// reply, if it does not stream; and what interceptors want.
//
//   kStarting ──no connection──▶ kWaiting ──connected──▶ kStarting ──▶ kStarted ──status──▶ kEnded
//       ▲  ▲                                                              │
//       │  ╰──────────── at once ◀───────── not processed, and to be attempted again
//       ╰── kPausing ◀── after a pause ◀──────────────────────────────────╯
//
// Deadline and TryCancel come at any time, from any thread, through End, and are remembered. In kWaiting and kPausing
// they end the call; in kStarted they cancel the attempt, and there is no further one; in kStarting they do so too if
// the transport has made its call, and otherwise the starting thread, which does not hold the lock while it works, will
// find what was remembered.
//
// The Call objects of attempts are released with this object: somebody may still be about to use the last but one.
//
// Shared by those who may still want to end it: the channel's queue, its user, and itself while it is started. The list
// of deadlines and the context know it as long as it is not over, and ask for a reference when they want to end it.
// Does not keep the channel alive: the end of the Channel ends the call.
class AsynchronousCall : public CallEvents,
                         public internal::CallInProgress,
                         public internal::CallDeadlines::Entry,
                         public ConnectionWaiter,
                         public std::enable_shared_from_this<AsynchronousCall> {
 public:
  ~AsynchronousCall() override {
    Call* const call = call_.load(std::memory_order_relaxed);
    if (call != nullptr) call->Release();
    for (Call* call : earlier_calls_) call->Release();
  }
  AsynchronousCall(const AsynchronousCall&) = delete;
  AsynchronousCall& operator=(const AsynchronousCall&) = delete;

  // Once. The caller holds a reference meanwhile. `request` is null if the client streams, and lives until this
  // returns, or `request_outlives_call`; OnEnd may run inside, where it must not run user code. May block while the way
  // to the server is full, until the call is ended.
  void Begin(const google::protobuf::MessageLite* request, bool request_outlives_call = false);

  // Ends the call with `status` (not OK) unless it is over. After Begin was entered, on any thread.
  void End(absl::Status status);

  // The same for a user who goes away: the context is not used any more when this returns. Not before Begin has
  // returned.
  void Abandon(absl::Status status);

  // ConnectionWaiter
  void OnConnected(const ConnectionPtr& connection) final;
  void OnNotConnected(absl::Status status) final;

  // CallEvents
  void OnHeaders(Metadata metadata) final;
  void OnMessage(const IncomingMessage& message) override { reply_.OnMessage(message); }
  void OnStatus(CallEnd end) final;
  bool RunsUserCode() const final { return true; }
  const google::protobuf::Descriptor* message_type() const override {
    return ServerStreams(parameters_.kind) ? nullptr : reply_.type();
  }

  // CallInProgress
  void OnTryCancel() final {
    if (!channel_->CheckProcess().ok()) return;  // in a fork()ed child: it is the parent's call
    const internal::NoUserCodeHere in_a_call_of_the_users;
    End(internal::CancelledByCaller());
  }
  std::shared_ptr<internal::CallInProgress> KeepAsynchronous() final { return shared_from_this(); }
  const char* method_in_progress() const final { return parameters_.method; }
  bool OnContextGone(absl::Status status) final {
    if (!channel_->CheckProcess().ok()) return true;  // as above
    const internal::NoUserCodeHere in_a_call_of_the_users;
    Abandon(std::move(status));
    return true;
  }

  // CallDeadlines::Entry
  std::shared_ptr<Entry> KeepWhileDue() final { return weak_from_this().lock(); }
  void OnDeadline() final { End(parameters_.TooLate()); }

 protected:
  // `reply` is not used if the replies stream.
  AsynchronousCall(std::shared_ptr<ChannelImpl> channel, const char* method, MethodKind kind, ClientContext* context,
                   google::protobuf::MessageLite* reply)
      : channel_(std::move(channel)),
        parameters_(method, kind, context, channel_->options()),
        reply_(method, reply),
        context_(context) {}

  // An attempt, counted from 0, is on its way: `call` may be used from now on, until this object goes. At most once for
  // each attempt, on the starting thread, which has no lock; events, even OnEnd, may come before or meanwhile, and so
  // may the start of the next attempt.
  virtual void OnStarted(int /*attempt*/, Call* /*call*/) {}

  // Before the call is attempted again, with no lock held. False: there must be no further attempt, because something
  // that would have to be done again cannot be.
  virtual bool PrepareForAttempt(int /*attempt*/) { return true; }

  // The context has the server's initial metadata.
  virtual void OnInitialMetadata() {}

  // The call is over; comes exactly once, and the context is not used any more. The caller may destroy everything.
  // This, as what else comes of an event, may come where user code must not run: see internal::RunUserCode.
  virtual void OnEnd(absl::Status status) = 0;

  const CallParameters& parameters() const { return parameters_; }
  // Null when there are no interceptors. Constant once Begin has been entered.
  ClientInterception* interception() const { return interception_.get(); }

 private:
  enum class Phase { kStarting, kWaiting, kStarted, kPausing, kEnded };

  absl::Status AttachToContext();
  // False: an interceptor has answered the call.
  void StartAnswered(internal::CallAnswer answer);
  bool PassInterceptors(absl::Status* status);
  void StartOrWait(const OutgoingMessage* request);
  // With the request that is here, on `connection` if there is one.
  void StartAgain(const ConnectionPtr& connection);
  void Wait(const OutgoingMessage* request);
  bool LeaveQueue();
  // What to do when an attempt has failed with `*status`: true when the call goes on, false when it ends with
  // `*status`.
  bool Retry(AttemptEnd how, absl::Status* status);
  void NotConnected(absl::Status status);
  bool CanSendAgain() const;
  void Pause(absl::Duration pause);
  void EndPause();
  void Start(const ConnectionPtr& connection, const OutgoingMessage* request);
  void EnterFirstAttempt(const EstablishedConnection& connection);
  // False: the call has ended meanwhile.
  bool EnterAttempt(const EstablishedConnection& connection, int* attempt);
  absl::Status RememberedEnd();
  void Finish(absl::Status status, Metadata trailing_metadata);

  const std::shared_ptr<ChannelImpl> channel_;
  CallParameters parameters_;  // constant once Begin has checked them, but for what Wait does
  SingleReply reply_;          // unless the server streams
  std::unique_ptr<ClientInterception> interception_;
  const google::protobuf::MessageLite* outliving_request_ = nullptr;  // if it does outlive the call
  KeptRequest kept_request_;   // otherwise, for when the call waits, and for further attempts
  Metadata waiting_metadata_;  // a copy: the context may go while the call waits or is about to be started
  CallAttempts attempts_;      // the thread's that has the end of the latest

  std::shared_ptr<AsynchronousCall> self_;  // from the start on a connection to the status
  std::shared_ptr<ConnectionLoad> load_;
  // Set by the transport while the starting thread is in StartCall, changed otherwise with the lock.
  std::atomic<Call*> call_{nullptr};
  std::atomic<bool> ended_early_{false};  // end_ was set in kStarting, perhaps before call_
  std::vector<Call*> earlier_calls_;      // of attempts that have failed

  Mutex mutex_;                                     // held while the context is used; taken before the context's own
  ClientContext* context_ ABSL_GUARDED_BY(mutex_);  // null when there is none, or it is another call's, or is gone
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kStarting;
  int attempt_ ABSL_GUARDED_BY(mutex_) = 0;   // counted from 0
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // what came for the call
  internal::DeadlineTimer::Handle pause_timer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_CALL_H_
