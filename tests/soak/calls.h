#ifndef SHMRPC_TESTS_SOAK_CALLS_H_
#define SHMRPC_TESTS_SOAK_CALLS_H_

// Makes calls, in each of the three styles: whatever their plans say, but for cancelling them.

#include "tests/conformance/sync.h"
#include "tests/soak/client_call.h"

namespace shmrpc::soak {

// Returns when the call has ended. `abandon`: destroys a stream instead of finishing it.
void CallBlocking(ClientCall* call, bool abandon);

// Return at once; `ended` is incremented when the call has ended. Both live until then.
void StartCallback(ClientCall* call, conformance::Counter* ended);
void StartCoroutine(ClientCall* call, conformance::Counter* ended);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_CALLS_H_
