#include "traced_process.h"

#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shmrpc/steady_time.h"
#include "sync.h"

namespace shmrpc::conformance {
namespace {

absl::Status PtraceError(absl::string_view request) {
  const std::string message = absl::StrCat("ptrace(", request, ")");
  // EIO: an emulated kernel that knows the call, but not this request.
  if (errno == ENOSYS || errno == EIO) return absl::UnimplementedError(absl::StrCat(message, " is not supported here"));
  return absl::ErrnoToStatus(errno, message);
}

#if defined(__x86_64__)
constexpr bool kSupported = true;
uint64_t InstructionPointer(pid_t thread) {
  return static_cast<uint64_t>(ptrace(PTRACE_PEEKUSER, thread, offsetof(user_regs_struct, rip), nullptr));
}
void SetInstructionPointer(pid_t thread, uint64_t address) {
  ptrace(PTRACE_POKEUSER, thread, offsetof(user_regs_struct, rip), address);
}
#else
constexpr bool kSupported = false;
uint64_t InstructionPointer(pid_t) { return 0; }
void SetInstructionPointer(pid_t, uint64_t) {}
#endif

// While it exists, the calling thread's waits are interrupted with EINTR every two milliseconds.
class Ticks {
 public:
  Ticks() {
    struct sigaction action = {};
    action.sa_handler = +[](int) {};  // without SA_RESTART
    sigaction(kSignal, &action, &previous_);
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kSignal;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    made_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    itimerspec period = {};
    period.it_value.tv_nsec = period.it_interval.tv_nsec = 2'000'000;
    if (made_) timer_settime(timer_, 0, &period, nullptr);
  }
  ~Ticks() {
    if (made_) timer_delete(timer_);
    // One that is pending is delivered before this returns from the system call.
    sigaction(kSignal, &previous_, nullptr);
  }
  Ticks(const Ticks&) = delete;
  Ticks& operator=(const Ticks&) = delete;

 private:
  static constexpr int kSignal = SIGURG;  // whose default is to be ignored
  struct sigaction previous_ = {};
  timer_t timer_ = {};
  bool made_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TracedProcess>> TracedProcess::Seize(pid_t pid) {
  if (!kSupported) return absl::UnimplementedError("breakpoints are known for x86-64 only");
  std::unique_ptr<TracedProcess> process(new TracedProcess(pid));
  if (absl::Status status = process->SeizeThreads(); !status.ok()) return status;
  return process;
}

TracedProcess::~TracedProcess() {
  if (threads_.empty()) return;
  Kill();
  Collect();
}

absl::Status TracedProcess::SeizeThreads() {
  // Until no thread is found that was not there before: those that are still running may start others, but these are
  // then traced from the beginning.
  for (bool found_more = true; found_more;) {
    found_more = false;
    std::error_code gone;
    for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid_, "/task"), gone)) {
      const pid_t thread = std::stoi(entry.path().filename());
      if (threads_.count(thread) != 0) continue;
      if (ptrace(PTRACE_SEIZE, thread, nullptr, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) != 0) {
        if (errno == ESRCH) continue;                       // it has just ended
        if (errno == EPERM && !threads_.empty()) continue;  // traced already: started by one that is
        return PtraceError("PTRACE_SEIZE");
      }
      found_more = true;
      threads_.insert(thread);
      if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) return PtraceError("PTRACE_INTERRUPT");
      int status = 0;
      if (waitpid(thread, &status, __WALL) != thread) return absl::ErrnoToStatus(errno, "waitpid");
      if (WIFSTOPPED(status)) stopped_.insert(thread);
    }
    if (gone) return absl::NotFoundError(absl::StrCat("there is no process ", pid_, ": ", gone.message()));
  }
  return absl::OkStatus();
}

absl::Status TracedProcess::Resume(pid_t thread, bool step, int signal) {
  stopped_.erase(thread);
  if (ptrace(step ? PTRACE_SINGLESTEP : PTRACE_CONT, thread, nullptr, signal) == 0 || errno == ESRCH) {
    return absl::OkStatus();
  }
  return PtraceError(step ? "PTRACE_SINGLESTEP" : "PTRACE_CONT");
}

