#ifndef SHMRPC_TESTS_BENCH_CLIENT_PROCESS_H_
#define SHMRPC_TESTS_BENCH_CLIENT_PROCESS_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/bench/cases.h"
#include "tests/bench/clock.h"
#include "tests/bench/peer.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {

// What a client process is to be. Of a peer that has both sides in one process it is the server, too.
struct ClientPlan {
  const PeerInfo* peer = nullptr;
  const CaseInfo* load = nullptr;
  LoadShape shape;
  PeerSetup setup;
  std::string address;  // of the server; of none if that is in the client process
};

// A client in a process of its own, which does as it is told until this object goes. Each order is answered once; the
// next one comes after the answer. Orders to different clients may overlap, which is why giving them does not wait.
// Used by one thread, the only one of its process.
class ClientProcess {
 public:
  // Forks. The first answer, of AwaitDone, says whether the client has connected.
  static absl::StatusOr<ClientProcess> Start(const ClientPlan& plan);

  pid_t pid() const { return child_.pid(); }

  // Run the case from `begin` on, or at once if that has passed. Answered by AwaitResult.
  absl::Status OrderRun(absl::Duration duration, Clock::time_point begin = Clock::time_point());
  absl::StatusOr<CaseResult> AwaitResult();

  // As in ClientSide. Answered by AwaitDone.
  absl::Status OrderConnectMore(int connections);
  absl::Status OrderCallOnEach();
  absl::Status AwaitDone();

 private:
  ClientProcess(ChildProcess child, Descriptor socket) : child_(std::move(child)), socket_(std::move(socket)) {}

  absl::StatusOr<std::string> AwaitAnswer();

  ChildProcess child_;
  Descriptor socket_;  // orders out, answers in
};

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_CLIENT_PROCESS_H_
