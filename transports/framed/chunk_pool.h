#ifndef SHMRPC_TRANSPORTS_FRAMED_CHUNK_POOL_H_
#define SHMRPC_TRANSPORTS_FRAMED_CHUNK_POOL_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "shmrpc/mutex.h"
#include "transports/framed/link.h"

namespace shmrpc::framed {

class ChunkPool;

struct ChunkReturner {
  inline void operator()(Chunk* chunk) const;
};
using ChunkPtr = std::unique_ptr<Chunk, ChunkReturner>;

// The process's memory for received frames. A chunk in use belongs to whoever holds its ChunkPtr; idle connections
// hold none, and large messages neither, whose pieces are taken out of their chunks at once. Keeps up to kKept unused
// chunks, because fresh memory of that size costs page faults, and gives those back that nobody has needed for
// kTrimPeriod to twice that, but for kKeptForEver.
//
// Thread-safe.
class ChunkPool {
 public:
  static constexpr size_t kKept = 64;
  static constexpr size_t kKeptForEver = 2;
  static constexpr absl::Duration kTrimPeriod = absl::Seconds(10);

  // This process's.
  static ChunkPool& Get();

  ChunkPool() = default;
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;

  // A chunk, the thread's own if that is unused. Null: the process has no memory left.
  static inline ChunkPtr TakeForThread();

  // What the timer does: gives back what nobody has needed since the last time. True when there is something left to
  // give back later.
  bool Trim() ABSL_LOCKS_EXCLUDED(mutex_);

  size_t unused_chunks() const {
    MutexLock lock(&mutex_);
    return unused_.size();
  }

 private:
  friend struct ChunkReturner;
  friend struct ThreadChunkCache;

  ChunkPtr Take() ABSL_LOCKS_EXCLUDED(mutex_);
  void Return(Chunk* chunk) ABSL_LOCKS_EXCLUDED(mutex_);
  void ArmTrim();

  mutable Mutex mutex_;
  std::vector<Chunk*> unused_ ABSL_GUARDED_BY(mutex_);
  size_t fewest_unused_ ABSL_GUARDED_BY(mutex_) = 0;  // since the last Trim
  bool trim_armed_ ABSL_GUARDED_BY(mutex_) = false;
};

// The calling thread's own unused chunk, so that receiving a frame and being done with it costs no trip to the pool.
struct ThreadChunkCache {
  Chunk* chunk = nullptr;
  bool ended = false;  // the thread's variables are being destroyed

  // The thread may make a call after that: from the destructor of another of its variables, or of a static one. Then
  // there is no cache.
  ~ThreadChunkCache() {
    ended = true;
    if (chunk != nullptr) ChunkPool::Get().Return(std::exchange(chunk, nullptr));
  }

  static ThreadChunkCache& Get() {
    static thread_local ThreadChunkCache cache;
    return cache;
  }
};

ChunkPtr ChunkPool::TakeForThread() {
  ThreadChunkCache& cache = ThreadChunkCache::Get();
  if (cache.chunk == nullptr || cache.ended) return ChunkPool::Get().Take();
  return ChunkPtr(std::exchange(cache.chunk, nullptr));
}

void ChunkReturner::operator()(Chunk* chunk) const {
  ThreadChunkCache& cache = ThreadChunkCache::Get();
  if (cache.chunk == nullptr && !cache.ended) {
    cache.chunk = chunk;
  } else {
    ChunkPool::Get().Return(chunk);
  }
}

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_CHUNK_POOL_H_
