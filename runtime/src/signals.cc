#include "shmrpc/signals.h"

#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

#include "runtime/src/log.h"

namespace shmrpc {
namespace {

constexpr std::array<int, 2> kSignals = {SIGINT, SIGTERM};

// What the signal handler needs. A handler has no argument to find an object by, and may run after the destructor has
// begun on another thread: so all of it lives as long as the process. Only lock-free atomics and sem_post, which POSIX
// allows in a handler.
struct HandlerState {
  std::atomic<pid_t> owner{0};  // the process that waits; 0: there is no ShutdownSignals
  std::atomic<int> came{0};     // the first signal
  sem_t arrived;                // posted once for each signal, and by RequestStop
};
HandlerState state;
static_assert(std::atomic<pid_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

// The dispositions that the constructor has found. `replaced`: this file's handler is in its place.
struct Previous {
  struct sigaction action;
  bool replaced = false;
};
std::array<Previous, kSignals.size()> previous;  // the constructor's, Wait's and the destructor's

void HandleSignal(int number) {
  const int saved_errno = errno;
  if (state.owner.load(std::memory_order_relaxed) == getpid()) {
    int none = 0;
    state.came.compare_exchange_strong(none, number, std::memory_order_relaxed);
    sem_post(&state.arrived);
  } else {
    // A fork()ed child: nobody there waits for the signal. It ends the child, as it would without the handler, once
    // this handler returns and the signal is no longer blocked.
    signal(number, SIG_DFL);
    raise(number);
  }
  errno = saved_errno;
}

void InstallHandlers() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    if (sigaction(kSignals[i], nullptr, &previous[i].action) != 0) continue;
    const bool ignored = (previous[i].action.sa_flags & SA_SIGINFO) == 0 && previous[i].action.sa_handler == SIG_IGN;
    if (ignored) continue;
    struct sigaction action = {};
    action.sa_handler = HandleSignal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    previous[i].replaced = sigaction(kSignals[i], &action, nullptr) == 0;
  }
}

void RestoreHandlers() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    if (previous[i].replaced) sigaction(kSignals[i], &previous[i].action, nullptr);
    previous[i].replaced = false;
  }
}

}  // namespace

ShutdownSignals::ShutdownSignals() {
  pid_t none = 0;
  const pid_t self = getpid();
  if (!state.owner.compare_exchange_strong(none, self) && none == self) {
    internal::LogFatal("a second ShutdownSignals was made while one exists: a process can have only one at a time");
  }
  state.owner.store(self);  // in place of a parent's, in a fork()ed child
  state.came.store(0);
  sem_init(&state.arrived, /*pshared=*/0, 0);
  InstallHandlers();
}

ShutdownSignals::~ShutdownSignals() {
  RestoreHandlers();
  state.owner.store(0);
}

int ShutdownSignals::Wait() {
  // The calling thread may have been started with the signals blocked, and there may be no other.
  sigset_t signals, before;
  sigemptyset(&signals);
  for (const int number : kSignals) sigaddset(&signals, number);
  pthread_sigmask(SIG_UNBLOCK, &signals, &before);
  while (sem_wait(&state.arrived) != 0 && errno == EINTR) {
  }
  RestoreHandlers();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  sem_post(&state.arrived);  // for a further Wait
  return state.came.exchange(0);
}

void ShutdownSignals::RequestStop() { sem_post(&state.arrived); }

int WaitForShutdownSignal() { return ShutdownSignals().Wait(); }

}  // namespace shmrpc
