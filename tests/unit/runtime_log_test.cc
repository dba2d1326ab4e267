#include "runtime/src/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/src/log_descriptor.h"
#include "shmrpc/mutex.h"
#include "shmrpc/options.h"
#include "tests/sanitizers.h"

namespace shmrpc::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

constexpr absl::Duration kLong = absl::Seconds(60);

// The lines of a test, by a sink of its own.
class Lines {
 public:
  Lines() {
    SetLogSink([this](LogLevel level, std::string_view text) {
      MutexLock lock(&mutex_);
      while (held_) released_.Wait(&mutex_);
      lines_.push_back(std::string(LogLevelName(level)) + " " + std::string(text));
    });
  }
  ~Lines() { SetLogSink(nullptr); }

  std::vector<std::string> Take() {
    EXPECT_TRUE(FlushLog(kLong));
    MutexLock lock(&mutex_);
    return std::exchange(lines_, {});
  }
  void Hold(bool hold) {
    MutexLock lock(&mutex_);
    held_ = hold;
    released_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar released_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mutex_);
};

TEST(LogTest, WritesOneLineWhateverTheText) {
  Lines lines;
  LogWarning("two\nlines");
  LogWarning("it's \"quoted\" and back\\slashed, \xc3\xa9 and \xe2\x82\xac");
  LogWarning(absl::string_view("\x1b[31m \x7f \xff \xc3( \xc2\x9b \xed\xa0\x80 \0.", 22));
  EXPECT_THAT(lines.Take(),
              ElementsAre("warning two\\nlines", "warning it's \"quoted\" and back\\slashed, \xc3\xa9 and \xe2\x82\xac",
                          "warning \\x1b[31m \\x7f \\xff \\xc3( \\xc2\\x9b \\xed\\xa0\\x80 \\x00."));
  LogWarning(std::string(10'000, 'x'));
  EXPECT_THAT(lines.Take(), ElementsAre(HasSubstr("x... (6100 bytes more)")));
}

TEST(LogTest, WritesLinesOfTheLevelAskedFor) {
  Lines lines;
  SetLogLevel(LogLevel::kError);
  LogWarning("not this");
  LogError("this");
  SetLogLevel(LogLevel::kInfo);
  Log(LogLevel::kDebug, "nor this");
  LogInfo("but this");
  SetLogLevel(LogLevel::kWarning);
  LogInfo("and not this");
  EXPECT_THAT(lines.Take(), ElementsAre("error this", "info but this"));
}

TEST(LogTest, ASinkThatBlocksHoldsUpNobodyAndLosesWhatHasNoRoom) {
  Lines lines;
  lines.Hold(true);
  constexpr size_t kMore = 50;
  // One of them may be with the sink already.
  for (size_t i = 0; i < kLogQueueLines + 1 + kMore; ++i) LogWarning("a line");
  EXPECT_FALSE(FlushLog(absl::Milliseconds(1)));
  lines.Hold(false);
  const std::vector<std::string> written = lines.Take();
  EXPECT_GE(written.size(), kLogQueueLines);
  EXPECT_LE(written.size(), kLogQueueLines + 1);
  EXPECT_THAT(written, testing::Contains(HasSubstr("no room for")));
}

TEST(LogTest, ASinkMayLogAndReplaceItself) {
  static Mutex mutex;
  static std::vector<std::string> texts;
  SetLogSink([](LogLevel, std::string_view text) {
    {
      MutexLock lock(&mutex);
      texts.emplace_back(text);
    }
    if (text != "first") return;
    LogWarning("second");
    SetLogSink([](LogLevel, std::string_view replaced) {
      MutexLock lock(&mutex);
      texts.push_back("replaced: " + std::string(replaced));
    });
  });
  LogWarning("first");
  EXPECT_TRUE(FlushLog(kLong));
  SetLogSink(nullptr);
  MutexLock lock(&mutex);
  EXPECT_THAT(texts, ElementsAre("first", "replaced: second"));
}

// ThreadSanitizer does not let the child of a process with threads start one.
#if !SHMRPC_TSAN

// How a child that does `body` ends.
int InChild(const std::function<void()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    body();
    _exit(0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

std::string ReadAll(int fd) {
  std::string all;
  char bytes[4096];
  for (ssize_t got; (got = read(fd, bytes, sizeof bytes)) > 0;) all.append(bytes, static_cast<size_t>(got));
  return all;
}

TEST(LogDescriptorTest, ALineHasItsTimeLevelAndProcess) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(InChild([&] {
              dup2(ends[1], 2);
              SetLogSink(nullptr);
              LogError("something broke");
              if (!FlushLog(kLong)) _exit(1);
            }),
            0);
  close(ends[1]);
  EXPECT_THAT(ReadAll(ends[0]), MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z error "
                                             "shmrpc\\[[0-9]+\\]: something broke\n"));
  close(ends[0]);
}

TEST(LogDescriptorTest, APipeThatNobodyReadsHoldsUpNobodyButTheLog) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_GT(fcntl(ends[1], F_SETPIPE_SZ, 4096), 0);
  EXPECT_EQ(InChild([&] {
              dup2(ends[1], 2);
              SetLogSink(nullptr);
              for (int i = 0; i < 1000; ++i) LogWarning(std::string(1000, 'x'));
              if (FlushLog(absl::Milliseconds(10))) _exit(1);
              exit(0);  // waits for the log, and not for ever
            }),
            0);
  close(ends[1]);
  close(ends[0]);
}

TEST(LogDescriptorTest, APipeWhoseReaderHasGoneEndsNobody) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(InChild([&] {
              dup2(ends[1], 2);
              close(ends[0]);
              SetLogSink(nullptr);
              LogWarning("to nobody");
              if (!FlushLog(kLong)) _exit(1);
              WriteToDescriptor2("nor from this thread\n");
            }),
            0);
  close(ends[0]);
  close(ends[1]);
}

