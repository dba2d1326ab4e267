#ifndef SHMRPC_TESTS_FAULT_LIMITS_SERVER_H_
#define SHMRPC_TESTS_FAULT_LIMITS_SERVER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/strip.h"
#include "child_process.h"
#include "gtest/gtest.h"

namespace shmrpc::conformance {

// limits_peer as a server, see there for the options. The test fails when it does not start.
class LimitsServer {
 public:
  explicit LimitsServer(std::string listen, std::vector<std::string> options = {})
      : process_(Arguments(std::move(listen), std::move(options))) {
    const absl::StatusOr<std::string> line = process_.ReadLine();
    EXPECT_TRUE(line.ok()) << line.status();
    if (line.ok()) address_ = std::string(absl::StripPrefix(*line, "listening on "));
  }

  const std::string& address() const { return address_; }
  ChildProcess& process() { return process_; }

 private:
  static std::vector<std::string> Arguments(std::string listen, std::vector<std::string> options) {
    std::vector<std::string> arguments = {SHMRPC_LIMITS_PEER, "server", std::move(listen)};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return arguments;
  }

  ChildProcess process_;
  std::string address_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_LIMITS_SERVER_H_
