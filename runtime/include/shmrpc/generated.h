#ifndef SHMRPC_GENERATED_H_
#define SHMRPC_GENERATED_H_

// Everything that generated code (NAME.shmrpc.pb.h) includes of the library.

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_reactor.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/method_kind.h"
#include "shmrpc/server_context.h"
#include "shmrpc/service.h"
#include "shmrpc/stub.h"
#include "shmrpc/task.h"
#include "shmrpc/version.h"

#endif  // SHMRPC_GENERATED_H_