TEST(LogDescriptorTest, WhatTheProgramHasOpenedInPlaceOfStderrIsLeftAlone) {
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  char path[] = "/tmp/shmrpc_log_XXXXXX";
  const int file = mkstemp(path);
  ASSERT_GE(file, 0);
  EXPECT_EQ(InChild([&] {
              NoteDescriptor2(/*again=*/true);
              dup2(sockets[0], 2);
              WriteToDescriptor2("into a connection\n");
              dup2(file, 2);
              WriteToDescriptor2("into a file\n");
              close(2);
              WriteToDescriptor2("nowhere\n");
              const int appended = open(path, O_WRONLY | O_APPEND);
              if (appended != 2) _exit(1);
              WriteToDescriptor2("a log that was rotated\n");
            }),
            0);
  close(sockets[0]);
  EXPECT_EQ(ReadAll(sockets[1]), "");
  close(sockets[1]);
  EXPECT_EQ(ReadAll(file), "a log that was rotated\n");
  close(file);
  unlink(path);
}

#endif  // !SHMRPC_TSAN

TEST(LogTest, LimitsToOneLinePerSecondAndCountsTheRest) {
  constexpr int64_t kSecond = 1'000'000'000;
  LogLimiter limiter;
  uint64_t suppressed = 99;
  EXPECT_TRUE(limiter.Allow(5 * kSecond, &suppressed));
  EXPECT_EQ(suppressed, 0u);
  EXPECT_FALSE(limiter.Allow(5 * kSecond, &suppressed));
  EXPECT_FALSE(limiter.Allow(6 * kSecond - 1, &suppressed));
  EXPECT_TRUE(limiter.Allow(6 * kSecond, &suppressed));
  EXPECT_EQ(suppressed, 2u);
}

TEST(OptionsTest, NamesAndValuesFitTogether) {
  for (auto preference :
       {TransportPreference::kAuto, TransportPreference::kShm, TransportPreference::kTcp, TransportPreference::kUnix}) {
    EXPECT_EQ(ParseTransportPreference(TransportPreferenceName(preference)).value(), preference);
  }
  for (auto mode : {WaitMode::kAdaptive, WaitMode::kLatency, WaitMode::kEfficient}) {
    EXPECT_EQ(ParseWaitMode(WaitModeName(mode)).value(), mode);
  }
  EXPECT_EQ(ParseWaitMode("fast").status(),
            absl::InvalidArgumentError("unknown wait mode \"fast\"; it is one of: adaptive, latency, efficient"));
  EXPECT_EQ(ParseTransportPreference("").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shmrpc::internal
