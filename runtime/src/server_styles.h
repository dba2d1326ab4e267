#ifndef SHMRPC_RUNTIME_SRC_SERVER_STYLES_H_
#define SHMRPC_RUNTIME_SRC_SERVER_STYLES_H_

// The three styles that methods are written in: one function for each, which takes over a call that has been counted
// in `calls` and whose method is known. It runs inside CallHandler::OnCall, and returns when a synchronous handler has,
// or an asynchronous one lets go of the thread.

#include "runtime/src/server_call.h"
#include "runtime/src/server_calls.h"
#include "shmrpc/message.h"
#include "shmrpc/transport.h"

namespace shmrpc::internal {

void RunSynchronous(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
                    const IncomingMessage* request);
void RunReactor(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call, const IncomingMessage* request);
void RunCoroutine(ServerCalls* calls, const RegisteredMethod& method, ServerCallPtr call,
                  const IncomingMessage* request);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_SERVER_STYLES_H_
