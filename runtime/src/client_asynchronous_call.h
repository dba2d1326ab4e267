#ifndef SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_CALL_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_CALL_H_

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/channel_impl.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/client_call_parameters.h"
#include "runtime/src/client_interception.h"
#include "runtime/src/client_reply.h"
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
//
// Deadline and TryCancel come at any time, from any thread, through End: in kStarting they are remembered, because the
// starting thread does not hold the lock while it works; in kWaiting they end the call; in kStarted they cancel it.
//
// Shared by those who may still want to end it: its timer, its context, the channel's queue, its user, and itself while
// it is started. Does not keep the channel alive: the end of the Channel ends the call.
class AsynchronousCall : public CallEvents,
                         public internal::CallInProgress,
                         public ConnectionWaiter,
                         public std::enable_shared_from_this<AsynchronousCall> {
 public:
  ~AsynchronousCall() override {
    if (call_ != nullptr) call_->Release();
  }
  AsynchronousCall(const AsynchronousCall&) = delete;
  AsynchronousCall& operator=(const AsynchronousCall&) = delete;

  // Once. The caller holds a reference meanwhile. `request` is null if the client streams, and lives until this
  // returns; OnEnd may run inside. May block while the way to the server is full.
  void Begin(const google::protobuf::MessageLite* request);

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
  void OnStatus(absl::Status status, Metadata trailing_metadata) final;
  bool RunsUserCode() const final { return true; }

  // CallInProgress
  void OnTryCancel() final { End(internal::CancelledByCaller()); }

 protected:
  // `reply` is not used if the replies stream.
  AsynchronousCall(std::shared_ptr<ChannelImpl> channel, const char* method, MethodKind kind, ClientContext* context,
                   google::protobuf::MessageLite* reply)
      : channel_(std::move(channel)),
        parameters_(method, kind, context, channel_->options()),
        reply_(method, reply),
        context_(context) {}

  // The call is on its way: call() may be used from now on. Comes at most once, on the starting thread, which has no
  // lock; events, even OnEnd, may come before or meanwhile.
  virtual void OnStarted() {}

  // The context has the server's initial metadata.
  virtual void OnInitialMetadata() {}

  // The call is over; comes exactly once, and the context is not used any more. The caller may destroy everything.
  virtual void OnEnd(absl::Status status) = 0;

  const CallParameters& parameters() const { return parameters_; }
  // Null when there are no interceptors. Constant once Begin has been entered.
  ClientInterception* interception() const { return interception_.get(); }
  Call& call() const { return *call_; }

 private:
  enum class Phase { kStarting, kWaiting, kStarted, kEnded };

  absl::Status AttachToContext();
  // False: an interceptor has answered the call.
  bool PassInterceptors(absl::Status* status);
  void StartOrWait(const OutgoingMessage* request);
  void Wait(const OutgoingMessage* request);
  bool LeaveQueue();
  void Start(const ConnectionPtr& connection, const OutgoingMessage* request);
  absl::Status RememberedEnd();
  void Finish(absl::Status status, Metadata trailing_metadata);

  const std::shared_ptr<ChannelImpl> channel_;
  CallParameters parameters_;  // constant once Begin has checked them, but for what Wait does
  SingleReply reply_;          // unless the server streams
  std::unique_ptr<ClientInterception> interception_;
  std::unique_ptr<OutgoingMessage> waiting_request_;
  Metadata waiting_metadata_;  // a copy: the context may go while the call waits or is about to be started

  std::shared_ptr<AsynchronousCall> self_;  // from the start on a connection to the status
  std::shared_ptr<ConnectionLoad> load_;
  Call* call_ = nullptr;  // written by the starting thread; others look only in kStarted

  Mutex mutex_;                                     // held while the context is used; taken before the context's own
  ClientContext* context_ ABSL_GUARDED_BY(mutex_);  // null when there is none, or it is another call's, or is gone
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kStarting;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // what came for the call in kStarting
  internal::DeadlineTimer::Handle timer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_CALL_H_
