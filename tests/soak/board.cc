#include "tests/soak/board.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "absl/status/status.h"

namespace shmrpc::soak {

// Processes share it: they may not hide locks of their own in it.
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

int64_t NowNanos() {
  const timespec now = SteadyTime::Now().ToTimespec();
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::StatusOr<Board*> Board::Create() {
  void* const memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, "no memory to share with servers and clients");
  return new (memory) Board();
}

void Board::Fail(absl::string_view text) {
  const int number = failure_count.fetch_add(1);
  if (number >= kMaxFailures) return;
  Failure& failure = failures[number];
  const size_t size = std::min(text.size(), kFailureBytes - 1);
  std::memcpy(failure.text, text.data(), size);
  failure.text[size] = '\0';
  failure.written.store(true, std::memory_order_release);
}

std::vector<std::string> Board::Failures() const {
  std::vector<std::string> texts;
  for (const Failure& failure : failures) {
    if (failure.written.load(std::memory_order_acquire)) texts.emplace_back(failure.text);
  }
  return texts;
}

}  // namespace shmrpc::soak
