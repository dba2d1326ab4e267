#ifndef SHMRPC_TESTS_BENCH_PROCESS_H_
#define SHMRPC_TESTS_BENCH_PROCESS_H_

// Processes, CPUs and CPU time.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace shmrpc::bench {

// A child process, killed and reaped when this object goes. It also dies with the process (or the thread) that made
// it, however that ends. The maker must have one thread only, because the child goes on without exec.
class ChildProcess {
 public:
  // Runs `body` in the child, which ends when `body` returns.
  static absl::StatusOr<ChildProcess> Fork(absl::FunctionRef<void()> body);

  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept : pid_(other.pid_) { other.pid_ = -1; }
  ChildProcess& operator=(ChildProcess&&) = delete;

  pid_t pid() const { return pid_; }

  // What waitpid says, once the process has ended by itself; it is reaped then, and has no pid any more. Nullopt while
  // it runs.
  std::optional<int> Ended();

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}

  pid_t pid_;  // -1 when moved away or reaped
};

// A descriptor, closed when this object goes.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { Close(); }

  int get() const { return fd_; }
  void Close();

 private:
  int fd_ = -1;
};

// A fresh private directory, removed with everything in it when this object goes, if not earlier.
class PrivateDirectory {
 public:
  static absl::StatusOr<PrivateDirectory> Create();
  PrivateDirectory(PrivateDirectory&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  PrivateDirectory& operator=(PrivateDirectory&&) = delete;
  ~PrivateDirectory() { Remove(); }

  const std::string& path() const { return path_; }
  void Remove();

 private:
  explicit PrivateDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;  // empty once removed
};

// Runs `body` in a process of its own and returns what it returned there. DEADLINE_EXCEEDED when that takes longer
// than `limit`: the process is killed then. INTERNAL when it died.
absl::StatusOr<std::string> RunInChild(absl::Duration limit, absl::FunctionRef<absl::StatusOr<std::string>()> body);

// The CPUs that this process may use.
std::vector<int> AllowedCpus();

// Binds all threads of a process, and with them those that they will create, to `cpus`.
absl::Status BindProcess(pid_t pid, const std::vector<int>& cpus);

// The CPU time, user and system, that a process of the same user has used so far.
absl::StatusOr<absl::Duration> CpuTime(pid_t pid);

// How much memory a process of the same user has in use: what it does not share, and its part of what it shares with
// other processes (the "proportional set size"). Bytes.
absl::StatusOr<int64_t> MemoryInUse(pid_t pid);

// Lets this process, and those that it forks, have as many descriptors as it may ask for by itself.
void RaiseDescriptorLimit();

// Sends or receives `size` bytes over a stream socket, however many calls that takes. Sending to a peer that is gone
// is an error and no signal.
absl::Status SendAll(int fd, const char* data, size_t size);
absl::Status ReceiveAll(int fd, char* data, size_t size);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_PROCESS_H_
