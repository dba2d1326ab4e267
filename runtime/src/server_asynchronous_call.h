#ifndef SHMRPC_RUNTIME_SRC_SERVER_ASYNCHRONOUS_CALL_H_
#define SHMRPC_RUNTIME_SRC_SERVER_ASYNCHRONOUS_CALL_H_

#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/cancellation_callback.h"
#include "runtime/src/cancellation_scope.h"
#include "runtime/src/deadline_timer.h"
#include "runtime/src/server_call.h"
#include "runtime/src/server_interception.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server_context.h"
#include "shmrpc/transport.h"

namespace shmrpc::internal {

// A call whose handler does not block a thread: what reactors and coroutines have in common. It owns itself from Begin
// to OnDone, and with itself the messages, the context, and the transport's call.
//
//   kAwaitingRequest ──▶ kAwaitingHalfClose ──▶ kRunning
//
// The first two only if the method takes one request and the client has yet to send it. Finish may come in each.
//
// User code runs in *reactions*, one at a time: the handler itself is the first, OnDone the last. What has happened is
// noted in due_; whoever notes it while no reaction runs becomes the one who runs them until none is due. For an event
// of the transport that is its thread. An operation of the user's that is complete at once cannot do it itself, because
// the user may hold a lock that reactions take: if no thread is running reactions (often it is this very one, further
// up its stack), CallbackThreads do.
//
// Invariants:
//  - Whoever has taken read_target_ away, and nobody else, writes to that message and answers the read.
//  - The transport's Finish comes once it has been asked for, no write is under way, and holds_ is zero: nobody is
//    inside a method of call_, which is gone some time after.
//  - This object goes after OnDone, which comes after all else that is due. Hence nobody touches it after having given
//    mutex_ back, unless he runs reactions, has a hold, or has taken it on himself to finish.
//
// Thread-safe.
class ServerAsynchronousCall : public ServerCallControl, private ServerCallEvents {
 public:
  ServerAsynchronousCall(const ServerAsynchronousCall&) = delete;
  ServerAsynchronousCall& operator=(const ServerAsynchronousCall&) = delete;

  // Starts the call and, if its request is there, runs the handler.
  void Begin(const IncomingMessage* request);

  // ServerCallControl
  void SetCancellationCallback(absl::AnyInvocable<void()> callback) override;
  void ClearCancellationCallback() override { cancellation_.Clear(/*wait=*/true, /*for_good=*/false); }
  std::shared_ptr<CancellationScope> cancellation_scope() override;
  std::stop_token stop_token() override;
  ServerUnaryReactor* DefaultReactor() override { return nullptr; }

 protected:
  ServerAsynchronousCall(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call);
  virtual ~ServerAsynchronousCall() = default;

  // How the user is told that an operation which was complete at once is.
  enum class Answer {
    kReturned,  // by what the function returns
    kReaction,  // by the reaction, as if it had taken longer
  };

  // False: there is nothing to be read any more. True: OnReadDone comes; always with kReaction.
  bool StartRead(google::protobuf::MessageLite* message, Answer answer);
  // kWait: OnWriteDone comes; with kReaction it always does.
  SendResult StartWrite(const google::protobuf::MessageLite* message, Answer answer);
  // With kReaction OnInitialMetadataDone comes.
  void StartSendInitialMetadata(Answer answer);
  // The first one counts. `last_message` (may be null) is sent if the status is OK and the method streams; it lives
  // until OnDone.
  void Finish(absl::Status status, const google::protobuf::MessageLite* last_message);

  const RegisteredMethod& method() const { return method_; }
  ServerContext* context() { return &context_; }
  const google::protobuf::MessageLite* request() const { return request_.get(); }
  google::protobuf::MessageLite* reply() { return reply_.get(); }

 private:
  enum class Phase { kAwaitingRequest, kAwaitingHalfClose, kRunning };
  enum class WriteState { kNone, kSending, kWaiting };

