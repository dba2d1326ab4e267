#ifndef SHMRPC_TRANSPORTS_INPROC_WORKER_POOL_H_
#define SHMRPC_TRANSPORTS_INPROC_WORKER_POOL_H_

#include <atomic>
#include <list>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "shmrpc/options.h"

namespace shmrpc::internal {

// For how long a thread in this mode watches for something to happen before it sleeps. Zero when the process may use
// one CPU only: whoever it waits for could not run meanwhile.
absl::Duration SpinTime(WaitMode mode);

// Threads that run tasks in the order in which they were submitted. Threads are started when all others are busy, and
// end when there was nothing to do for some seconds. A thread that has just finished watches for the next task before
// it sleeps, so that a quick succession of tasks needs no wake-ups.
//
// Every submitted task is matched with a thread at once, unless all of max_threads are busy: the one that watches, one
// that sleeps, or a new one. So a task that blocks never holds up another while there are threads left.
//
// Thread-safe. Tasks run with no lock held; they may submit tasks but must not call Stop.
class WorkerPool {
 public:
  // Something to run. Not owned by the pool, which does not touch it any more once Run has begun.
  class Task {
   public:
    virtual void Run() = 0;

   protected:
    ~Task() = default;

   private:
    friend class WorkerPool;
    Task* next_ = nullptr;
  };

  // `thread_name` has static storage and at most 15 characters.
  WorkerPool(const char* thread_name, int max_threads, WaitMode wait_mode);
  ~WorkerPool() { Stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False, and the task will not run, when the pool was stopped or the system does not give it a single thread.
  bool Submit(Task* task);

  // Refuses further tasks, runs those submitted, and waits until all threads have ended. Idempotent.
  void Stop();

 private:
  // False when the system has no thread to give.
  bool StartWorker() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunWorker(std::list<std::thread>::iterator self);
  // False when the time is over and the thread shall end.
  bool WaitForWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CallSpinner() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const char* const thread_name_;
  const int max_threads_;
  const absl::Duration spin_time_;

  std::atomic<bool> spinner_called_{false};  // what the thread that watches is watching

  Mutex mutex_;
  CondVar wake_up_;
  CondVar thread_ended_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Task* first_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Task* last_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool spinning_ ABSL_GUARDED_BY(mutex_) = false;  // a thread watches and has not been called
  int sleeping_ ABSL_GUARDED_BY(mutex_) = 0;       // threads that sleep and have not been called
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;          // calls to sleeping threads that none has answered yet
  int active_ ABSL_GUARDED_BY(mutex_) = 0;         // threads that run tasks or wait for some
  int ending_ ABSL_GUARDED_BY(mutex_) = 0;         // threads that will take no more tasks
  std::list<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> ended_ ABSL_GUARDED_BY(mutex_);  // to be joined by the next one that ends, or by Stop
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_TRANSPORTS_INPROC_WORKER_POOL_H_
