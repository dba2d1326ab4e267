#include "tests/bench/process.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

namespace shmrpc::bench {

absl::StatusOr<ChildProcess> ChildProcess::Fork(absl::FunctionRef<void()> body) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "cannot fork");
  if (pid > 0) return ChildProcess(pid);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the line above.
  if (getppid() == parent) body();
  _exit(0);
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> ChildProcess::Ended() {
  int status = 0;
  if (pid_ < 0 || waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  return status;
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = other.fd_;
    other.fd_ = -1;
  }
  return *this;
}

void Descriptor::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

absl::StatusOr<PrivateDirectory> PrivateDirectory::Create() {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
  if (error) return absl::NotFoundError(absl::StrCat("no directory for temporary files (TMPDIR): ", error.message()));
  std::string path = parent / "shmrpc_bench.XXXXXX";
  if (mkdtemp(path.data()) == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot make ", path));
  return PrivateDirectory(std::move(path));
}

void PrivateDirectory::Remove() {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  path_.clear();
}

absl::StatusOr<std::string> RunInChild(absl::Duration limit, absl::FunctionRef<absl::StatusOr<std::string>()> body) {
  int ends[2];
  if (pipe(ends) < 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);

  // The answer's first byte tells a result ('=') from an error ('!').
  const auto child = ChildProcess::Fork([&] {
    read_end.Close();
    const absl::StatusOr<std::string> result = body();
    const std::string answer = result.ok() ? absl::StrCat("=", *result) : absl::StrCat("!", result.status().ToString());
    for (size_t written = 0; written < answer.size();) {
      const ssize_t n = write(write_end.get(), answer.data() + written, answer.size() - written);
      if (n < 0) return;
      written += n;
    }
  });
  if (!child.ok()) return child.status();
  write_end.Close();

  std::string answer;
  const absl::Time deadline = absl::Now() + limit;
  while (true) {
    pollfd readable{.fd = read_end.get(), .events = POLLIN, .revents = 0};
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    const int ready = poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(left)));
    if (ready == 0) return absl::DeadlineExceededError(absl::StrCat("not over after ", absl::FormatDuration(limit)));
    char buffer[4096];
    const ssize_t n = ready < 0 ? -1 : read(read_end.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, "cannot read from a child process");
    if (n == 0) break;
    answer.append(buffer, n);
  }
  if (answer.empty()) return absl::InternalError("a child process died; its own output says why");
  if (answer[0] == '!') return absl::UnknownError(answer.substr(1));
  return answer.substr(1);
}

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  return cpus;
}

absl::Status BindProcess(pid_t pid, const std::vector<int>& cpus) {
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (const int cpu : cpus) CPU_SET(cpu, &wanted);
  // Until a pass finds nothing to do: threads not bound yet may create others meanwhile.
  for (bool changed = true; changed;) {
    changed = false;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
      int thread = 0;
      if (!absl::SimpleAtoi(entry.path().filename().native(), &thread)) continue;
      cpu_set_t current;
      if (sched_getaffinity(thread, sizeof(current), &current) == 0 && CPU_EQUAL(&current, &wanted)) continue;
      if (sched_setaffinity(thread, sizeof(wanted), &wanted) < 0) {
        if (errno == ESRCH) continue;  // it has ended
        return absl::ErrnoToStatus(errno, absl::StrCat("cannot bind thread ", thread, " to a CPU"));
      }
      changed = true;
    }
    if (error)
      return absl::NotFoundError(absl::StrCat("cannot list the threads of process ", pid, ": ", error.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> CpuTime(pid_t pid) {
  clockid_t clock;
  const int error = clock_getcpuclockid(pid, &clock);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("no CPU clock of process ", pid));
  timespec used;
  if (clock_gettime(clock, &used) < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read the CPU clock of process ", pid));
  }
  return absl::DurationFromTimespec(used);
}

absl::StatusOr<int64_t> MemoryInUse(pid_t pid) {
  const std::string path = absl::StrCat("/proc/", pid, "/smaps_rollup");
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, "Pss:") || !absl::ConsumeSuffix(&rest, " kB")) continue;
    int64_t kibibytes = 0;
    if (absl::SimpleAtoi(rest, &kibibytes)) return kibibytes * 1024;
  }
  return absl::NotFoundError(absl::StrCat("cannot read how much memory is in use (Pss) from ", path));
}

void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::Status SendAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, "cannot send");
    data += n;
    size -= n;
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = recv(fd, data, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, "cannot receive");
    if (n == 0) return absl::UnavailableError("the other side has closed its socket");
    data += n;
    size -= n;
  }
  return absl::OkStatus();
}

}  // namespace shmrpc::bench
