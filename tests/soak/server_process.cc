#include "tests/soak/server_process.h"

#include <signal.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shmrpc/shmrpc.h"
#include "tests/soak/memory.h"
#include "tests/soak/services.h"

namespace shmrpc::soak {

int RunServer(const ServerSettings& settings, Board* board) {
  // Before there are other threads, so that they have it blocked, too.
  sigset_t terminate;
  sigemptyset(&terminate);
  sigaddset(&terminate, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &terminate, nullptr);

  ServerState* const state = &board->servers[settings.server];
  const ServerEnvironment environment = {
      .board = board, .server = settings.server, .incarnation = settings.incarnation, .kills = settings.kills};
  const auto make_service = settings.incarnation % 3 == 1   ? MakeBlockingService
                            : settings.incarnation % 3 == 2 ? MakeCoroutineService
                                                            : MakeCallbackService;
  {
    const std::unique_ptr<Service> service = make_service(environment);
    ServerBuilder builder(settings.transport->transports());
    builder.Listen(settings.address)
        .Register(service.get())
        .SetMaxReceiveMessageBytes(kMessageLimitBytes)
        .SetMaxSendMessageBytes(kMessageLimitBytes)
        .SetKeepaliveTimeout(settings.keepalive);
    state->heap.base_bytes.store(HeapBytesInUse());
    const absl::StatusOr<std::unique_ptr<Server>> server = builder.Start();
    if (!server.ok()) {
      board->Fail(absl::StrCat("server ", settings.server, " does not start: ", server.status().ToString()));
      return EXIT_FAILURE;
    }
    state->ready_nanos.store(NowNanos());
    state->ready.store(settings.incarnation);

    constexpr timespec kLook = {.tv_sec = 0, .tv_nsec = 20'000'000};
    while (sigtimedwait(&terminate, nullptr, &kLook) < 0) {
      if (board->phase() == Phase::kTraffic) continue;
      TrimHeap();
      state->heap.now_bytes.store(HeapBytesInUse());
    }
    (*server)->Shutdown(absl::Now() + kDrainTime);
  }
  if (HasLeaks()) {
    board->Fail(absl::StrCat("server ", settings.server, " has leaked memory, as its standard error output tells"));
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

}  // namespace shmrpc::soak
