#ifndef SHMRPC_TESTS_SOAK_RUN_TABLE_H_
#define SHMRPC_TESTS_SOAK_RUN_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace shmrpc::soak {

// Which calls have run, of all clients and servers of a soak: it is in memory that they share, and so outlives each of
// them. Its size does not depend on how many calls there are: it remembers the latest kIds of them, or at least half as
// many, which is millions. A call that runs later than that is not told from another one. All zeros at first.
//
// Thread-safe, across processes.
class RunTable {
 public:
  static constexpr uint64_t kIds = uint64_t{1} << 25;

  // An id that no other call has.
  uint64_t TakeId() {
    const uint64_t id = next_.fetch_add(1, std::memory_order_relaxed);
    // Makes room for the ids to come: they are far enough away that nobody uses their places any more, or yet.
    if (id % kIdsPerClearing == 0) Clear(id + kIds / 2);
    return id;
  }

  uint64_t ids_taken() const { return next_.load(std::memory_order_relaxed); }

  // Its handler runs. False: not for the first time.
  bool NoteRun(uint64_t id) { return (Word(id).fetch_or(Bit(id)) & Bit(id)) == 0; }

  bool HasRun(uint64_t id) { return (Word(id).load() & Bit(id)) != 0; }

 private:
  static constexpr uint64_t kIdsPerClearing = 64 * 1024;
  static_assert(kIds % kIdsPerClearing == 0);

  void Clear(uint64_t first) {
    for (uint64_t id = first; id < first + kIdsPerClearing; id += 64) Word(id).store(0, std::memory_order_relaxed);
  }
  std::atomic<uint64_t>& Word(uint64_t id) { return words_[id % kIds / 64]; }
  static uint64_t Bit(uint64_t id) { return uint64_t{1} << (id % 64); }

  std::atomic<uint64_t> next_;
  std::atomic<uint64_t> words_[kIds / 64];
};

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_RUN_TABLE_H_
