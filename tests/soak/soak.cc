// soak: mixed traffic between processes that are killed, restarted and stopped meanwhile, with everything checked.
// docs/reliability.md says what runs and what is checked.

#include <cstdlib>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/bench/process.h"
#include "tests/soak/summary.h"
#include "tests/soak/supervisor.h"

ABSL_FLAG(double, seconds, 10, "how long there is traffic; what comes before and after it takes some seconds more");
ABSL_FLAG(uint64_t, seed, 0, "what the calls and the faults follow from, but for their timing; 0: one by the clock");
ABSL_FLAG(std::string, transport, "auto", "a case of tests/conformance/transport_cases.cc: auto, shm, tcp, unix, ...");
ABSL_FLAG(int, servers, 2, "addresses with a server; the last one is not ended if there are several");
ABSL_FLAG(int, clients, 4, "client processes; the first two are never killed");
ABSL_FLAG(int, threads, 4, "threads of each client that make calls");
// Times are in seconds: with flags of type absl::Duration Abseil's headers cannot be compiled for ThreadSanitizer.
ABSL_FLAG(
    double, kill_server_every, 3,
    "seconds from one server that is killed, or, one time in three, shut down, to the next, on average; inf: never");
ABSL_FLAG(double, kill_client_every, 2, "the same of clients that are killed");
ABSL_FLAG(double, stop_every, 2, "the same of processes that are stopped, mostly for less than a second");
ABSL_FLAG(
    bool, idle, true,
    "at the end, wait until processes have given back also what they keep for 10 to 20 seconds in case that it is "
    "needed again, threads and memory");
ABSL_FLAG(double, keepalive, 10, "how many seconds a peer may be silent");

namespace shmrpc::soak {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

absl::StatusOr<SoakOptions> ParseOptions() {
  SoakOptions options;
  const std::string transport = absl::GetFlag(FLAGS_transport);
  std::vector<std::string> names;
  for (const conformance::TransportCase& transport_case : conformance::TransportCasesAcrossProcesses()) {
    names.push_back(transport_case.name);
    if (transport_case.name == transport) options.transport = conformance::FindTransportCase(transport);
  }
  if (options.transport == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--transport: unknown \"", transport, "\"; choose of: ", absl::StrJoin(names, ", ")));
  }
  const auto check = [](absl::string_view flag, int value, int most) {
    if (value >= 1 && value <= most) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(flag, ": ", value, " is not a number from 1 to ", most));
  };
  absl::Status status = check("--servers", absl::GetFlag(FLAGS_servers), kMaxServers);
  status.Update(check("--clients", absl::GetFlag(FLAGS_clients), kMaxClients));
  status.Update(check("--threads", absl::GetFlag(FLAGS_threads), kMaxThreads));
  for (const double seconds : {absl::GetFlag(FLAGS_kill_server_every), absl::GetFlag(FLAGS_kill_client_every),
                               absl::GetFlag(FLAGS_stop_every)}) {
    if (!(seconds >= 0.01)) {
      status.Update(absl::InvalidArgumentError(absl::StrCat("--..._every: ", seconds, " is less than 0.01 seconds")));
    }
  }
  if (!(absl::GetFlag(FLAGS_keepalive) >= 4)) {
    status.Update(absl::InvalidArgumentError(
        absl::StrCat("--keepalive: ", absl::GetFlag(FLAGS_keepalive),
                     " is less than 4 seconds: a stop of a second, on a busy machine, could end a connection")));
  }
  if (!(absl::GetFlag(FLAGS_seconds) > 0)) {
    status.Update(
        absl::InvalidArgumentError(absl::StrCat("--seconds: ", absl::GetFlag(FLAGS_seconds), " is not above 0")));
  }
  if (!status.ok()) return status;
  options.duration = absl::Seconds(absl::GetFlag(FLAGS_seconds));
  options.seed = absl::GetFlag(FLAGS_seed) != 0 ? absl::GetFlag(FLAGS_seed) : absl::ToUnixMicros(absl::Now());
  options.servers = absl::GetFlag(FLAGS_servers);
  options.clients = absl::GetFlag(FLAGS_clients);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.end_server_every = absl::Seconds(absl::GetFlag(FLAGS_kill_server_every));
  options.kill_client_every = absl::Seconds(absl::GetFlag(FLAGS_kill_client_every));
  options.stop_every = absl::Seconds(absl::GetFlag(FLAGS_stop_every));
  options.keepalive = absl::Seconds(absl::GetFlag(FLAGS_keepalive));
  options.idle = absl::GetFlag(FLAGS_idle);
  return options;
}

int Main() {
  const absl::StatusOr<SoakOptions> options = ParseOptions();
  if (!options.ok()) {
    std::cerr << "soak: " << options.status().message() << "\n";
    return kWrongUsage;
  }
  // The cases say themselves which way to go.
  unsetenv("SHMRPC_TRANSPORT");
  bench::RaiseDescriptorLimit();
  const absl::StatusOr<Board*> board = Board::Create();
  const absl::StatusOr<SoakResult> result =
      board.ok() ? RunSoak(*options, *board) : absl::StatusOr<SoakResult>(board.status());
  if (!result.ok()) {
    std::cerr << "soak: " << result.status().message() << " (seed " << options->seed << ")\n";
    return kFailed;
  }
  std::cout << SummaryText(*options, *result, **board) << SummaryJson(*options, *result, **board) << std::flush;
  const int failures = (*board)->failure_count.load();
  if (failures == 0) return EXIT_SUCCESS;
  for (const std::string& failure : (*board)->Failures()) std::cerr << "soak: FAILED: " << failure << "\n";
  std::cerr << "soak: " << failures << " failures; seed " << options->seed << "\n";
  return kFailed;
}

}  // namespace
}  // namespace shmrpc::soak

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Runs mixed traffic between servers and clients that are killed, restarted and stopped meanwhile; checks every "
      "byte, every status, that no call runs twice, and that processes give back what they hold. Prints a summary, "
      "then the same as one line of JSON. Exit code: 0 when all is well, 1 when not (and then, on the standard error "
      "output, what, which call, and the seed), 2 for wrong usage.\n\n"
      "  soak --seconds=300 --transport=tcp --seed=42");
  absl::ParseCommandLine(argc, argv);
  return shmrpc::soak::Main();
}
