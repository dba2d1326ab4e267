#ifndef SHMRPC_TESTS_CONFORMANCE_SERVER_PROCESS_H_
#define SHMRPC_TESTS_CONFORMANCE_SERVER_PROCESS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/strip.h"
#include "child_process.h"
#include "gtest/gtest.h"

namespace shmrpc::conformance {

// conformance_peer, or another program, as a server. The test fails when it does not start.
class ServerProcess {
 public:
  ServerProcess(const std::string& transport, const std::string& listen)
      : ServerProcess(std::vector<std::string>{"server", transport, listen}) {}

  // With other arguments than a plain server's; it has to print where it listens.
  explicit ServerProcess(std::vector<std::string> arguments)
      : ServerProcess(SHMRPC_CONFORMANCE_PEER, std::move(arguments)) {}

  ServerProcess(const std::string& program, std::vector<std::string> arguments)
      : process_(WithProgram(program, std::move(arguments))) {
    const absl::StatusOr<std::string> line = process_.ReadLine();
    EXPECT_TRUE(line.ok()) << line.status();
    if (line.ok()) address_ = std::string(absl::StripPrefix(*line, "listening on "));
  }

  const std::string& address() const { return address_; }
  ChildProcess& process() { return process_; }

 private:
  static std::vector<std::string> WithProgram(const std::string& program, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), program);
    return arguments;
  }

  ChildProcess process_;
  std::string address_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_SERVER_PROCESS_H_
