#include "runtime/src/thread.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shmrpc::internal {

absl::StatusOr<std::thread> StartThread(const char* name, absl::AnyInvocable<void()> body) {
  // A thread inherits the mask of the one that creates it.
  sigset_t all;
  sigset_t previous;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &previous);
  absl::StatusOr<std::thread> thread = absl::UnknownError("");
  try {
    thread = std::thread([name, body = std::move(body)]() mutable {
      pthread_setname_np(pthread_self(), name);
      body();
    });
  } catch (const std::system_error& error) {
    thread = absl::ResourceExhaustedError(absl::StrCat("cannot start the thread ", name, ": ", error.what()));
  }
  pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  return thread;
}

}  // namespace shmrpc::internal
