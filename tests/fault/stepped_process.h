#ifndef SHMRPC_TESTS_FAULT_STEPPED_PROCESS_H_
#define SHMRPC_TESTS_FAULT_STEPPED_PROCESS_H_

#include <sched.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <set>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace shmrpc::conformance {

// Another process that goes on one instruction at a time, with ptrace, and is killed at an exact one of them.
//
// All its threads are stepped, those too that it starts meanwhile, and all their instructions count. So it does not
// matter which of them does the work, none is held up by another that stands still, and threads that sleep in a system
// call cost nothing. Which thread's instruction comes next is up to the kernel: the same count is not always the same
// place. A sweep does not need that, as long as there are enough points.
//
// Tracer and process take turns, so they are on one CPU while Step runs, where a turn costs a third.
//
// To be used by the one thread that made it. This thread must have no other children that end meanwhile.
class SteppedProcess {
 public:
  // Stops all threads of `pid`, a descendant of this process. PERMISSION_DENIED or UNIMPLEMENTED when this system does
  // not let it be traced.
  static absl::StatusOr<std::unique_ptr<SteppedProcess>> Seize(pid_t pid);
  ~SteppedProcess();
  SteppedProcess(const SteppedProcess&) = delete;
  SteppedProcess& operator=(const SteppedProcess&) = delete;

  // Lets the process go on for `count` instructions; fewer if none of its threads does anything for a moment and
  // `over`, asked then, says that there will be no more. Returns how many there were. The threads that do not sleep are
  // stopped after that, for Kill, or for further steps. DEADLINE_EXCEEDED: it hangs.
  absl::StatusOr<int64_t> Step(int64_t count, absl::FunctionRef<bool()> over);

  // Sends SIGKILL, and returns at once.
  void Kill();

  // After Kill: waits until it is gone; its parent's wait comes after that.
  void Collect();

 private:
  explicit SteppedProcess(pid_t pid) : pid_(pid) {}

  absl::Status SeizeThreads();
  absl::Status Resume(pid_t thread, int signal);
  absl::Status ResumeAll();
  void UseOneCpu();

  const pid_t pid_;
  std::set<pid_t> threads_;  // all that are traced
  std::set<pid_t> stopped_;  // of these
  bool killed_ = false;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_STEPPED_PROCESS_H_
