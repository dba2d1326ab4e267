#ifndef SHMRPC_RUNTIME_SRC_FORK_H_
#define SHMRPC_RUNTIME_SRC_FORK_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace shmrpc::internal {

extern std::atomic<uint32_t> fork_generation;

// Changes in the child of every fork(). An object that remembers the number it was made under knows by one load, and
// without a system call, that it was inherited: the threads that it relies on do not exist, its locks may be held for
// ever, and its descriptors are the parent's.
inline uint32_t ForkGeneration() { return fork_generation.load(std::memory_order_relaxed); }

// All that lives longer than a call or a connection is made by one of the two that follow, so that a program may fork at
// any moment, use the library in the child, and try again after a failure. (docs/process-state.md lists what there is.)
// Plain static variables with initialisers that run when first needed are no substitute: the child of a fork() that
// came during such an initialiser waits for its end for ever.

// The one T of this process, made when first asked for and never destroyed, because threads may use it until the very
// end. The child of a fork() gets a new one: the parent's is left as it is, with its locks perhaps held. To be a
// static variable; constant-initialised. Thread-safe. Two threads may make one at the same time, and then one of the two
// is destroyed again.
template <typename T>
class PerProcess {
 public:
  constexpr PerProcess() = default;
  PerProcess(const PerProcess&) = delete;
  PerProcess& operator=(const PerProcess&) = delete;

  T& Get() {
    T* const existing = Existing();
    return existing != nullptr ? *existing : Publish();
  }

  // For what may fail, or needs more than nothing: `make` returns a T, or an absl::StatusOr<T>. A failure is the
  // caller's, and the next one tries again.
  template <typename Make>
  T& GetOrMake(const Make& make) {
    T* const existing = Existing();
    return existing != nullptr ? *existing : Publish(make());
  }
  template <typename Make>
  absl::StatusOr<T*> GetOrTry(const Make& make) {
    if (T* const existing = Existing()) return existing;
    absl::StatusOr<T> made = make();
    if (made.ok()) return &Publish(*std::move(made));
    // Perhaps there were means for one only, and another thread has made that.
    if (T* const existing = Existing()) return existing;
    return made.status();
  }

  // Null when there is none yet.
  T* Existing() {
    Instance* const instance = instance_.load(std::memory_order_acquire);
    return instance != nullptr && instance->generation == ForkGeneration() ? &instance->value : nullptr;
  }

 private:
  struct Instance {
    const uint32_t generation;
    T value;
    Instance* inherited;  // keeps the parent's reachable, for leak checkers
  };

  template <typename... Arguments>
  T& Publish(Arguments&&... arguments) {
    Instance* const created = new Instance{ForkGeneration(), T(std::forward<Arguments>(arguments)...), nullptr};
    Instance* instance = instance_.load(std::memory_order_acquire);
    do {
      if (instance != nullptr && instance->generation == created->generation) {
        delete created;
        return instance->value;
      }
      created->inherited = instance;
    } while (!instance_.compare_exchange_weak(instance, created, std::memory_order_acq_rel));
    return created->value;
  }

  std::atomic<Instance*> instance_{nullptr};
};

// For thread_local variables that hold something of the parent's: `forget` is called in the child of every fork(), on
// the one thread that it has, before fork() returns there. It may do only what a signal handler may; to abandon is
// enough, as memory is the least of what a child inherits. To be a static variable.
class InForkedChild {
 public:
  explicit InForkedChild(void (*forget)());
  InForkedChild(const InForkedChild&) = delete;
  InForkedChild& operator=(const InForkedChild&) = delete;

  // What the child does first.
  static void CallAll();

 private:
  void (*const forget_)();
  InForkedChild* next_;
};

// While it exists, children made by fork() do not get the descriptor `fd`: there its number is that of something else
// that never has anything to say, so what the child has inherited may close it as ever. For sockets whose peers take
// the end of this process for the end of the connection, or whose port is to be free then, and not only when its last
// child has ended, too. (Descriptors are close-on-exec besides; this is for children that go on without exec.)
//
// A connection that is just being made, on another thread, while this one forks, is not kept from the child.
//
// To be destroyed before `fd` is closed. Thread-safe.
class NotForChildren {
 public:
  explicit NotForChildren(int fd);
  ~NotForChildren();
  NotForChildren(const NotForChildren&) = delete;
  NotForChildren& operator=(const NotForChildren&) = delete;

  // What the child does first.
  static void ReplaceAllInChild();

 private:
  const int fd_;
  // All of them are in a list, guarded by a mutex that fork() takes as well.
  NotForChildren* next_ = nullptr;
  NotForChildren* previous_ = nullptr;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_FORK_H_
