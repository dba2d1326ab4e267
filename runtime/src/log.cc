#include "runtime/src/log.h"

#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"

namespace shmrpc::internal {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

int64_t MonotonicNanos() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosPerSecond + now.tv_nsec;
}

}  // namespace

void LogWarning(std::string_view text) {
  const int saved_errno = errno;
  const std::string line = absl::StrCat("shmrpc: ", absl::Utf8SafeCHexEscape(ToAbsl(text)), "\n");
  // One write, so that the lines of several threads and processes do not mix. Nobody could be told of a failure.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  errno = saved_errno;
}

bool LogLimiter::Allow(int64_t now_nanos, uint64_t* suppressed) {
  int64_t next = next_nanos_.load(std::memory_order_relaxed);
  if (now_nanos < next ||
      !next_nanos_.compare_exchange_strong(next, now_nanos + kNanosPerSecond, std::memory_order_relaxed)) {
    suppressed_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  *suppressed = suppressed_.exchange(0, std::memory_order_relaxed);
  return true;
}

void LogWarningLimited(LogLimiter& limiter, std::string_view text) {
  uint64_t suppressed = 0;
  if (!limiter.Allow(MonotonicNanos(), &suppressed)) return;
  if (suppressed == 0) {
    LogWarning(text);
  } else {
    LogWarning(absl::StrCat(ToAbsl(text), " (and ", suppressed, " more lines of this kind were left out)"));
  }
}

}  // namespace shmrpc::internal
