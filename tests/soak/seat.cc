#include "tests/soak/seat.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "tests/soak/memory.h"

namespace shmrpc::soak {

absl::Status Seat::Start(absl::FunctionRef<int()> body) {
  ++incarnation_;
  absl::StatusOr<bench::ChildProcess> process = bench::ChildProcess::Fork([&] {
    // The terminal's SIGINT goes to all processes of the group; it is the supervisor's.
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_NAME, name_.c_str());
    MakeAllocatorGiveBack();
    _exit(body());
  });
  if (!process.ok()) return process.status();
  process_.emplace(*std::move(process));
  expected_ = Expected::kNothing;
  continue_at_.reset();
  return absl::OkStatus();
}

void Seat::Kill() {
  expected_ = Expected::kKilled;
  kill(pid(), SIGKILL);
}

void Seat::ExpectEnd(bool signal) {
  expected_ = Expected::kSuccess;
  if (signal) kill(pid(), SIGTERM);
}

void Seat::Stop(SteadyTime continue_at) {
  continue_at_ = continue_at;
  kill(pid(), SIGSTOP);
}

void Seat::Continue() {
  continue_at_.reset();
  kill(pid(), SIGCONT);
}

bool Seat::TakeEnd(std::optional<std::string>* complaint) {
  if (!process_.has_value()) return false;
  const std::optional<int> status = process_->Ended();
  if (!status.has_value()) return false;
  process_.reset();
  continue_at_.reset();
  const bool as_expected = (expected_ == Expected::kKilled && WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL) ||
                           (expected_ == Expected::kSuccess && WIFEXITED(*status) && WEXITSTATUS(*status) == 0);
  if (!as_expected) {
    *complaint = absl::StrCat(name_, ", process ", incarnation_, ", ended ",
                              WIFSIGNALED(*status) ? absl::StrCat("by signal ", WTERMSIG(*status))
                                                   : absl::StrCat("with exit code ", WEXITSTATUS(*status)),
                              expected_ == Expected::kNothing  ? " by itself"
                              : expected_ == Expected::kKilled ? " although it was killed"
                                                               : " when it was told to end");
  }
  return true;
}

}  // namespace shmrpc::soak
