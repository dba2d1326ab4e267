#ifndef SHMRPC_TESTS_SOAK_VERDICT_H_
#define SHMRPC_TESTS_SOAK_VERDICT_H_

// Whether the status of a call is one that the plan and the faults explain. By what happened, not by how long things
// took: a busy machine changes nothing. A call that met no kill, no deadline and no cancellation has to be OK.
//
// UNAVAILABLE is the hard case. A kill explains it also for calls that begin after it, as long as their channel has not
// noticed, is backing off, or has not found the next server yet. What settles it is the latest success on the channel:
// it tells which server process has answered. If that one is still there when a later call ends, nothing has happened
// to the connection in between, and nothing explains UNAVAILABLE.

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "shmrpc/steady_time.h"
#include "tests/soak/board.h"
#include "tests/soak/plan.h"

namespace shmrpc::soak {

// A channel that cannot be used for that long, while its server is there, does not come back.
inline constexpr absl::Duration kReconnectGuard = absl::Seconds(30);

// The server that has answered on a channel; incarnation 0: none yet.
struct Confirmed {
  uint32_t incarnation = 0;
  uint32_t kills = 0;       // of servers before it
  uint32_t long_stops = 0;  // of this client, before the call
};

// One call as its client sees it. A plain struct.
struct CallFacts {
  Plan plan;
  Confirmed confirmed;      // on its channel, when it began
  uint32_t long_stops = 0;  // of this client, when it began
  SteadyTime begun;
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  SteadyTime channel_created;
  bool cancelled = false;  // somebody has begun to cancel it, or to destroy its channel
  // The transport proves which calls were not processed; otherwise a server's orderly end may cost some.
  bool proves_not_processed = true;
};

// What a handler says that was asked to end with `code`.
absl::Status AskedFor(uint64_t id, absl::StatusCode code);

// Nullopt when `status` is explained, otherwise why it is not. After the end of the call.
std::optional<std::string> Unexplained(const CallFacts& call, const absl::Status& status, const ServerState& server,
                                       const ClientState& client);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_VERDICT_H_
