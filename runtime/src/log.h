#ifndef SHMRPC_RUNTIME_SRC_LOG_H_
#define SHMRPC_RUNTIME_SRC_LOG_H_

// The library's side of shmrpc/log.h. Thread-safe; nothing here waits, but for what says so.

#include <atomic>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shmrpc/log.h"

namespace shmrpc::internal {

// Whether anybody wants lines of this level; to be asked before a text is put together that is mostly not wanted.
bool LogEnabled(LogLevel level);

// One line. Control characters and bytes that are not UTF-8 are escaped; all else stays as it is.
void Log(LogLevel level, absl::string_view text);
inline void LogError(absl::string_view text) { Log(LogLevel::kError, text); }
inline void LogWarning(absl::string_view text) { Log(LogLevel::kWarning, text); }
inline void LogInfo(absl::string_view text) { Log(LogLevel::kInfo, text); }

// Ends the program with this line, for mistakes of its own that leave no other way. The line goes to the sink, or to
// stderr, before; for that it waits a tenth of a second at most.
[[noreturn]] void LogFatal(absl::string_view text);

// Notes what descriptor 2 is. To be called when a program begins to use the library: it may have been redirected since
// the process was started, and may get another meaning later. Only the first call in a process does anything.
void NoteLogDescriptor();

// Waits until all lines have been taken by the sink, for `patience` at most. True if they have. At the process's end
// that is done for a tenth of a second.
bool FlushLog(absl::Duration patience);

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

// Log at most once per second for each `limiter`; a line tells how many were left out before it.
void LogLimited(LogLevel level, LogLimiter& limiter, absl::string_view text);
inline void LogWarningLimited(LogLimiter& limiter, absl::string_view text) {
  LogLimited(LogLevel::kWarning, limiter, text);
}
inline void LogInfoLimited(LogLimiter& limiter, absl::string_view text) { LogLimited(LogLevel::kInfo, limiter, text); }

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_LOG_H_
