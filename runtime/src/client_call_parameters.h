#ifndef SHMRPC_RUNTIME_SRC_CLIENT_CALL_PARAMETERS_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_CALL_PARAMETERS_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/channel_impl.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/method_kind.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"

namespace shmrpc {

// What a call says, taken from its context (may be null) and its channel, and the checks that come before anything is
// sent. A copy, but for the metadata: that is the context's. (A further attempt has a copy of that, too.)
struct CallParameters {
  CallParameters(const char* method_path, MethodKind method_kind, const ClientContext* context,
                 const ChannelOptions& options);

  CallSpec ToSpec() const {
    CallSpec spec;
    spec.method = method;
    spec.deadline = deadline;
    spec.metadata = metadata;
    spec.max_receive_message_bytes = std::min(max_receive_message_bytes, kMaxMaxMessageBytes);
    spec.now = waited ? SteadyTime::InfinitePast() : start;
    spec.client_streams = ClientStreams(kind);
    spec.server_streams = ServerStreams(kind);
    return spec;
  }

  // Why a call cannot be made with these parameters on this channel, or OK. Sets `start`.
  absl::Status Check(const ChannelImpl& channel);

  // Why `request` cannot be sent, or OK. The size is checked apart, because to compute it takes time.
  absl::Status CheckRequest(const google::protobuf::MessageLite& request) const;
  absl::Status CheckRequestSize(size_t size) const;

  // The status of a call that its deadline ended.
  absl::Status TooLate() const;

  bool has_deadline() const { return deadline != SteadyTime::InfiniteFuture(); }

  const char* method;
  std::shared_ptr<const std::string> own_method;  // of a generic call, and then `method` is in there; otherwise null
  MethodKind kind;
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  SteadyTime start = SteadyTime::InfinitePast();  // set only when there is a deadline: to read the clock takes time
  bool waited = false;  // since `start`: for a connection, between attempts, or for an interceptor
  bool wait_for_ready = false;
  const Metadata* metadata = nullptr;
  size_t max_send_message_bytes;
  size_t max_receive_message_bytes;
  const RetryPolicy* retry_policy;                      // null when there is none
  std::shared_ptr<const RetryPolicy> own_retry_policy;  // the context's, if retry_policy is that
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_CALL_PARAMETERS_H_
