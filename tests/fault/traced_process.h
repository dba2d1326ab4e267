#ifndef SHMRPC_TESTS_FAULT_TRACED_PROCESS_H_
#define SHMRPC_TESTS_FAULT_TRACED_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace shmrpc::conformance {

// Another process that is killed at an exact one of its instructions, with ptrace. First Trace finds out which there
// are: one instruction at a time. Then, with others like it that were made by fork() from the same process, and so have
// everything at the same addresses, RunTo lets them go at full speed to one of those that were found, which is a
// hundred times as fast as to step there, and leaves the timing of their threads as it is.
//
// All threads are traced, those too that the process starts meanwhile, and the instructions of all of them count. So it
// does not matter which does the work, and none is held up by another that stands still. Those that sleep in a system
// call cost nothing. Which thread comes when is up to the kernel: two runs are not always the same, and an instruction
// that one has found may not come in another.
//
// To be used by the one thread that made it. This thread must have no other children that end meanwhile.
class TracedProcess {
 public:
  // Stops all threads of `pid`, a descendant of this process. PERMISSION_DENIED or UNIMPLEMENTED when this system does
  // not let it be traced.
  static absl::StatusOr<std::unique_ptr<TracedProcess>> Seize(pid_t pid);
  ~TracedProcess();
  TracedProcess(const TracedProcess&) = delete;
  TracedProcess& operator=(const TracedProcess&) = delete;

  // Asked when none of the threads has come to an instruction for a moment: whether none will any more.
  using Over = absl::FunctionRef<bool()>;

  // Lets it go on until `over`, and returns the addresses of its instructions in their order. DEADLINE_EXCEEDED: it
  // hangs.
  absl::StatusOr<std::vector<uint64_t>> Trace(Over over);

  // Lets it go on until it is about to run the instruction at `address` for the `times`th time. False: it did not come
  // to that before `over`. DEADLINE_EXCEEDED: it hangs. NOT_FOUND: there can be no breakpoint at that address.
  absl::StatusOr<bool> RunTo(uint64_t address, int times, Over over);

  // Sends SIGKILL, and returns at once.
  void Kill();

  // After Kill: waits until it is gone; its parent's wait comes after that.
  void Collect();

 private:
  explicit TracedProcess(pid_t pid) : pid_(pid) {}

  // What the process reports: the thread that is stopped, and why.
  struct Stop {
    pid_t thread = -1;  // -1: nothing for a tick
    bool trap = false;  // a step or a breakpoint
    int signal = 0;     // one to pass on
  };
  absl::StatusOr<Stop> WaitForStop();

  absl::Status SeizeThreads();
  // Each of the two with PTRACE_SINGLESTEP or PTRACE_CONT.
  absl::Status Resume(pid_t thread, bool step, int signal);
  absl::Status ResumeAll(bool step);
  void UseOneCpu();

  const pid_t pid_;
  std::set<pid_t> threads_;  // all that are traced
  std::set<pid_t> stopped_;  // of these
  bool killed_ = false;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_TRACED_PROCESS_H_
