#ifndef SHMRPC_TESTS_SOAK_CANCELLER_H_
#define SHMRPC_TESTS_SOAK_CANCELLER_H_

#include <map>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "tests/soak/client_call.h"

namespace shmrpc::soak {

// Cancels calls when their time has come, on a thread of its own. Thread-safe.
class Canceller {
 public:
  Canceller() : thread_([this] { Run(); }) {}
  ~Canceller() {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }
  Canceller(const Canceller&) = delete;
  Canceller& operator=(const Canceller&) = delete;

  // `call` lives until Forget.
  void Schedule(SteadyTime when, ClientCall* call) {
    MutexLock lock(&mutex_);
    due_.emplace(when, call);
    changed_.SignalAll();
  }

  // Afterwards nobody cancels `call`. Not from one of the call's own callbacks, which may run inside the cancellation.
  void Forget(ClientCall* call) {
    MutexLock lock(&mutex_);
    for (auto it = due_.begin(); it != due_.end();) it = it->second == call ? due_.erase(it) : std::next(it);
    while (cancelling_ == call) changed_.Wait(&mutex_);
  }

 private:
  void Run() {
    MutexLock lock(&mutex_);
    while (!stopping_) {
      if (due_.empty()) {
        changed_.Wait(&mutex_);
        continue;
      }
      const SteadyTime when = due_.begin()->first;
      if (!when.HasPassed()) {
        changed_.WaitUntil(&mutex_, when);
        continue;
      }
      cancelling_ = due_.begin()->second;
      due_.erase(due_.begin());
      ClientCall* const call = cancelling_;
      mutex_.Unlock();
      call->Cancel();
      mutex_.Lock();
      cancelling_ = nullptr;
      changed_.SignalAll();
    }
  }

  Mutex mutex_;
  CondVar changed_;
  std::multimap<SteadyTime, ClientCall*> due_ ABSL_GUARDED_BY(mutex_);
  ClientCall* cancelling_ ABSL_GUARDED_BY(mutex_) = nullptr;  // that the thread is in the middle of
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_CANCELLER_H_
