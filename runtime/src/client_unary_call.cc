// Unary calls, synchronous and asynchronous.

#include <memory>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "runtime/src/callback_threads.h"
#include "runtime/src/channel_impl.h"
#include "runtime/src/client_asynchronous_call.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/client_interception.h"
#include "runtime/src/client_reply.h"
#include "runtime/src/client_synchronous_call.h"
#include "runtime/src/recycling_allocator.h"
#include "shmrpc/message.h"
#include "shmrpc/stub.h"

namespace shmrpc {
namespace {

// Lives on its caller's stack.
class SynchronousUnaryCall final : public SynchronousCall {
 public:
  SynchronousUnaryCall(ChannelImpl& channel, const char* method, ClientContext* context,
                       google::protobuf::MessageLite* reply)
      : SynchronousCall(channel, method, MethodKind::kUnary, context), reply_(method, reply) {}

  absl::Status Run(const google::protobuf::MessageLite& request) {
    absl::Status status = Attach();
    if (!status.ok()) return status;
    status = RunAttached(request);
    Detach();
    return status;
  }

  // The same for a channel with interceptors; the call has a context.
  absl::Status RunIntercepted(const google::protobuf::MessageLite& request) {
    absl::Status status = Attach();
    if (!status.ok()) return status;
    ClientInterception interception(parameters_, reply_.message());
    const bool passed = interception.Begin(interceptors(), &status);
    if (!passed) {
      interception.FillInReply(&reply_, &status);
      status = reply_.Conclude(std::move(status));
    } else {
      parameters_.metadata = interception.metadata_or_null();
      status = RunAttached(interception.Sending(request));
      const Metadata& initial_metadata = context()->GetServerInitialMetadata();
      if (status.ok() || !initial_metadata.empty()) interception.ReceivedInitialMetadata(initial_metadata);
    }
    status = interception.Ended(std::move(status), context()->GetServerTrailingMetadata());
    Detach();
    return status;
  }

  // CallEvents
  void OnMessage(const IncomingMessage& message) override { reply_.OnMessage(message); }
  const google::protobuf::Descriptor* message_type() const override { return reply_.type(); }
  void OnStatus(CallEnd end) override {
    end.status = reply_.Conclude(std::move(end.status));
    End(std::move(end));
  }

 private:
  absl::Status RunAttached(const google::protobuf::MessageLite& request) {
    absl::Status status = CheckParameters();
    if (!status.ok()) return status;
    status = parameters_.CheckRequest(request);
    if (!status.ok()) return status;
    const OutgoingProto message(request);
    status = parameters_.CheckRequestSize(message.size());
    if (!status.ok()) return status;
    do {
      status = Connect();
      if (!status.ok()) continue;
      Start(&message);
      Wait([this] { return IsOver(); });
      status = std::move(status_);
    } while (Retry(&status));
    return status;
  }

  SingleReply reply_;
};

// Belongs to those who may still want to end it, as every asynchronous call.
class AsynchronousUnaryCall final : public AsynchronousCall {
 public:
  AsynchronousUnaryCall(std::shared_ptr<ChannelImpl> channel, const char* method, ClientContext* context,
                        google::protobuf::MessageLite* reply, StatusCallback done)
      : AsynchronousCall(std::move(channel), method, MethodKind::kUnary, context, reply), done_(std::move(done)) {}

 private:
  void OnEnd(absl::Status status) override {
    if (!internal::NoUserCodeHere::IsSo()) {
      StatusCallback done = std::move(done_);
      return Tell(done, std::move(status));
    }
    internal::CallbackThreads::Get().Run(
        [done = std::move(done_), status = std::move(status)]() mutable { Tell(done, std::move(status)); });
  }

  // An exception ends the program: nobody could be told of it.
  static void Tell(StatusCallback& done, absl::Status status) noexcept {
    done(std::move(status));
    done = nullptr;  // what it has captured may run anything, too
  }

  StatusCallback done_;
};

}  // namespace

absl::Status UnaryCall(Channel& channel, const char* method, ClientContext* context,
                       const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply) {
  ChannelImpl& impl = ChannelAccess::impl(channel);
  if (ABSL_PREDICT_FALSE(!impl.options().interceptors.empty())) {
    ClientContext own_context;  // interceptors see the metadata that comes back
    if (context == nullptr) context = &own_context;
    return SynchronousUnaryCall(impl, method, context, reply).RunIntercepted(request);
  }
  return SynchronousUnaryCall(impl, method, context, reply).Run(request);
}

void AsyncUnaryCall(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context,
                    const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply,
                    StatusCallback done) {
  std::allocate_shared<AsynchronousUnaryCall>(internal::RecyclingAllocator<AsynchronousUnaryCall>(),
                                              ChannelAccess::shared_impl(*channel), method, context, reply,
                                              std::move(done))
      ->Begin(&request);
}

}  // namespace shmrpc
