#ifndef SHMRPC_RUNTIME_SRC_RECYCLING_ALLOCATOR_H_
#define SHMRPC_RUNTIME_SRC_RECYCLING_ALLOCATOR_H_

#include <cstddef>
#include <new>

namespace shmrpc::internal {

// For std::allocate_shared, of objects that come and go with each call: memory that a thread gives back it gets again,
// without a trip to the heap. A thread keeps up to kKept pieces for each type, until it ends; what is more goes back to
// the heap. Under AddressSanitizer nothing is kept, so that it sees who uses an object that has gone.
template <typename T>
class RecyclingAllocator {
 public:
  using value_type = T;

  RecyclingAllocator() = default;
  template <typename U>
  RecyclingAllocator(const RecyclingAllocator<U>&) {}

  T* allocate(size_t count) {
    Kept& kept = OfThisThread();
    if (count == 1 && kept.size > 0) return static_cast<T*>(kept.pieces[--kept.size]);
    return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{alignof(T)}));
  }

  void deallocate(T* piece, size_t count) {
    Kept& kept = OfThisThread();
    if (count == 1 && kept.size < kept.room) {
      kept.pieces[kept.size++] = piece;
    } else {
      ::operator delete (piece, std::align_val_t{alignof(T)});
    }
  }

  friend bool operator==(const RecyclingAllocator&, const RecyclingAllocator&) { return true; }

 private:
  static constexpr size_t kKept = 32;

  struct Kept {
    void* pieces[kKept];
    size_t size = 0;
#if defined(__SANITIZE_ADDRESS__)
    size_t room = 0;
#else
    size_t room = kKept;
#endif

    ~Kept() {
      room = 0;  // the thread's other variables may still give something back
      while (size > 0) ::operator delete (pieces[--size], std::align_val_t{alignof(T)});
    }
  };
  static Kept& OfThisThread() {
    static thread_local Kept kept;
    return kept;
  }
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_RECYCLING_ALLOCATOR_H_
