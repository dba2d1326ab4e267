#include "shmrpc/task.h"

namespace shmrpc {

void internal::SyncWaitEvent::Set() {
  // Signalled under the lock: the waiting thread destroys this object.
  MutexLock lock(&mutex_);
  set_ = true;
  changed_.Signal();
}

void internal::SyncWaitEvent::Wait() {
  MutexLock lock(&mutex_);
  while (!set_) changed_.Wait(&mutex_);
}

}  // namespace shmrpc
