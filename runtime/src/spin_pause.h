#ifndef SHMRPC_RUNTIME_SRC_SPIN_PAUSE_H_
#define SHMRPC_RUNTIME_SRC_SPIN_PAUSE_H_

namespace shmrpc::internal {

// Tells the CPU that this thread spins.
inline void SpinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_SPIN_PAUSE_H_
