#ifndef SHMRPC_RUNTIME_SRC_THREAD_H_
#define SHMRPC_RUNTIME_SRC_THREAD_H_

#include <pthread.h>
#include <signal.h>

#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace shmrpc::internal {

// How much of the address space a thread takes.
enum class Stack {
  kForUsersCode,  // what the program's own threads have by default, but 256 KiB at least
  kForLibrary,    // 256 KiB: nothing runs there that the library does not know
};

// A running thread of the library's, as std::thread: to be joined or detached before it is destroyed.
class Thread {
 public:
  Thread() = default;
  Thread(Thread&& other) noexcept : joinable_(std::exchange(other.joinable_, false)), thread_(other.thread_) {}
  Thread& operator=(Thread&& other) noexcept;
  ~Thread();

  bool joinable() const { return joinable_; }
  void join();
  void detach();
  // Whether it is the calling thread.
  bool is_current() const { return joinable_ && pthread_equal(thread_, pthread_self()) != 0; }

 private:
  friend absl::StatusOr<Thread> StartThread(const char*, absl::AnyInvocable<void()>, Stack);

  bool joinable_ = false;
  pthread_t thread_{};
};

// Starts a thread of the library: it runs `body` and shows as `name` (at most 15 characters) in debuggers and `top -H`.
// All threads of the library are started here, because nothing of them is to depend on which of the program's threads
// happened to be the first to need them:
//
// - Signals. All are blocked but SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS and SIGABRT, which the thread itself
//   has caused and which the program's handler is to see, and SIGPROF, which is as the starting thread has it. So every
//   other signal is the program's threads' to handle, or to wait for, even if they block it only later.
// - CPUs, scheduling policy and nice value are those that the process was started with, as far as the kernel allows
//   (an unprivileged process cannot lower a nice value). A thread that is started by another one of the library's
//   inherits what that one has: the operator may have changed it for the whole process.
// - A child that is forked from the library's thread begins with the signal mask of the program's thread that was at
//   the beginning of it all.
//
// RESOURCE_EXHAUSTED when the system has no thread left to give.
absl::StatusOr<Thread> StartThread(const char* name, absl::AnyInvocable<void()> body,
                                   Stack stack = Stack::kForUsersCode);

// While it exists, threads that the calling thread starts in other ways have their signals blocked as StartThread's:
// around calls of libraries that start threads of their own.
class BlockSignalsOfNewThreads {
 public:
  BlockSignalsOfNewThreads();
  ~BlockSignalsOfNewThreads();
  BlockSignalsOfNewThreads(const BlockSignalsOfNewThreads&) = delete;
  BlockSignalsOfNewThreads& operator=(const BlockSignalsOfNewThreads&) = delete;

  // The calling thread's, before and after.
  const sigset_t& previous() const { return previous_; }

 private:
  sigset_t previous_;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_THREAD_H_
