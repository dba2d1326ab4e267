#include "transports/framed/chunk_pool.h"

#include <thread>
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

// What a call does that is made by the destructor of a thread's variable, or of a static one, on a thread that has made
// calls before.
TEST(ChunkPoolTest, AThreadThatEndsTakesNoChunkThatThePoolHas) {
  struct CallsAtTheEnd {
    bool* same;
    ~CallsAtTheEnd() {
      const ChunkPtr first = ChunkPool::TakeForThread();
      const ChunkPtr second = ChunkPool::TakeForThread();
      *same = first == second;
    }
  };
  for (int i = 0; i < 3; ++i) {
    bool same = true;
    std::thread thread([&same] {
      static thread_local CallsAtTheEnd calls;  // made before the thread's chunk, destroyed after it
      calls.same = &same;
      const ChunkPtr chunk = ChunkPool::TakeForThread();
    });
    thread.join();
    EXPECT_FALSE(same);
  }
}

}  // namespace
}  // namespace shmrpc::framed
