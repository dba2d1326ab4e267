#include "runtime/src/log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/src/fork.h"
#include "runtime/src/log_descriptor.h"
#include "runtime/src/thread.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {
namespace internal {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;
constexpr const char* kLevelVariable = "SHMRPC_LOG";
// A line is cut here: 4096 bytes are what a pipe takes in one piece.
constexpr size_t kLongestText = 3900;
constexpr absl::Duration kIdleTime = absl::Seconds(1);
constexpr absl::Duration kPatienceAtExit = absl::Milliseconds(100);

int64_t MonotonicNanos() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosPerSecond + now.tv_nsec;
}

// ---- Which lines are wanted.

constexpr int kNotRead = -1;
constinit std::atomic<int> least_severe{kNotRead};

int ReadLevel() {
  const char* const value = secure_getenv(kLevelVariable);
  int level = static_cast<int>(LogLevel::kWarning);
  bool known = value == nullptr || *value == '\0';
  for (const LogLevel each : {LogLevel::kError, LogLevel::kWarning, LogLevel::kInfo, LogLevel::kDebug}) {
    if (known || LogLevelName(each) != value) continue;
    level = static_cast<int>(each);
    known = true;
  }
  int before = kNotRead;
  if (!least_severe.compare_exchange_strong(before, level)) return before;
  if (!known) {
    LogWarning(absl::StrCat("the environment variable ", kLevelVariable, " is \"", value,
                            "\"; it is one of error, warning, info, debug (warning is assumed)"));
  }
  return level;
}

// ---- Lines.

// The length of the UTF-8 character at the beginning of `text`, which is not empty; 0 when there is none.
size_t CharacterLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  size_t length = 0;
  uint32_t least = 0;
  uint32_t code = byte(0);
  if (code < 0x80) return 1;
  if (code >= 0xc2 && code < 0xe0) {
    length = 2, least = 0x80, code &= 0x1f;
  } else if (code >= 0xe0 && code < 0xf0) {
    length = 3, least = 0x800, code &= 0x0f;
  } else if (code >= 0xf0 && code < 0xf5) {
    length = 4, least = 0x10000, code &= 0x07;
  }
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3f);
  }
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  const bool control = code < 0xa0;  // U+0080 to U+009F: terminals obey them
  return code < least || code > 0x10ffff || surrogate || control ? 0 : length;
}

std::string OneLine(absl::string_view text) {
  std::string line;
  line.reserve(text.size());
  while (!text.empty() && line.size() < kLongestText) {
    const unsigned char first = static_cast<unsigned char>(text[0]);
    const size_t length = first < 0x20 || first == 0x7f ? 0 : CharacterLength(text);
    if (length > 0) {
      line.append(text.data(), length);
    } else if (first == '\n') {
      line += "\\n";
    } else {
      absl::StrAppendFormat(&line, "\\x%02x", first);
    }
    text.remove_prefix(length > 0 ? length : 1);
  }
  if (!text.empty()) absl::StrAppend(&line, "... (", text.size(), " bytes more)");
  return line;
}

struct Line {
  LogLevel level;
  std::chrono::system_clock::time_point time;
  std::string text;
};

