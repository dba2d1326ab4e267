#include "transports/framed/chunk_pool.h"

#include <vector>

#include "gtest/gtest.h"

namespace shmrpc::framed {
namespace {

// Has `count` chunks in use at the same time. One of them is the thread's own.
void Use(size_t count) {
  std::vector<ChunkPtr> chunks;
  for (size_t i = 0; i < count; ++i) chunks.push_back(ChunkPool::TakeForThread());
}

TEST(ChunkPoolTest, KeepsALimitedNumber) {
  Use(3 * ChunkPool::kKept);
  EXPECT_EQ(ChunkPool::Get().unused_chunks(), ChunkPool::kKept);
}

TEST(ChunkPoolTest, GivesBackWhatNobodyHasNeeded) {
  ChunkPool& pool = ChunkPool::Get();
  Use(20);
  EXPECT_GE(pool.unused_chunks(), 19);
  // They may have been in use until a moment ago.
  pool.Trim();
  EXPECT_FALSE(pool.Trim());
  EXPECT_EQ(pool.unused_chunks(), ChunkPool::kKeptForEver);
}

TEST(ChunkPoolTest, KeepsWhatIsNeededFromTimeToTime) {
  ChunkPool& pool = ChunkPool::Get();
  Use(20);
  pool.Trim();
  for (int period = 0; period < 3; ++period) {
    Use(11);
    EXPECT_TRUE(pool.Trim());
    EXPECT_EQ(pool.unused_chunks(), 10);
  }
}

}  // namespace
}  // namespace shmrpc::framed
