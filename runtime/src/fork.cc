#include "runtime/src/fork.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shmrpc/mutex.h"

namespace shmrpc::internal {

constinit std::atomic<uint32_t> fork_generation{0};

namespace {

// Never destroyed: threads of the library may run until the very end.
union NeverDestroyed {
  constexpr NeverDestroyed() : mutex() {}
  ~NeverDestroyed() {}
  Mutex mutex;
};
constinit NeverDestroyed list_mutex;
constinit NotForChildren* list ABSL_GUARDED_BY(list_mutex.mutex) = nullptr;

// Of all InForkedChild. Grows only, while libraries are loaded.
constinit std::atomic<InForkedChild*> in_child{nullptr};

// With the list's mutex taken before, so that the child finds the list whole.
void BeforeFork() ABSL_NO_THREAD_SAFETY_ANALYSIS { list_mutex.mutex.Lock(); }
void AfterForkInParent() ABSL_NO_THREAD_SAFETY_ANALYSIS { list_mutex.mutex.Unlock(); }
void AfterForkInChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  fork_generation.fetch_add(1, std::memory_order_relaxed);
  NotForChildren::ReplaceAllInChild();
  InForkedChild::CallAll();
  list_mutex.mutex.Unlock();
}

[[maybe_unused]] const int registered = pthread_atfork(&BeforeFork, &AfterForkInParent, &AfterForkInChild);

}  // namespace

InForkedChild::InForkedChild(void (*forget)()) : forget_(forget), next_(in_child.load(std::memory_order_relaxed)) {
  while (!in_child.compare_exchange_weak(next_, this, std::memory_order_acq_rel)) {
  }
}

void InForkedChild::CallAll() {
  for (const InForkedChild* each = in_child.load(std::memory_order_acquire); each != nullptr; each = each->next_) {
    each->forget_();
  }
}

NotForChildren::NotForChildren(int fd) : fd_(fd) {
  MutexLock lock(&list_mutex.mutex);
  next_ = list;
  if (next_ != nullptr) next_->previous_ = this;
  list = this;
}

NotForChildren::~NotForChildren() {
  MutexLock lock(&list_mutex.mutex);
  (previous_ == nullptr ? list : previous_->next_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

// Only what may be done in the child of a process with threads: system calls.
void NotForChildren::ReplaceAllInChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (list == nullptr) return;
  const int nothing = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (nothing < 0) return;  // no descriptor is left: it keeps what it has
  for (const NotForChildren* each = list; each != nullptr; each = each->next_) dup3(nothing, each->fd_, O_CLOEXEC);
  close(nothing);
}

}  // namespace shmrpc::internal
