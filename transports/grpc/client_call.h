#ifndef SHMRPC_TRANSPORTS_GRPC_CLIENT_CALL_H_
#define SHMRPC_TRANSPORTS_GRPC_CLIENT_CALL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "transports/grpc/call_base.h"

namespace shmrpc::grpc_transport {

class ClientCall;

// What the calls of one connection share. Outlives the connection for as long as it has calls. Thread-safe.
struct ClientChannel {
  ClientChannel(std::shared_ptr<grpc::Channel> new_channel, std::shared_ptr<CompletionThreads> new_threads,
                absl::Duration new_keepalive_timeout)
      : channel(std::move(new_channel)),
        stub(channel),
        threads(std::move(new_threads)),
        keepalive_timeout(new_keepalive_timeout) {}

  const std::shared_ptr<grpc::Channel> channel;
  grpc::GenericStub stub;
  const std::shared_ptr<CompletionThreads> threads;
  const absl::Duration keepalive_timeout;

  Mutex mutex;
  bool closed ABSL_GUARDED_BY(mutex) = false;
  absl::flat_hash_set<ClientCall*> calls ABSL_GUARDED_BY(mutex);  // whose status has not come
  std::string last_failure ABSL_GUARDED_BY(mutex);                // the message of the latest UNAVAILABLE
};

// One call of a client. See Call.
class ClientCall : public CallBase, public Call {
 public:
  // Starts one and sets *call before its first event.
  static void Start(const std::shared_ptr<ClientChannel>& channel, const CallSpec& spec, const OutgoingMessage* request,
                    CallEvents* events, std::atomic<Call*>* call);

  // Call
  void Cancel(absl::Status status) final { CancelAnd(std::move(status), Where::kElsewhere); }
  bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) final { return Wait(done, deadline); }
  void Release() final { Unref(); }

  // Cancel for a connection that is going: all events have been told when it returns, or will soon be by another
  // thread.
  void CancelHere(absl::Status status) { CancelAnd(std::move(status), Where::kHere); }

 protected:
  ClientCall(std::shared_ptr<ClientChannel> channel, const CallSpec& spec, CallEvents* events);
  ~ClientCall() override = default;

  // Sends it all off. Nobody else knows the call yet.
  virtual void Begin(const CallSpec& spec, const OutgoingMessage* request) = 0;
  // What only streams have. Messages that have come but cannot be told yet.
  virtual bool HoldsBack() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return false; }
  virtual bool IsMessageDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !inbox_.empty(); }
  virtual void TookMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}
  // True: messages are lost that were wanted so far.
  virtual bool DropAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return false; }
  virtual void OnCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  // The gRPC library has told the status.
  void Ended() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { ended_ = true; }
  bool ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_; }
  bool IsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return status_told_ || cancelled_.has_value(); }

  const std::shared_ptr<ClientChannel> channel_;
  grpc::ClientContext context_;
  grpc::Status grpc_status_;  // once ended

  // Noted by derived classes.
  bool headers_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool sendable_due_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<ReceivedBuffer> inbox_ ABSL_GUARDED_BY(mutex_);

 private:
  // CallBase
  bool IsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) final;
  void TellNext() ABSL_LOCKS_EXCLUDED(mutex_) final;
  bool RunsUserCode() const final { return runs_user_code_; }

  bool IsEndDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return cancelled_.has_value() || (ended_ && !headers_due_ && inbox_.empty() && !HoldsBack());
  }
  void TellStatus(absl::Status status, Metadata trailing_metadata) ABSL_LOCKS_EXCLUDED(mutex_);
  void CancelAnd(absl::Status status, Where where) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status StatusOfServer();

  CallEvents* const events_;
  const bool runs_user_code_;
  const size_t max_receive_message_bytes_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> cancelled_ ABSL_GUARDED_BY(mutex_);  // by this side, with this status
  bool not_processed_ = false;                                     // says the server; once the status is told
  bool status_told_ ABSL_GUARDED_BY(mutex_) = false;               // or is being told
};

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_CLIENT_CALL_H_
