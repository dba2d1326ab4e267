#ifndef SHMRPC_TESTS_SOAK_SEAT_H_
#define SHMRPC_TESTS_SOAK_SEAT_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "shmrpc/steady_time.h"
#include "tests/bench/process.h"

namespace shmrpc::soak {

// A place for a server or a client of the soak, where one process follows the other. For the supervisor's thread only.
// The process dies with this object at the latest.
class Seat {
 public:
  explicit Seat(std::string name) : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  // The number of the latest process, from 1; 0: none yet.
  uint32_t incarnation() const { return incarnation_; }
  bool running() const { return process_.has_value(); }
  pid_t pid() const { return process_->pid(); }
  bool stopped() const { return continue_at_.has_value(); }
  bool ending() const { return expected_ != Expected::kNothing; }

  // Forks the next process, which runs `body` and ends with its result.
  absl::Status Start(absl::FunctionRef<int()> body);

  // Sends SIGKILL; TakeEnd then finds it gone.
  void Kill();
  // Sends SIGTERM if `signal`; the process is then expected to end with 0.
  void ExpectEnd(bool signal);

  // SIGSTOP until `continue_at`, when the caller is to call Continue.
  void Stop(SteadyTime continue_at);
  bool IsToContinue() const { return continue_at_.has_value() && continue_at_->HasPassed(); }
  void Continue();

  // Whether the process has ended since the last time it was asked. `*complaint` is set when it ended otherwise than it
  // was expected to.
  bool TakeEnd(std::optional<std::string>* complaint);

 private:
  enum class Expected { kNothing, kKilled, kSuccess };

  const std::string name_;
  std::optional<bench::ChildProcess> process_;
  uint32_t incarnation_ = 0;
  Expected expected_ = Expected::kNothing;
  std::optional<SteadyTime> continue_at_;  // nullopt: not stopped
};

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_SEAT_H_
