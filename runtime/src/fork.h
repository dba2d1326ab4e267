#ifndef SHMRPC_RUNTIME_SRC_FORK_H_
#define SHMRPC_RUNTIME_SRC_FORK_H_

#include <atomic>
#include <cstdint>

namespace shmrpc::internal {

extern std::atomic<uint32_t> fork_generation;

// Changes in the child of every fork(). An object that remembers the number it was made under knows by one load, and
// without a system call, that it was inherited: the threads that it relies on do not exist, its locks may be held for
// ever, and its descriptors are the parent's.
inline uint32_t ForkGeneration() { return fork_generation.load(std::memory_order_relaxed); }

// The one T of this process, made when first asked for and never destroyed, because threads may use it until the very
// end. The child of a fork() gets a new one: the parent's is left as it is, with its locks perhaps held. To be a
// static variable; constant-initialised. Thread-safe.
template <typename T>
class PerProcess {
 public:
  constexpr PerProcess() = default;
  PerProcess(const PerProcess&) = delete;
  PerProcess& operator=(const PerProcess&) = delete;

  T& Get() {
    Instance* instance = instance_.load(std::memory_order_acquire);
    if (instance != nullptr && instance->generation == ForkGeneration()) return instance->value;
    Instance* const created = new Instance{ForkGeneration(), {}, instance};
    if (instance_.compare_exchange_strong(instance, created, std::memory_order_acq_rel)) return created->value;
    delete created;
    return instance->value;
  }

 private:
  struct Instance {
    const uint32_t generation;
    T value;
    Instance* const inherited;  // keeps the parent's reachable, for leak checkers
  };
  std::atomic<Instance*> instance_{nullptr};
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
