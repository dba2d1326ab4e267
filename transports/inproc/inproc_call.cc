#include "transports/inproc/inproc_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/src/spin_pause.h"
#include "transports/inproc/inproc_server.h"

namespace shmrpc::internal {

InprocMessage::InprocMessage(const OutgoingMessage& message)
    : bytes_(std::make_unique_for_overwrite<uint8_t[]>(message.size())), size_(message.size()) {
  message.SerializeToArray(bytes_.get());
}

void InprocMessage::Read(absl::FunctionRef<void(const IncomingMessage&)> use) const {
  const absl::string_view piece(reinterpret_cast<const char*>(bytes_.get()), size_);
  use(IncomingMessage(absl::MakeConstSpan(&piece, size_ > 0 ? 1 : 0)));
}

InprocCall::InprocCall(std::shared_ptr<InprocServer> server, const void* connection, WaitMode wait_mode,
                       const CallSpec& spec, CallEvents* events)
    : server_(std::move(server)),
      connection_(connection),
      spin_time_(SpinTime(wait_mode)),
      method_(spec.method),
      deadline_(spec.deadline),
      metadata_(spec.metadata != nullptr ? *spec.metadata : Metadata()),
      max_receive_message_bytes_(spec.max_receive_message_bytes),
      events_(events) {}

void InprocCall::Unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

const Peer& InprocCall::peer() const { return server_->peer(); }

bool InprocCall::IsCancelled() const {
  return cancelled_.load(std::memory_order_acquire) ||
         (deadline_ != absl::InfiniteFuture() && absl::Now() >= deadline_);
}

bool InprocCall::WaitUntil(absl::FunctionRef<bool()> done, absl::Time deadline) {
  if (done()) return true;
  if (spin_time_ > absl::ZeroDuration()) {
    const absl::Time end = std::min(deadline, absl::Now() + spin_time_);
    do {
      SpinPause();
      if (done()) return true;
    } while (absl::Now() < end);
  }
  MutexLock lock(&wait_mutex_);
  somebody_waits_ = true;
  while (!done()) {
    if (delivered_.WaitWithDeadline(&wait_mutex_, deadline)) return done();
  }
  return true;
}

void InprocCall::RunHandler() {
  // A call that was cancelled while it waited for a thread has no use for its handler.
  if (cancelled_.load(std::memory_order_acquire)) return EndServerSide();
  Ref();  // the handler reads the request, also after Finish
  request_.Read([this](const IncomingMessage& request) { server_->handler()->OnCall(ServerCallPtr(this), request); });
  Unref();
}

void InprocCall::Abandon() {
  Reply reply;
  reply.status = absl::InternalError(absl::StrCat("the server dropped the call of ", method_, " without an answer"));
  Finish(reply);
}

void InprocCall::Finish(const Reply& reply) {
  if (!ended_.exchange(true, std::memory_order_acq_rel)) {
    TakeReply(reply);
    Ref();
    if (!events_->RunsUserCode() || !InprocCallbackPool().Submit(&delivery_task_)) DeliverReply();
  }
  EndServerSide();
}

void InprocCall::EndServerSide() { server_->OnFinished(this); }

void InprocCall::TakeReply(const Reply& reply) {
  if (reply.message != nullptr && reply.message->size() > max_receive_message_bytes_) {
    reply_status_ = absl::ResourceExhaustedError(absl::StrCat(
        "the reply of ", method_, " has ", reply.message->size(), " bytes, the client's limit is ",
        max_receive_message_bytes_,
        "; ChannelOptions::max_receive_message_bytes or ClientContext::set_max_receive_message_bytes can raise it"));
    return;
  }
  if (reply.initial_metadata != nullptr) {
    reply_headers_ = *reply.initial_metadata;
  } else if (reply.message != nullptr) {
    reply_headers_.emplace();
  }
  if (reply.message != nullptr) reply_message_.emplace(*reply.message);
  reply_status_ = reply.status;
  if (reply.trailing_metadata != nullptr) reply_trailing_metadata_ = *reply.trailing_metadata;
}

void InprocCall::DeliverReply() {
  if (reply_headers_.has_value()) events_->OnHeaders(*std::move(reply_headers_));
  if (reply_message_.has_value()) {
    reply_message_->Read([this](const IncomingMessage& message) { events_->OnMessage(message); });
  }
  DeliverStatus(std::move(reply_status_), std::move(reply_trailing_metadata_));
  Unref();
}

void InprocCall::End(absl::Status status) {
  if (ended_.exchange(true, std::memory_order_acq_rel)) return;
  cancelled_.store(true, std::memory_order_release);
  Ref();  // the client may release the call as soon as it knows
  DeliverStatus(std::move(status), Metadata());
  Unref();
}

void InprocCall::DeliverStatus(absl::Status status, Metadata trailing_metadata) {
  events_->OnStatus(std::move(status), std::move(trailing_metadata));
  MutexLock lock(&wait_mutex_);
  if (somebody_waits_) delivered_.SignalAll();
}

}  // namespace shmrpc::internal
