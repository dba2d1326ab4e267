#include "tests/bench/process.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::bench {
namespace {

TEST(BindProcessTest, TheProcessMayUseThoseCpusOnly) {
  const std::vector<int> allowed = AllowedCpus();
  ASSERT_FALSE(allowed.empty());
  // In a child: the binding stays.
  const absl::StatusOr<std::string> result = RunInChild(absl::Seconds(30), [&]() -> absl::StatusOr<std::string> {
    const absl::Status status = BindProcess(getpid(), {allowed.back()});
    if (!status.ok()) return status;
    const std::vector<int> now = AllowedCpus();
    return absl::StrCat(now.size(), " ", now.front());
  });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, absl::StrCat("1 ", allowed.back()));
}

TEST(MemoryInUseTest, GrowsByWhatIsTouched) {
  constexpr size_t kBytes = size_t{32} << 20;
  const absl::StatusOr<int64_t> before = MemoryInUse(getpid());
  ASSERT_TRUE(before.ok()) << before.status();
  void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const absl::StatusOr<int64_t> untouched = MemoryInUse(getpid());
  std::memset(memory, 1, kBytes);
  const absl::StatusOr<int64_t> after = MemoryInUse(getpid());
  munmap(memory, kBytes);
  ASSERT_TRUE(untouched.ok()) << untouched.status();
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_LT(*untouched - *before, int64_t{kBytes} / 2);
  EXPECT_GT(*after - *before, int64_t{kBytes} / 2);
}

TEST(MemoryInUseTest, AProcessThatIsNotThereIsAnError) { EXPECT_FALSE(MemoryInUse(1 << 30).ok()); }

TEST(RunInChildTest, AChildThatTakesTooLongIsEnded) {
  const absl::StatusOr<std::string> result = RunInChild(absl::Milliseconds(50), []() -> absl::StatusOr<std::string> {
    while (true) pause();
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
}

TEST(RunInChildTest, AChildThatDiesIsAnError) {
  EXPECT_TRUE(
      absl::IsInternal(RunInChild(absl::Seconds(30), []() -> absl::StatusOr<std::string> { _exit(3); }).status()));
}

}  // namespace
}  // namespace shmrpc::bench
