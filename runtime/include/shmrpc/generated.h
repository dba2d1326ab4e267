#ifndef SHMRPC_GENERATED_H_
#define SHMRPC_GENERATED_H_

// Everything that generated code (NAME.shmrpc.pb.h) includes of the library, and the little that is for it alone.

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_reactor.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/method_kind.h"
#include "shmrpc/server_context.h"
#include "shmrpc/server_coroutine.h"
#include "shmrpc/server_reactor.h"
#include "shmrpc/server_stream.h"
#include "shmrpc/service.h"
#include "shmrpc/stub.h"
#include "shmrpc/task.h"
#include "shmrpc/version.h"

namespace shmrpc::internal {

// How a method answers that the server has not overridden.
absl::Status Unimplemented(const char* path);
Task<absl::Status> CoUnimplemented(const char* path);

// `channel`, or, instead of a null one, a channel whose calls fail with FAILED_PRECONDITION. (A library that was built
// without NDEBUG aborts: to make a stub of no channel is a mistake.)
std::shared_ptr<Channel> NotNull(std::shared_ptr<Channel> channel);

// For ServiceMethod.
template <typename Message>
const google::protobuf::MessageLite& Prototype() {
  return Message::default_instance();
}

}  // namespace shmrpc::internal

#endif  // SHMRPC_GENERATED_H_
