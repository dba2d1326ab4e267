#ifndef SHMRPC_STUB_H_
#define SHMRPC_STUB_H_

// The calls that generated stubs are made of. Users call the stubs.

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"

namespace shmrpc {

// How the end of an asynchronous call is told, exactly once. It runs on a thread of the library, never inside the call
// that started it, ClientContext::TryCancel, or the destructor of the channel: so a lock that it takes may be held
// there, and it may come after they have returned. It should be short, because other calls' callbacks may wait for it;
// when it takes long they get another thread. It may start calls, wait for calls, and destroy stubs, channels and
// contexts. An exception that leaves it ends the program (std::terminate), because nobody could be told of it.
using StatusCallback = absl::AnyInvocable<void(absl::Status)>;

// Calls `method` ("/package.Service/Method", static storage) and waits for the end. `context` may be null: no
// deadline, no metadata. `reply` is complete when the status is OK and unspecified otherwise.
absl::Status UnaryCall(Channel& channel, const char* method, ClientContext* context,
                       const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply);

// The same without waiting. `context` (may be null) and `reply` live until `done` is called, `request` until this
// returns. It may block while the way to the server is full.
void AsyncUnaryCall(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context,
                    const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply,
                    StatusCallback done);

}  // namespace shmrpc

#endif  // SHMRPC_STUB_H_
