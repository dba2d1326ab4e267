#include "stepped_process.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
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

absl::StatusOr<std::unique_ptr<SteppedProcess>> SteppedProcess::Seize(pid_t pid) {
  std::unique_ptr<SteppedProcess> process(new SteppedProcess(pid));
  if (absl::Status status = process->SeizeThreads(); !status.ok()) return status;
  return process;
}

SteppedProcess::~SteppedProcess() {
  if (threads_.empty()) return;
  Kill();
  Collect();
}

absl::Status SteppedProcess::SeizeThreads() {
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

absl::Status SteppedProcess::Resume(pid_t thread, int signal) {
  stopped_.erase(thread);
  if (ptrace(PTRACE_SINGLESTEP, thread, nullptr, signal) == 0 || errno == ESRCH) return absl::OkStatus();
  return PtraceError("PTRACE_SINGLESTEP");
}

absl::Status SteppedProcess::ResumeAll() {
  const std::set<pid_t> stopped = stopped_;
  for (const pid_t thread : stopped) {
    if (absl::Status status = Resume(thread, 0); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void SteppedProcess::UseOneCpu() {
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  sched_setaffinity(0, sizeof here, &here);
  for (const pid_t thread : threads_) sched_setaffinity(thread, sizeof here, &here);
}

absl::StatusOr<int64_t> SteppedProcess::Step(int64_t count, absl::FunctionRef<bool()> over) {
  if (count <= 0) return 0;
  cpu_set_t all;
  sched_getaffinity(0, sizeof all, &all);
  UseOneCpu();
  const absl::Cleanup restore = [&] { sched_setaffinity(0, sizeof all, &all); };
  const Ticks ticks;
  if (absl::Status status = ResumeAll(); !status.ok()) return status;
  int64_t stepped = 0;
  int64_t stepped_at_tick = -1;
  SteadyTime deadline = SteadyTime::Now() + kHangGuard;
  for (;;) {
    int status = 0;
    const pid_t thread = waitpid(-1, &status, __WALL | __WNOTHREAD);
    if (thread < 0) {
      if (errno != EINTR) return absl::ErrnoToStatus(errno, "waitpid");
      if (stepped != stepped_at_tick) {
        stepped_at_tick = stepped;
        deadline = SteadyTime::Now() + kHangGuard;
      } else if (over()) {
        return stepped;
      } else if (deadline.HasPassed()) {
        return absl::DeadlineExceededError(
            absl::StrCat("the process does nothing any more, after ", stepped, " of its instructions"));
      }
      continue;
    }
    if (!WIFSTOPPED(status)) {
      if (threads_.erase(thread) == 0) return absl::InternalError("a process ended that was not to be stepped");
      if (thread == pid_) return absl::InternalError("the process has ended by itself");
      continue;
    }
    threads_.insert(thread);  // it may be new
    stopped_.insert(thread);
    const bool event = (status >> 16) != 0;
    const int signal = WSTOPSIG(status);
    if (!event && signal == SIGTRAP && ++stepped >= count) return stepped;
    absl::Status resumed = Resume(thread, event || signal == SIGTRAP ? 0 : signal);
    if (!resumed.ok()) return resumed;
  }
}

void SteppedProcess::Kill() {
  if (!killed_ && !threads_.empty()) kill(pid_, SIGKILL);
  killed_ = true;
}

void SteppedProcess::Collect() {
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
