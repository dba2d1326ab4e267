#ifndef SHMRPC_RUNTIME_SRC_SERVER_CALL_H_
#define SHMRPC_RUNTIME_SRC_SERVER_CALL_H_

// What calls of every style have in common on the server: the checks of their messages and metadata, the end, and what
// becomes of exceptions.

#include <cxxabi.h>

#include <utility>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/message_pool.h"
#include "runtime/src/server_calls.h"
#include "shmrpc/message.h"
#include "shmrpc/server_context.h"
#include "shmrpc/service.h"
#include "shmrpc/transport.h"

namespace shmrpc::internal {

// A method, and whose.
struct RegisteredMethod final : ResolvedMethod {
  RegisteredMethod(Service* its_service, const ServiceMethod* its_method, ServerCalls* of, MessagePool* pool,
                   AsynchronousCalls* its_asynchronous)
      : service(its_service), method(its_method), calls(of), messages(pool), asynchronous(its_asynchronous) {}

  Service* service;
  const ServiceMethod* method;
  ServerCalls* calls;     // among which its calls count
  MessagePool* messages;  // the server's
  AsynchronousCalls* asynchronous;
};

// Fills `request` with a message of the client, or says why it is none.
absl::Status ParseRequest(const ServiceMethod& method, const IncomingMessage& bytes,
                          google::protobuf::MessageLite* request);

// Why `reply`, which `message` is the outgoing form of, cannot be sent.
absl::Status CheckReply(const ServerCalls& calls, const ServiceMethod& method,
                        const google::protobuf::MessageLite& reply, const OutgoingProto& message);

// Why a method that takes one request cannot run: the client has half-closed without one, or has sent another.
absl::Status NoRequest(const ServiceMethod& method);
absl::Status SecondRequest(const ServiceMethod& method);

// The status of a call that is over before its handler could run.
absl::Status EndedBeforeHandler(const ServerCall& call);
inline absl::Status DeadlineBeforeHandler() {
  return absl::DeadlineExceededError("the deadline passed before the handler could start; it did not run");
}

// Sends the context's initial metadata unless that has been done. INTERNAL when it breaks a rule. With
// `ahead_of_message` nothing is sent when there is none: the message brings the empty headers itself.
absl::Status SendInitialMetadata(ServerCall* call, const ServiceMethod& method, ServerContext* context,
                                 bool ahead_of_message);

// What the client learns of a call whose handler says `status`, as far as that can be known: its deadline may have
// passed or its client have cancelled it, and the metadata may break a rule.
absl::Status StatusForClient(const ServerCall& call, const ServiceMethod& method, const ServerContext& context,
                             absl::Status status);

// Ends a call with what its handler says: `status`, `reply` (or the last message of a stream; may be null), and the
// context's metadata. When one of them cannot be sent, the call fails with a status that says so. If there are
// interceptors, they have been told of `status` (see ServerInterception::Ended).
void FinishServerCall(ServerCalls* calls, ServerCallPtr call, const ServiceMethod& method, const ServerContext& context,
                      absl::Status status, const google::protobuf::MessageLite* reply);

// Ends a call without a result of its handler. `not_processed`: that has not begun, and the client may try again.
void FailServerCall(ServerCallPtr call, absl::Status status, bool not_processed = false);

// In a catch block: the status that stands for the exception.
absl::Status StatusOfException(const char* path);

// What `handler`, user code that returns a status, says; UNKNOWN when it throws.
template <typename Handler>
absl::Status RunGuarded(const char* path, Handler&& handler) {
  try {
    return std::forward<Handler>(handler)();
  } catch (const abi::__forced_unwind&) {
    throw;  // the thread is being cancelled; that is no exception of the handler's
  } catch (...) {
    return StatusOfException(path);
  }
}

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_SERVER_CALL_H_
