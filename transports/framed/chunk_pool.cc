#include "transports/framed/chunk_pool.h"

#include <algorithm>
#include <cstddef>

#include "runtime/src/fork.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/keepalive.h"

namespace shmrpc::framed {
namespace {

constinit internal::PerProcess<ChunkPool> chunk_pool;

}  // namespace

ChunkPool& ChunkPool::Get() { return chunk_pool.Get(); }

ChunkPtr ChunkPool::Take() {
  {
    MutexLock lock(&mutex_);
    if (!unused_.empty()) {
      Chunk* const chunk = unused_.back();
      unused_.pop_back();
      fewest_unused_ = std::min(fewest_unused_, unused_.size());
      return ChunkPtr(chunk);
    }
  }
  return ChunkPtr(new Chunk);
}

void ChunkPool::Return(Chunk* chunk) {
  bool arm = false;
  {
    MutexLock lock(&mutex_);
    if (unused_.size() < kKept) {
      unused_.push_back(chunk);
      chunk = nullptr;
      arm = unused_.size() > kKeptForEver && !trim_armed_;
      if (arm) {
        trim_armed_ = true;
        fewest_unused_ = unused_.size();
      }
    }
  }
  if (arm) ArmTrim();
  delete chunk;
}

// On the keepalive's timer, which runs nothing that blocks; idle processes have none.
void ChunkPool::ArmTrim() {
  KeepaliveTimer().Schedule(SteadyTime::Now() + kTrimPeriod, [this] {
    if (Trim()) ArmTrim();
  });
}

bool ChunkPool::Trim() {
  std::vector<Chunk*> surplus;
  bool more;
  {
    MutexLock lock(&mutex_);
    const size_t kept = std::max(unused_.size() - fewest_unused_, std::min(unused_.size(), kKeptForEver));
    surplus.assign(unused_.begin() + static_cast<std::ptrdiff_t>(kept), unused_.end());
    unused_.resize(kept);
    fewest_unused_ = kept;
    more = kept > kKeptForEver;
    trim_armed_ = more;
  }
  for (Chunk* chunk : surplus) delete chunk;
  return more;
}

}  // namespace shmrpc::framed
