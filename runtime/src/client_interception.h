#ifndef SHMRPC_RUNTIME_SRC_CLIENT_INTERCEPTION_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_INTERCEPTION_H_

#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/client_call_parameters.h"
#include "shmrpc/client_interceptor.h"
#include "shmrpc/metadata.h"

namespace shmrpc {

// What the interceptors of a channel want of one call. Exists only for channels that have some.
class ClientInterception final : public InterceptedClientCall {
 public:
  // `reply` is null if the replies stream.
  ClientInterception(const CallParameters& parameters, google::protobuf::MessageLite* reply)
      : InterceptedClientCall(parameters.method, parameters.kind, parameters.deadline, parameters.metadata, reply) {}

  // Runs the interceptors. False: one of them has answered the call, with `*status`, and if that is OK with the reply.
  // Otherwise the call is to be made, with metadata().
  bool Begin(const std::vector<ClientInterceptor>& interceptors, absl::Status* status);

  // Null when the metadata is empty, as in CallSpec.
  const Metadata* metadata_or_null() const { return metadata_.empty() ? nullptr : &metadata_; }

  // Whether one that has answered the call gave the reply.
  bool replied() const { return replied_ && reply_error_.ok(); }

  // What happens to the call.
  void Sending(const google::protobuf::MessageLite& message);
  void Received(const google::protobuf::MessageLite& message);
  void ReceivedInitialMetadata(const Metadata& metadata);
  // The status to give to the caller. A reply that does not stream counts as received now.
  absl::Status Ended(absl::Status status, const Metadata& trailing_metadata);
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_INTERCEPTION_H_
