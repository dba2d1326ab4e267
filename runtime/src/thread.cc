#include "runtime/src/thread.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <exception>
#include <memory>

#include "absl/strings/str_cat.h"
#include "runtime/src/fork.h"

namespace shmrpc::internal {
namespace {

// Enough for all that the library does on its own, ten times over; sanitizers take several times as much.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kSmallStack = 2 * 1024 * 1024;
#else
constexpr size_t kSmallStack = 256 * 1024;
#endif

// What the process was started with. Read when the library is loaded, before any code of the program's.
struct Scheduling {
  bool known = false;
  int policy = 0;
  sched_param parameters = {};
  int nice = 0;
  bool cpus_known = false;  // not on machines with more than CPU_SETSIZE
  cpu_set_t cpus;
};
constinit Scheduling at_start = {};

// Of the first thread, which is the only one that there is then, or else that of the whole process.
[[gnu::constructor(101)]] void ReadScheduling() {
  const pid_t first_thread = getpid();
  at_start.policy = sched_getscheduler(first_thread);
  errno = 0;
  at_start.nice = getpriority(PRIO_PROCESS, static_cast<id_t>(first_thread));
  at_start.known = errno == 0 && at_start.policy >= 0 && sched_getparam(first_thread, &at_start.parameters) == 0;
  at_start.cpus_known = sched_getaffinity(first_thread, sizeof at_start.cpus, &at_start.cpus) == 0;
}

// For the calling thread. What the kernel does not allow stays as it is.
void RestoreScheduling() {
  cpu_set_t cpus;
  if (at_start.cpus_known && sched_getaffinity(0, sizeof cpus, &cpus) == 0 && !CPU_EQUAL(&cpus, &at_start.cpus)) {
    (void)sched_setaffinity(0, sizeof at_start.cpus, &at_start.cpus);
  }
  if (!at_start.known) return;
  sched_param parameters = {};
  if (sched_getscheduler(0) != at_start.policy ||
      (sched_getparam(0, &parameters) == 0 && parameters.sched_priority != at_start.parameters.sched_priority)) {
    (void)sched_setscheduler(0, at_start.policy, &at_start.parameters);
  }
  errno = 0;
  if (getpriority(PRIO_PROCESS, 0) != at_start.nice && errno == 0) (void)setpriority(PRIO_PROCESS, 0, at_start.nice);
}

// Of the library's threads.
struct Origin {
  bool of_library = false;
  sigset_t programs_signals = {};  // the mask of the program's thread from which it descends
};
constinit thread_local Origin origin = {};

// The library's threads do not exist in the child of a fork(), so the one that has forked is the program's now.
const InForkedChild forget_origin([] {
  if (!origin.of_library) return;
  origin.of_library = false;
  pthread_sigmask(SIG_SETMASK, &origin.programs_signals, nullptr);
});

sigset_t SignalsOfLibraryThreads(const sigset_t& of_starter) {
  sigset_t blocked;
  sigfillset(&blocked);
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) sigdelset(&blocked, own);
  if (sigismember(&of_starter, SIGPROF) == 0) sigdelset(&blocked, SIGPROF);
  return blocked;
}

struct Start {
  const char* const name;
  absl::AnyInvocable<void()> body;
  const bool by_library;
  const sigset_t programs_signals;
};

void* ThreadMain(void* argument) {
  const std::unique_ptr<Start> start(static_cast<Start*>(argument));
  origin.programs_signals = start->programs_signals;
  origin.of_library = true;
  pthread_setname_np(pthread_self(), start->name);
  if (!start->by_library) RestoreScheduling();
  start->body();
  start->body = nullptr;
  return nullptr;
}

int Create(size_t stack_bytes, Start* start, pthread_t* thread) {
  pthread_attr_t attributes;
  const int error = pthread_attr_init(&attributes);
  if (error != 0) return error;
  size_t usual = 0;
  (void)pthread_attr_getstacksize(&attributes, &usual);
  (void)pthread_attr_setstacksize(&attributes, stack_bytes == 0 ? std::max(usual, kSmallStack) : stack_bytes);
  const int result = pthread_create(thread, &attributes, &ThreadMain, start);
  pthread_attr_destroy(&attributes);
  return result;
}

}  // namespace

Thread& Thread::operator=(Thread&& other) noexcept {
  if (joinable_) std::terminate();
  joinable_ = std::exchange(other.joinable_, false);
  thread_ = other.thread_;
  return *this;
}

Thread::~Thread() {
  if (joinable_) std::terminate();
}

void Thread::join() {
  pthread_join(thread_, nullptr);
  joinable_ = false;
}

void Thread::detach() {
  pthread_detach(thread_);
  joinable_ = false;
}

absl::StatusOr<Thread> StartThread(const char* name, absl::AnyInvocable<void()> body, Stack stack) {
  // A thread inherits the mask of the one that creates it.
  const BlockSignalsOfNewThreads blocked;
  sigset_t signals = origin.programs_signals;
  if (!origin.of_library) signals = blocked.previous();
  auto start = std::make_unique<Start>(name, std::move(body), origin.of_library, signals);
  Thread thread;
  int error = EINVAL;
  if (stack == Stack::kForLibrary) error = Create(kSmallStack, start.get(), &thread.thread_);
  // Programs with large thread_local variables have no threads with small stacks.
  if (error == EINVAL) error = Create(0, start.get(), &thread.thread_);
  if (error != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start the thread ", name, ": ", strerrordesc_np(error),
                     "; raise RLIMIT_NPROC, or the limit of the control group's tasks or memory"));
  }
  (void)start.release();
  thread.joinable_ = true;
  return thread;
}

BlockSignalsOfNewThreads::BlockSignalsOfNewThreads() {
  sigemptyset(&previous_);  // what it is if this is refused
  pthread_sigmask(SIG_SETMASK, nullptr, &previous_);
  const sigset_t blocked = SignalsOfLibraryThreads(previous_);
  pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

BlockSignalsOfNewThreads::~BlockSignalsOfNewThreads() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

}  // namespace shmrpc::internal
