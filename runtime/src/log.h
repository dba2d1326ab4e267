#ifndef SHMRPC_RUNTIME_SRC_LOG_H_
#define SHMRPC_RUNTIME_SRC_LOG_H_

// What the library says to whoever operates the program: single lines on stderr, for what no status can carry to a
// caller. Thread-safe.

#include <atomic>
#include <cstdint>
#include <string_view>

namespace shmrpc::internal {

// Writes "shmrpc: TEXT" as one line in one piece. Bytes that are not printable are escaped.
void LogWarning(std::string_view text);

// For lines that a peer can cause as often as it likes: lets one through per second and counts the others.
//
//   static LogLimiter limiter;
//   LogWarningLimited(limiter, absl::StrCat("refused a connection from ", peer));
//
// Constant-initialised, so that it can be a static variable without a guard.
class LogLimiter {
 public:
  constexpr LogLimiter() = default;
  LogLimiter(const LogLimiter&) = delete;
  LogLimiter& operator=(const LogLimiter&) = delete;

  // True when a line may be written at `now_nanos` (of any clock that does not run backwards); `*suppressed` is then
  // the number of lines withheld since the last one.
  bool Allow(int64_t now_nanos, uint64_t* suppressed);

 private:
  std::atomic<int64_t> next_nanos_{0};
  std::atomic<uint64_t> suppressed_{0};
};

// LogWarning at most once per second for each `limiter`; a line tells how many were left out before it.
void LogWarningLimited(LogLimiter& limiter, std::string_view text);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_LOG_H_
