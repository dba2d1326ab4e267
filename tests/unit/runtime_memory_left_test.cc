// What control groups leave a process, read from files that look like theirs.

#include "runtime/src/memory_left.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace shmrpc::internal {
namespace {

class MemoryLeftTest : public ::testing::Test {
 protected:
  MemoryLeftTest() {
    char folder[] = "/tmp/shmrpc-memory-left-XXXXXX";
    EXPECT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  ~MemoryLeftTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::optional<MemoryLeft> Get() const { return GetMemoryLeft(folder_ / "membership", folder_ / "mount"); }
  // -1: no limit.
  int64_t Left() const {
    const std::optional<MemoryLeft> left = Get();
    return left.has_value() ? static_cast<int64_t>(left->bytes) : -1;
  }

  std::filesystem::path folder_;
};

TEST_F(MemoryLeftTest, WithoutGroupsThereIsNoLimit) {
  EXPECT_EQ(Left(), -1);
  Write("membership", "");
  EXPECT_EQ(Left(), -1);
  Write("membership", "nonsense\n0::/a\n1:memory:/b\n");
  EXPECT_EQ(Left(), -1);
  Write("mount/memory.max", "many\n");
  EXPECT_EQ(Left(), -1);
}

TEST_F(MemoryLeftTest, Version2) {
  Write("membership", "0::/a/b\n");
  Write("mount/a/b/memory.max", "max\n");
  Write("mount/a/b/memory.current", "500\n");
  EXPECT_EQ(Left(), -1);
  Write("mount/a/b/memory.max", "1000\n");
  EXPECT_EQ(Left(), 500);
  EXPECT_EQ(Get()->group, (folder_ / "mount/a/b").string());
  // What was read from files the kernel takes back; what is in memfds it does not.
  Write("mount/a/b/memory.stat", "anon 100\nfile 400\nshmem 80\ninactive_file 20\nactive_file 300\n");
  EXPECT_EQ(Left(), 820);
  Write("mount/a/b/memory.current", "1000000\n");
  EXPECT_EQ(Left(), 0);
}

TEST_F(MemoryLeftTest, TheTightestGroupCounts) {
  Write("membership", "0::/a/b\n");
  Write("mount/a/b/memory.max", "1000\n");
  Write("mount/a/b/memory.current", "100\n");
  Write("mount/a/memory.max", "2000\n");
  Write("mount/a/memory.current", "1990\n");
  Write("mount/memory.max", "3000\n");
  Write("mount/memory.current", "2000\n");
  EXPECT_EQ(Left(), 10);
  EXPECT_EQ(Get()->group, (folder_ / "mount/a").string());
  // In a container that does not see the groups above its own, the names of these do not exist.
  Write("membership", "0::/not/here\n");
  EXPECT_EQ(Left(), 1000);
}

TEST_F(MemoryLeftTest, Version1) {
  Write("membership", "5:cpu,cpuacct:/x\n4:memory:/m\n0::/\n");
  Write("mount/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("mount/memory/memory.usage_in_bytes", "77\n");
  EXPECT_EQ(Left(), -1);
  Write("mount/memory/m/memory.limit_in_bytes", "1000\n");
  Write("mount/memory/m/memory.usage_in_bytes", "600\n");
  Write("mount/memory/m/memory.stat", "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 40\n");
  EXPECT_EQ(Left(), 490);
}

}  // namespace
}  // namespace shmrpc::internal