// Without the C library's conversions, which take a lock that the child of a fork() may find held.
std::string WithTime(const Line& line) {
  const auto day = std::chrono::floor<std::chrono::days>(line.time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(std::chrono::floor<std::chrono::microseconds>(line.time - day));
  return absl::StrFormat("%04d-%02u-%02uT%02d:%02d:%02d.%06dZ %s shmrpc[%d]: %s\n", static_cast<int>(date.year()),
                         static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                         clock.minutes().count(), clock.seconds().count(), clock.subseconds().count(),
                         LogLevelName(line.level), getpid(), line.text);
}

// ---- From the threads that have something to say to the sink.

// Null: stderr. Whole at any moment, for the child of a fork(), which keeps its parent's.
constinit std::atomic<const LogSink*> sink{nullptr};

// The queue, and the thread that empties it. The thread is there only while there are lines, and a second longer.
class LogQueue {
 public:
  void Add(LogLevel level, std::string text) {
    const Line line = {level, std::chrono::system_clock::now(), std::move(text)};
    {
      MutexLock lock(&mutex_);
      if (lines_.size() >= kLogQueueLines) {
        ++left_out_;
        return;
      }
      lines_.push_back(line);
      added_.Signal();
      if (thread_runs_) return;
      absl::StatusOr<Thread> thread = StartThread("shmrpc-log", [this] { Serve(); });
      thread_runs_ = thread.ok();
      if (thread.ok()) return thread->detach();
      lines_.pop_back();
    }
    // Rather here than not at all, if that takes no time. What the program's sink does is not known.
    if (sink.load() != nullptr || !Descriptor2HasRoom()) return;
    WriteToDescriptor2(WithTime(line));
  }

  bool Flush(absl::Duration patience) {
    const SteadyTime end = SteadyTime::Now() + patience;
    MutexLock lock(&mutex_);
    while (!lines_.empty() || busy_) {
      if (this_is_log_thread || emptied_.WaitUntil(&mutex_, end)) return false;
    }
    return true;
  }

  // Waits until the sink that was taken away is not in use.
  // False: it is in use by the calling thread.
  bool AwaitSink() {
    if (this_is_log_thread) return false;
    MutexLock lock(&mutex_);
    while (busy_) emptied_.Wait(&mutex_);
    return true;
  }

 private:
  void Serve() {
    this_is_log_thread = true;
    mutex_.Lock();
    for (;;) {
      const SteadyTime idle_until = SteadyTime::Now() + kIdleTime;
      bool expired = false;
      while (lines_.empty() && !expired) expired = added_.WaitUntil(&mutex_, idle_until);
      if (lines_.empty()) break;
      Line line = std::move(lines_.front());
      lines_.pop_front();
      const uint64_t left_out = std::exchange(left_out_, 0);
      busy_ = true;
      mutex_.Unlock();
      if (left_out > 0) absl::StrAppend(&line.text, " (the log has no room for ", left_out, " lines that came later)");
      Deliver(line);
      mutex_.Lock();
      busy_ = false;
      emptied_.SignalAll();
    }
    thread_runs_ = false;
    mutex_.Unlock();
  }

  static void Deliver(const Line& line) {
    if (const LogSink* const taken = sink.load()) {
      (*taken)(line.level, line.text);
    } else {
      WriteToDescriptor2(WithTime(line));
    }
  }

  static constinit thread_local bool this_is_log_thread;

  Mutex mutex_;
  CondVar added_;
  CondVar emptied_;  // or a line less
  std::deque<Line> lines_ ABSL_GUARDED_BY(mutex_);
  uint64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;  // the thread is with the sink
  bool thread_runs_ ABSL_GUARDED_BY(mutex_) = false;
};

constinit thread_local bool LogQueue::this_is_log_thread = false;

constinit PerProcess<LogQueue> queue;

// The program ends: what it was told shortly before is what its operator wants to read.
[[gnu::destructor]] void FlushAtExit() { FlushLog(kPatienceAtExit); }

}  // namespace

bool LogEnabled(LogLevel level) {
  int least = least_severe.load(std::memory_order_relaxed);
  if (least == kNotRead) least = ReadLevel();
  return static_cast<int>(level) <= least;
}

void Log(LogLevel level, absl::string_view text) {
  if (!LogEnabled(level)) return;
  const int saved_errno = errno;
  queue.Get().Add(level, OneLine(text));
  errno = saved_errno;
}

void LogFatal(absl::string_view text) {
  NoteLogDescriptor();
  LogError(text);
  (void)FlushLog(kPatienceAtExit);
  std::abort();
}

void NoteLogDescriptor() { NoteDescriptor2(/*again=*/false); }

bool FlushLog(absl::Duration patience) {
  LogQueue* const existing = queue.Existing();
  return existing == nullptr || existing->Flush(patience);
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

void LogLimited(LogLevel level, LogLimiter& limiter, absl::string_view text) {
  uint64_t suppressed = 0;
  if (!LogEnabled(level) || !limiter.Allow(MonotonicNanos(), &suppressed)) return;
  if (suppressed == 0) {
    Log(level, text);
  } else {
    Log(level, absl::StrCat(text, " (and ", suppressed, " more lines of this kind were left out)"));
  }
}

}  // namespace internal

std::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "unknown";
}

void SetLogSink(LogSink new_sink) {
  const bool to_stderr = new_sink == nullptr;
  if (to_stderr) internal::NoteDescriptor2(/*again=*/true);
  const LogSink* const before = internal::sink.exchange(to_stderr ? nullptr : new LogSink(std::move(new_sink)));
  if (before == nullptr) return;
  if (internal::queue.Get().AwaitSink()) delete before;  // one that replaces itself is not worth more than a leak
}

void SetLogLevel(LogLevel level) { internal::least_severe.store(static_cast<int>(level)); }

}  // namespace shmrpc
