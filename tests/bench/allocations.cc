#include "tests/bench/allocations.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include <atomic>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHMRPC_BENCH_COUNTS_ALLOCATIONS 0
#else
#define SHMRPC_BENCH_COUNTS_ALLOCATIONS 1
#endif

namespace shmrpc::bench {
namespace {

// In memory that the processes share. The two are on lines of their own: `counting` is read by every allocation.
struct Shared {
  alignas(64) std::atomic<bool> counting = false;
  alignas(64) std::atomic<int64_t> count = 0;
};

// Constant-initialised: the first allocations come before any constructor has run.
std::atomic<Shared*> shared = nullptr;

#if SHMRPC_BENCH_COUNTS_ALLOCATIONS
inline void Count() {
  Shared* const counter = shared.load(std::memory_order_relaxed);
  if (counter == nullptr || !counter->counting.load(std::memory_order_relaxed)) return;
  counter->count.fetch_add(1, std::memory_order_relaxed);
}
#endif

}  // namespace

bool AllocationCounter::Available() { return SHMRPC_BENCH_COUNTS_ALLOCATIONS; }

absl::Status AllocationCounter::Install() {
  void* const page =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, /*fd=*/-1, /*offset=*/0);
  if (page == MAP_FAILED) return absl::ErrnoToStatus(errno, "cannot map memory for the counter of allocations");
  shared = new (page) Shared;
  return absl::OkStatus();
}

void AllocationCounter::Begin() {
  Shared* const counter = shared;
  counter->count = 0;
  counter->counting = true;
}

int64_t AllocationCounter::End() {
  Shared* const counter = shared;
  counter->counting = false;
  return counter->count;
}

}  // namespace shmrpc::bench

#if SHMRPC_BENCH_COUNTS_ALLOCATIONS

// These take the place of the C library's functions in the whole program, its shared libraries included. free() need
// not be replaced: the memory is the C library's.
extern "C" {

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t number, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) noexcept {
  shmrpc::bench::Count();
  return __libc_malloc(size);
}

void* calloc(size_t number, size_t size) noexcept {
  shmrpc::bench::Count();
  return __libc_calloc(number, size);
}

void* realloc(void* memory, size_t size) noexcept {
  shmrpc::bench::Count();
  return __libc_realloc(memory, size);
}

void* memalign(size_t alignment, size_t size) noexcept {
  shmrpc::bench::Count();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) noexcept { return memalign(alignment, size); }

int posix_memalign(void** memory, size_t alignment, size_t size) noexcept {
  if (alignment % sizeof(void*) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  const int saved = errno;
  void* const allocated = memalign(alignment, size);
  errno = saved;
  if (allocated == nullptr) return ENOMEM;
  *memory = allocated;
  return 0;
}

}  // extern "C"

#endif
