#ifndef SHMRPC_SHMRPC_H_
#define SHMRPC_SHMRPC_H_

// The whole public interface for programs that use the library.

#include "shmrpc/access.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_interceptor.h"
#include "shmrpc/client_reactor.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/health.h"
#include "shmrpc/log.h"
#include "shmrpc/metadata.h"
#include "shmrpc/options.h"
#include "shmrpc/peer.h"
#include "shmrpc/retry.h"
#include "shmrpc/server.h"
#include "shmrpc/server_context.h"
#include "shmrpc/server_interceptor.h"
#include "shmrpc/service.h"
#include "shmrpc/signals.h"
#include "shmrpc/task.h"
#include "shmrpc/version.h"
#include "shmrpc/wait.h"
#include "shmrpc/when.h"

#endif  // SHMRPC_SHMRPC_H_
