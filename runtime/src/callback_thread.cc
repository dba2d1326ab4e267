#include "runtime/src/callback_thread.h"

#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/fork.h"
#include "runtime/src/log.h"
#include "runtime/src/thread.h"

namespace shmrpc::internal {
namespace {

constinit PerProcess<CallbackThread> process_thread;

}  // namespace

CallbackThread& CallbackThread::Get() { return process_thread.Get(); }

void CallbackThread::Run(absl::AnyInvocable<void()> function) {
  {
    MutexLock lock(&mutex_);
    if (StartThreadIfNeeded()) {
      functions_.push_back(std::move(function));
      if (sleeping_) {
        sleeping_ = false;  // one signal is enough
        added_.Signal();
      }
      return;
    }
  }
  function();
}

bool CallbackThread::StartThreadIfNeeded() {
  if (thread_started_) return true;
  absl::StatusOr<std::thread> thread = StartThread("shmrpc-callback", [this] { RunThread(); });
  if (!thread.ok()) {
    static LogLimiter limiter;
    LogWarningLimited(limiter,
                      absl::StrCat("callbacks run inside the calls that caused them: ", thread.status().message()));
    return false;
  }
  thread->detach();
  thread_started_ = true;
  return true;
}

void CallbackThread::RunThread() {
  std::vector<absl::AnyInvocable<void()>> functions;
  for (;;) {
    {
      MutexLock lock(&mutex_);
      while (functions_.empty()) {
        sleeping_ = true;
        added_.Wait(&mutex_);
      }
      sleeping_ = false;
      functions.swap(functions_);
    }
    for (absl::AnyInvocable<void()>& function : functions) {
      function();
      function = nullptr;  // with what it holds
    }
    functions.clear();
  }
}

}  // namespace shmrpc::internal