  // Reactions that are due.
  using Due = unsigned;
  static constexpr Due kStart = 1;
  static constexpr Due kInitialMetadataDone = 2;
  static constexpr Due kReadDone = 4;
  static constexpr Due kWriteDone = 8;
  static constexpr Due kCancel = 16;
  static constexpr Due kDone = 32;

  // What a thread has taken on itself, to do once it has given mutex_ back.
  struct Duty {
    bool finish = false;
    bool run_reactions = false;
  };
  enum class Where { kHere, kElsewhere };

  // Reactions. OnStart runs the handler. An exception finishes the call.
  virtual void OnStart() = 0;
  virtual void OnInitialMetadataDone(bool ok) {}
  virtual void OnReadDone(bool ok) = 0;
  virtual void OnWriteDone(bool ok) = 0;
  virtual void OnCancel() {}
  virtual void OnFinished() {}

  // ServerCallEvents
  void OnMessage(const IncomingMessage& message) override;
  void OnHalfClose() override;
  void OnSendable() override;
  void OnCancelled() override;
  void OnDone() override;
  bool RunsUserCode() const override { return true; }

  // Takes in a message of the client.
  absl::Status Parse(const IncomingMessage& message, google::protobuf::MessageLite* target);
  void OnOnlyRequest(const IncomingMessage& message);
  // The transport or the deadline says so; `status` is for a call whose handler has not run.
  void Cancel(absl::Status status, Where where);
  bool ReadOnlyMessage(const std::string& bytes, google::protobuf::MessageLite* target, Answer answer);
  // Sends until the message is sent, must wait, or is of no use. With a hold.
  SendResult Send(const google::protobuf::MessageLite& message);
  void FailForMisuse(std::string_view what);
  void EndSend(SendResult result, absl::Status failure, Answer answer, Where where);
  void Receive();

  bool IsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return cancelled_ || finish_requested_ || !failure_.ok();
  }
  void FailRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailWaitingWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Duty TakeDuty() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void Do(Duty duty, Where where);
  void SendFinish();
  void RunReactions();
  static Due Next(Due due, Due previous);
  void React(Due reaction, bool ok);
  void RequestStop();
  void End();

  ServerCalls* const calls_;
  const RegisteredMethod method_;
  ServerCallPtr owned_call_;  // until Finish
  ServerCall* const call_;
  // Not on an arena: see server_synchronous.cc.
  std::unique_ptr<google::protobuf::MessageLite> request_;
  std::unique_ptr<google::protobuf::MessageLite> reply_;
  ServerContext context_;
  ServerInterception interception_;
  CancellationCallback cancellation_;
  DeadlineTimer::Handle timer_;

  Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kRunning;
  Due due_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reacting_ ABSL_GUARDED_BY(mutex_) = true;  // some thread runs reactions; at first Begin's
  int holds_ ABSL_GUARDED_BY(mutex_) = 0;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // what the call is to fail with, whatever the handler says

  std::optional<std::string> only_message_ ABSL_GUARDED_BY(mutex_);  // that came with the call, if the client streams
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  google::protobuf::MessageLite* read_target_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool read_ok_ ABSL_GUARDED_BY(mutex_) = false;

  WriteState write_state_ ABSL_GUARDED_BY(mutex_) = WriteState::kNone;
  const google::protobuf::MessageLite* write_message_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool sendable_early_ ABSL_GUARDED_BY(mutex_) = false;  // OnSendable was faster than the return from Send
  bool write_ok_ ABSL_GUARDED_BY(mutex_) = false;
  bool initial_metadata_ok_ ABSL_GUARDED_BY(mutex_) = false;

  bool finish_requested_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status finish_status_ ABSL_GUARDED_BY(mutex_);
  const google::protobuf::MessageLite* last_message_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::shared_ptr<CancellationScope> scope_ ABSL_GUARDED_BY(mutex_);     // null: nobody has asked for it
  std::optional<std::stop_source> stop_source_ ABSL_GUARDED_BY(mutex_);  // likewise
  bool finish_taken_ ABSL_GUARDED_BY(mutex_) = false;                    // some thread finishes, or has
  std::thread::id finishing_on_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_SERVER_ASYNCHRONOUS_CALL_H_
