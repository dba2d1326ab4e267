#ifndef SHMRPC_TESTS_CONFORMANCE_CHILD_PROCESS_H_
#define SHMRPC_TESTS_CONFORMANCE_CHILD_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "sync.h"

namespace shmrpc::conformance {

// A program that runs beside the test, with pipes to its standard input and output. It is killed with this object at
// the latest. It inherits no other descriptor of the test. Not thread-safe.
class ChildProcess {
 public:
  // Starts `arguments[0]`, a path. The test fails when that does not work, and then no line can be read.
  // `environment` is added to the test's own: "NAME=value".
  explicit ChildProcess(const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {});
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }

  // Writes to its standard input; the test fails when that does not work.
  void Write(std::string_view bytes);

  // The next line of its output without the newline; UNAVAILABLE at the end of the output, DEADLINE_EXCEEDED.
  absl::StatusOr<std::string> ReadLine(absl::Duration timeout = kHangGuard);

  // Sends SIGKILL and returns at once.
  void Kill();

  // Closes its standard input, which the programs of these tests take as the request to end, and waits for the end.
  // Returns what waitpid says.
  int Stop();

  // Waits for its end.
  int Wait();

 private:
  pid_t pid_ = -1;  // -1: not started, or waited for
  int input_ = -1;
  int output_ = -1;
  std::string unread_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_CHILD_PROCESS_H_
