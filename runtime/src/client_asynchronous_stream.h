#ifndef SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_STREAM_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_STREAM_H_

#include <atomic>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/client_asynchronous_call.h"
#include "shmrpc/message.h"
#include "shmrpc/mutex.h"

namespace shmrpc {

// A streaming call that nobody waits for, and the operations on it: what reactors and coroutines have in common.
//
// An operation that is complete when it is started says so by its result; any other is answered by exactly one
// On…Done. It may be started at any time, even before Begin: then it waits for the call to be started. Writing:
//
//   kNone ──Write──▶ kQueued (not started) ──▶ kSending ──kWait──▶ kBlocked ──OnSendable──▶ kSending ──▶ kNone
//
// When the call is attempted again it is as if it had not been started, provided that nothing has been sent after the
// request: reads are asked for again, and writes that wait for the start go on waiting.
//
// In kSending one thread is inside Call::Send, and that thread deals with whatever comes meanwhile: OnSendable, for it
// may come before the kWait that it belongs to has been seen, and the end of the call.
//
// One thread at a time may read and one may write or half-close; all others from any thread. Whoever starts an
// operation holds a reference meanwhile.
class AsynchronousStream : public AsynchronousCall {
 public:
  enum class Outcome {
    kDone,
    kFailed,  // the call is over or will soon be
    kLater,   // will be answered, or has been already
  };

  Outcome Read(google::protobuf::MessageLite* message);
  // The message lives until the operation is complete.
  Outcome Write(const google::protobuf::MessageLite& message, bool last);
  // May be started during a write, and is then done after it. kFailed after another half-close.
  Outcome HalfClose();
  // No more Read comes: messages that have not been read are dropped, so that the status can come.
  void DropMessages();

  // CallEvents
  void OnMessage(const IncomingMessage& message) final;
  const google::protobuf::Descriptor* message_type() const final {
    const google::protobuf::Descriptor* const read = read_type_.load(std::memory_order_relaxed);
    return read != nullptr ? read : AsynchronousCall::message_type();
  }
  void OnSendable() final;

 protected:
  AsynchronousStream(std::shared_ptr<ChannelImpl> channel, const char* method, MethodKind kind, ClientContext* context,
                     google::protobuf::MessageLite* reply)
      : AsynchronousCall(std::move(channel), method, kind, context, reply) {}

  // With no lock held. Those for reading and those for writing may come at the same time, from different threads.
  virtual void OnReadDone(bool ok) = 0;
  virtual void OnWriteDone(bool ok) = 0;
  virtual void OnHalfCloseDone(bool ok) = 0;
  // As AsynchronousCall::OnEnd. The operations that nobody is at work on have been answered before.
  virtual void OnStreamEnd(absl::Status status) = 0;

 private:
  enum class Writing { kNone, kQueued, kSending, kBlocked };

  // AsynchronousCall
  void OnStarted(int attempt, Call* call) final;
  bool PrepareForAttempt(int attempt) final;
  void OnEnd(absl::Status status) final;

  Outcome Send();
  void SendAndAnswer();
  void HalfCloseIfQueued();

  Mutex stream_mutex_;
  int attempt_ ABSL_GUARDED_BY(stream_mutex_) = 0;
  Call* call_ ABSL_GUARDED_BY(stream_mutex_) = nullptr;  // of the current attempt once it is started
  // The server may have had a message, or the half-close, or the application was told that it has not.
  bool client_has_sent_ ABSL_GUARDED_BY(stream_mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(stream_mutex_) = false;
  bool drop_messages_ ABSL_GUARDED_BY(stream_mutex_) = false;  // as soon as the call is started
  google::protobuf::MessageLite* read_target_ ABSL_GUARDED_BY(stream_mutex_) = nullptr;
  std::atomic<const google::protobuf::Descriptor*> read_type_{nullptr};  // of what is read, once that is known

  Writing writing_ ABSL_GUARDED_BY(stream_mutex_) = Writing::kNone;
  bool sendable_ ABSL_GUARDED_BY(stream_mutex_) = false;  // OnSendable came in kSending
  bool half_closed_ ABSL_GUARDED_BY(stream_mutex_) = false;
  bool half_close_queued_ ABSL_GUARDED_BY(stream_mutex_) = false;  // has yet to be done, and answered
  // Constant while writing_ is not kNone.
  const google::protobuf::MessageLite* write_message_ = nullptr;
  bool write_last_ = false;
  bool write_intercepted_ = false;  // the sending thread's
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_ASYNCHRONOUS_STREAM_H_
