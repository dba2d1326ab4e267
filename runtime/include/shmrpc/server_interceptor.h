#ifndef SHMRPC_SERVER_INTERCEPTOR_H_
#define SHMRPC_SERVER_INTERCEPTOR_H_

#include <functional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/method_kind.h"
#include "shmrpc/server_context.h"

namespace shmrpc {

// A call whose handler is about to run, as an interceptor of the server sees it. It belongs to the call, and outlives
// the functions that it is given, so that they may use it; to add functions is for the interceptor itself.
//
// The functions run on the threads that the handler runs on, or that bring its messages. OnReceive's may run at the
// same time as the others. They have to be short, must not throw, and must not take locks that a handler holds while it
// writes or finishes.
class InterceptedServerCall {
 public:
  InterceptedServerCall(const InterceptedServerCall&) = delete;
  InterceptedServerCall& operator=(const InterceptedServerCall&) = delete;

  // The method, the client's metadata, who calls; and initial and trailing metadata can be added. What the handler
  // gets.
  ServerContext* context() const { return context_; }
  MethodKind kind() const { return kind_; }

  // `function` is called with each message that the client has sent, before the handler sees it, or that the server
  // sends, before it goes out.
  void OnReceive(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function);
  void OnSend(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function);

  // Exactly once, when the call is finished: `*status` is what the client sees, DEADLINE_EXCEEDED or CANCELLED when it
  // has not waited for what the handler says, and may be replaced; trailing metadata may be added to the context for
  // the last time. An OK in place of an error needs a handler that has filled in the reply.
  void OnEnd(absl::AnyInvocable<void(absl::Status* status)> function);

 protected:
  InterceptedServerCall(ServerContext* context, MethodKind kind) : context_(context), kind_(kind) {}
  ~InterceptedServerCall() = default;

  ServerContext* const context_;
  const MethodKind kind_;
  std::vector<absl::AnyInvocable<void(const google::protobuf::MessageLite&)>> on_receive_;
  std::vector<absl::AnyInvocable<void(const google::protobuf::MessageLite&)>> on_send_;
  std::vector<absl::AnyInvocable<void(absl::Status*)>> on_end_;
};

// What a server does with each call before its handler runs, whatever the kind of the method and the style of the
// handler: one function, which may look at the call, ask to be told what happens to it, and reject it.
//
//   builder.AddInterceptor([](shmrpc::InterceptedServerCall* call) {
//     if (call->context()->client_metadata().Find("authorization") == "Bearer 1234") return absl::OkStatus();
//     return absl::UnauthenticatedError("who are you?");
//   });
//
// OK: the call goes on, to the next interceptor and then to the handler. Any other status: the call ends with that; the
// handler and the later interceptors do not see it, and its request is not even parsed. The first interceptor is the
// nearest to the client: it comes first when something comes in, and last when something goes out.
//
// Called by many threads at the same time; it should not block. When it throws, the call ends with UNKNOWN. Calls of
// methods that the server does not have, and those beyond SetMaxConcurrentCalls, are not seen.
using ServerInterceptor = std::function<absl::Status(InterceptedServerCall* call)>;

}  // namespace shmrpc

#endif  // SHMRPC_SERVER_INTERCEPTOR_H_
