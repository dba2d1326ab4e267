#ifndef SHMRPC_RUNTIME_SRC_CLIENT_INTERCEPTION_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_INTERCEPTION_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/answered_call.h"
#include "runtime/src/client_call_parameters.h"
#include "runtime/src/client_reply.h"
#include "shmrpc/client_interceptor.h"
#include "shmrpc/metadata.h"

namespace shmrpc {

// What the interceptors of a channel want of one call. Exists only for channels that have some.
class ClientInterception final : public InterceptedClientCall {
 public:
  // `reply` is null if the replies stream.
  ClientInterception(const CallParameters& parameters, google::protobuf::MessageLite* reply)
      : InterceptedClientCall(parameters.method, parameters.kind, parameters.deadline, parameters.metadata, reply) {}

  // Runs the interceptors. False: one of them has ended the call, with `*status`, or has answered it: then FillInReply
  // or TakeAnswer has what with. Otherwise the call is to be made, with metadata().
  bool Begin(const std::vector<ClientInterceptor>& interceptors, absl::Status* status);

  // Null when the metadata is empty, as in CallSpec.
  const Metadata* metadata_or_null() const { return metadata_.empty() ? nullptr : &metadata_; }

  // Whether one of them has answered the call.
  bool answered() const { return answered_ && reply_error_.ok(); }
  // For a unary call: hands the answer to `reply`, if there is one and `*status` is OK. Conclude has to follow.
  void FillInReply(SingleReply* reply, absl::Status* status);
  // For a streaming one, that ends with `status`.
  internal::CallAnswer TakeAnswer(absl::Status status) { return {std::move(replies_), std::move(status)}; }

  // What happens to the call. Sending returns what is to be sent: `message`, or a message that lives until the next
  // Sending. The messages that a call sends come one after the other.
  const google::protobuf::MessageLite& Sending(const google::protobuf::MessageLite& message);
  void Received(google::protobuf::MessageLite* message);
  void ReceivedInitialMetadata(const Metadata& metadata);
  // The status to give to the caller. A reply that does not stream counts as received now.
  absl::Status Ended(absl::Status status, const Metadata& trailing_metadata);

 private:
  std::unique_ptr<google::protobuf::MessageLite> sent_;  // the copy that functions change
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_INTERCEPTION_H_
