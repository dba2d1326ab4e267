#ifndef SHMRPC_TESTS_BENCH_SERVER_PROCESS_H_
#define SHMRPC_TESTS_BENCH_SERVER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "tests/bench/peer.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {

// A peer's server in a process of its own, which serves until this object goes.
class ServerProcess {
 public:
  // Forks, and waits until the server is ready. The caller's process has one thread only.
  static absl::StatusOr<ServerProcess> Start(const PeerInfo& peer, const PeerSetup& setup);

  // What clients need to find it.
  const std::string& address() const { return address_; }
  pid_t pid() const { return child_.pid(); }

 private:
  ServerProcess(ChildProcess child, std::string address) : child_(std::move(child)), address_(std::move(address)) {}

  ChildProcess child_;
  std::string address_;
};

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_SERVER_PROCESS_H_