absl::Status TracedProcess::ResumeAll(bool step) {
  const std::set<pid_t> stopped = stopped_;
  for (const pid_t thread : stopped) {
    if (absl::Status status = Resume(thread, step, 0); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<TracedProcess::Stop> TracedProcess::WaitForStop() {
  for (;;) {
    int status = 0;
    const pid_t thread = waitpid(-1, &status, __WALL | __WNOTHREAD);
    if (thread < 0 && errno == EINTR) return Stop();
    if (thread < 0) return absl::ErrnoToStatus(errno, "waitpid");
    if (!WIFSTOPPED(status)) {
      if (threads_.erase(thread) == 0) return absl::InternalError("another child has ended");
      if (thread == pid_) return absl::InternalError("the process has ended by itself");
      continue;
    }
    threads_.insert(thread);  // it may be new
    stopped_.insert(thread);
    if ((status >> 16) != 0) return Stop{thread, false, 0};  // a thread has been started
    if (WSTOPSIG(status) == SIGTRAP) return Stop{thread, true, 0};
    return Stop{thread, false, WSTOPSIG(status)};
  }
}

void TracedProcess::UseOneCpu() {
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  sched_setaffinity(0, sizeof here, &here);
  for (const pid_t thread : threads_) sched_setaffinity(thread, sizeof here, &here);
}

absl::StatusOr<std::vector<uint64_t>> TracedProcess::Trace(Over over) {
  // Tracer and process take turns: on one CPU that costs less.
  cpu_set_t all;
  sched_getaffinity(0, sizeof all, &all);
  UseOneCpu();
  const absl::Cleanup restore = [&] { sched_setaffinity(0, sizeof all, &all); };
  const Ticks ticks;
  if (absl::Status status = ResumeAll(/*step=*/true); !status.ok()) return status;
  std::vector<uint64_t> addresses;
  size_t at_tick = 1;
  SteadyTime deadline;
  for (;;) {
    const absl::StatusOr<Stop> stop = WaitForStop();
    if (!stop.ok()) return stop.status();
    if (stop->thread < 0) {
      if (at_tick != addresses.size()) {
        at_tick = addresses.size();
        deadline = SteadyTime::Now() + kHangGuard;
      } else if (over()) {
        return addresses;
      } else if (deadline.HasPassed()) {
        return absl::DeadlineExceededError(
            absl::StrCat("the process does nothing any more, after ", addresses.size(), " of its instructions"));
      }
      continue;
    }
    if (stop->trap) addresses.push_back(InstructionPointer(stop->thread));
    if (absl::Status status = Resume(stop->thread, /*step=*/true, stop->signal); !status.ok()) return status;
  }
}

absl::StatusOr<bool> TracedProcess::RunTo(uint64_t address, int times, Over over) {
  if (stopped_.empty()) return absl::FailedPreconditionError("no thread is stopped");
  const Ticks ticks;
  errno = 0;
  const long original = ptrace(PTRACE_PEEKTEXT, *stopped_.begin(), address, nullptr);
  if (errno != 0) return absl::NotFoundError("there is nothing at this address");
  constexpr long kBreakpoint = 0xcc;
  const long with_breakpoint = (original & ~0xffL) | kBreakpoint;
  if (ptrace(PTRACE_POKETEXT, *stopped_.begin(), address, with_breakpoint) != 0) {
    return absl::NotFoundError("this address cannot be written");
  }
  if (absl::Status status = ResumeAll(/*step=*/false); !status.ok()) return status;
  const SteadyTime deadline = SteadyTime::Now() + kHangGuard;
  std::set<pid_t> stepping;  // over the instruction that the breakpoint is in the place of
  int seen = 0;
  for (;;) {
    const absl::StatusOr<Stop> stop = WaitForStop();
    if (!stop.ok()) return stop.status();
    if (stop->thread < 0) {
      if (over()) return false;
      if (deadline.HasPassed()) return absl::DeadlineExceededError("the process does nothing any more");
      continue;
    }
    bool step = false;
    if (stop->trap && stepping.erase(stop->thread) != 0) {
      // Not under the feet of another that is about to step as well.
      if (stepping.empty() && ptrace(PTRACE_POKETEXT, stop->thread, address, with_breakpoint) != 0) {
        return PtraceError("PTRACE_POKETEXT");
      }
    } else if (stop->trap && InstructionPointer(stop->thread) == address + 1) {
      if (++seen == times) return true;
      // Another thread that comes by meanwhile is not seen.
      step = true;
      stepping.insert(stop->thread);
      if (ptrace(PTRACE_POKETEXT, stop->thread, address, original) != 0) return PtraceError("PTRACE_POKETEXT");
      SetInstructionPointer(stop->thread, address);
    }
    if (absl::Status status = Resume(stop->thread, step, stop->signal); !status.ok()) return status;
  }
}

void TracedProcess::Kill() {
  if (!killed_ && !threads_.empty()) kill(pid_, SIGKILL);
  killed_ = true;
}

void TracedProcess::Collect() {
  // Every thread that is traced has to be waited for; the first one is reported last.
  while (!threads_.empty()) {
    int status = 0;
    const pid_t thread = waitpid(-1, &status, __WALL | __WNOTHREAD);
    if (thread < 0 && errno == EINTR) continue;
    if (thread < 0) break;
    if (WIFSTOPPED(status)) continue;  // reported before it was killed
    threads_.erase(thread);
    if (thread == pid_) break;
  }
  threads_.clear();
  stopped_.clear();
}

}  // namespace shmrpc::conformance
