#ifndef SHMRPC_TRANSPORTS_FRAMED_CHUNK_POOL_H_
#define SHMRPC_TRANSPORTS_FRAMED_CHUNK_POOL_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "shmrpc/mutex.h"
#include "transports/framed/link.h"

namespace shmrpc::framed {

class ChunkPool;

struct ChunkReturner {
  inline void operator()(Chunk* chunk) const;
};
using ChunkPtr = std::unique_ptr<Chunk, ChunkReturner>;

// The process's memory for received frames. A chunk in use belongs to whoever holds its ChunkPtr; idle connections
// hold none. Keeps up to kKept unused chunks, because fresh memory of that size costs page faults. Thread-safe.
class ChunkPool {
 public:
  static constexpr size_t kKept = 64;

  static ChunkPool& Get() {
    static ChunkPool* const pool = new ChunkPool;  // never destroyed: threads may end after static destruction
    return *pool;
  }

  // A chunk, the thread's own if that is unused.
  static inline ChunkPtr TakeForThread();

 private:
  friend struct ChunkReturner;
  friend struct ThreadChunkCache;

  ChunkPtr Take() {
    {
      MutexLock lock(&mutex_);
      if (!unused_.empty()) {
        Chunk* const chunk = unused_.back();
        unused_.pop_back();
        return ChunkPtr(chunk);
      }
    }
    return ChunkPtr(new Chunk);
  }

  void Return(Chunk* chunk) {
    {
      MutexLock lock(&mutex_);
      if (unused_.size() < kKept) {
        unused_.push_back(chunk);
        return;
      }
    }
    delete chunk;
  }

  Mutex mutex_;
  std::vector<Chunk*> unused_ ABSL_GUARDED_BY(mutex_);
};

// The calling thread's own unused chunk, so that receiving a frame and being done with it costs no trip to the pool.
struct ThreadChunkCache {
  Chunk* chunk = nullptr;
  bool ended = false;  // the thread's variables are being destroyed

  ~ThreadChunkCache() {
    ended = true;
    if (chunk != nullptr) ChunkPool::Get().Return(chunk);
  }

  static ThreadChunkCache& Get() {
    static thread_local ThreadChunkCache cache;
    return cache;
  }
};

ChunkPtr ChunkPool::TakeForThread() {
  Chunk*& cached = ThreadChunkCache::Get().chunk;
  return cached != nullptr ? ChunkPtr(std::exchange(cached, nullptr)) : ChunkPool::Get().Take();
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
