#ifndef SHMRPC_RUNTIME_SRC_BLOCKING_SERVER_CALL_H_
#define SHMRPC_RUNTIME_SRC_BLOCKING_SERVER_CALL_H_

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/cancellation_callback.h"
#include "runtime/src/cancellation_scope.h"
#include "runtime/src/deadline_timer.h"
#include "runtime/src/server_calls.h"
#include "runtime/src/server_interception.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server_context.h"
#include "shmrpc/server_stream.h"
#include "shmrpc/service.h"
#include "shmrpc/transport.h"

namespace shmrpc::internal {

// The events of a call whose handler blocks: its stream, the arrival of a request that comes late, its cancellation. A
// unary call that needs none of these does without this object.
//
// Reference-counted, because events may come after the handler has gone: one reference is the handler's, until End; one
// the transport's, from Start to OnDone; and one each of what is to call the cancellation callback.
//
// The events run no user code, so that any thread may deliver them: messages are parsed there, and what comes of a
// cancellation goes to a thread of its own.
class BlockingServerCall final : public ServerStream, public ServerCallControl, private ServerCallEvents {
 public:
  // For a call that needs only its cancellation.
  explicit BlockingServerCall(ServerCall* call) : call_(call) {}

  // For a stream, or a request that is yet to come. `only_message` (may be null): the one message of a client that
  // streams, which came with the call; it lives until End.
  BlockingServerCall(ServerCall* call, const ServerCalls* calls, const ServiceMethod* method,
                     const IncomingMessage* only_message)
      : call_(call), calls_(calls), method_(method), only_message_(only_message) {}

  // Events begin. Before the handler runs, but for a call that needs only its cancellation.
  void Start();

  // Before events begin: whose initial metadata is sent, and who is told of the stream's messages.
  void set_context(ServerContext* context, ServerInterception* interception) {
    context_ = context;
    interception_ = interception;
  }

  // Waits for the one request of a method that takes one.
  absl::Status ReceiveOnlyRequest(google::protobuf::MessageLite* request);

  // The handler has returned: waits for a cancellation callback that is running, and lets go of this object. Then the
  // call is to be finished, with the returned status if that is not OK.
  absl::Status End();

  // ServerStream
  bool Read(google::protobuf::MessageLite* message) override;
  bool Write(const google::protobuf::MessageLite& message) override;
  void SendInitialMetadata() override;

  // ServerCallControl
  void SetCancellationCallback(absl::AnyInvocable<void()> callback) override;
  void ClearCancellationCallback() override { cancellation_.Clear(/*wait=*/true, /*for_good=*/false); }
  std::shared_ptr<CancellationScope> cancellation_scope() override;
  std::stop_token stop_token() override;
  ServerUnaryReactor* DefaultReactor() override { return nullptr; }

 private:
  // A read passes from kAsked to kReading when its message comes, and only then is the message written to; a reader
  // that gives up takes it to kAbandoned instead.
  enum class ReadState { kNone, kAsked, kReading, kAbandoned, kMessage, kUnusable, kHalfClosed };

  ~BlockingServerCall() = default;
  void Unref();

  // Asks for a message, into `message` unless that is null, and waits for the answer.
  ReadState ReadNext(google::protobuf::MessageLite* message);
  bool ReadOnlyMessage(google::protobuf::MessageLite* message);

  // True when there is nothing to be read or written any more.
  bool IsOver() const;
  // The call is to fail with `status`; the first one counts.
  void Fail(absl::Status status);
  absl::Status failure();
  // From now on the end of its time counts as a cancellation, and what is to be told of that is.
  void WatchCancellation();
  void TellOfCancellation();
  void EndScope();

  // ServerCallEvents
  void OnMessage(const IncomingMessage& message) override;
  void OnHalfClose() override;
  void OnSendable() override { sendable_.store(true, std::memory_order_release); }
  void OnCancelled() override;
  void OnDone() override { Unref(); }
  bool RunsUserCode() const override { return false; }

  ServerCall* const call_;
  const ServerCalls* const calls_ = nullptr;
  const ServiceMethod* const method_ = nullptr;
  ServerContext* context_ = nullptr;
  ServerInterception* interception_ = nullptr;
  std::atomic<int> references_{1};
  std::atomic<bool> started_{false};

  // Of the thread that reads, but for read_state_ and what it hands over.
  const IncomingMessage* only_message_ = nullptr;
  bool no_more_messages_ = false;
  google::protobuf::MessageLite* read_target_ = nullptr;
  std::atomic<ReadState> read_state_{ReadState::kNone};

  std::atomic<bool> sendable_{false};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> failed_{false};
  CancellationCallback cancellation_;

  Mutex mutex_;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  DeadlineTimer::Handle timer_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<CancellationScope> scope_ ABSL_GUARDED_BY(mutex_);     // null: nobody has asked for it
  std::optional<std::stop_source> stop_source_ ABSL_GUARDED_BY(mutex_);  // likewise
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_BLOCKING_SERVER_CALL_H_
