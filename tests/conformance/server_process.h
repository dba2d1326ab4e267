#ifndef SHMRPC_TESTS_CONFORMANCE_SERVER_PROCESS_H_
#define SHMRPC_TESTS_CONFORMANCE_SERVER_PROCESS_H_

#include <string>

#include "absl/strings/strip.h"
#include "child_process.h"
#include "gtest/gtest.h"

namespace shmrpc::conformance {

// conformance_peer as a server. The test fails when it does not start.
class ServerProcess {
 public:
  ServerProcess(const std::string& transport, const std::string& listen)
      : process_({SHMRPC_CONFORMANCE_PEER, "server", transport, listen}) {
    const absl::StatusOr<std::string> line = process_.ReadLine();
    EXPECT_TRUE(line.ok()) << line.status();
    if (line.ok()) address_ = std::string(absl::StripPrefix(*line, "listening on "));
  }

  const std::string& address() const { return address_; }
  ChildProcess& process() { return process_; }

 private:
  ChildProcess process_;
  std::string address_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_SERVER_PROCESS_H_
