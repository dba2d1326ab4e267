#ifndef SHMRPC_TESTS_CONFORMANCE_CAPTURED_LOG_H_
#define SHMRPC_TESTS_CONFORMANCE_CAPTURED_LOG_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shmrpc/log.h"
#include "shmrpc/mutex.h"
#include "sync.h"

namespace shmrpc::conformance {

// Takes what the library logs while it exists.
class CapturedLog {
 public:
  CapturedLog() {
    SetLogSink([this](LogLevel level, std::string_view text) {
      MutexLock lock(&mutex_);
      lines_.push_back(absl::StrCat(std::string(LogLevelName(level)), ": ", std::string(text)));
    });
  }
  ~CapturedLog() { SetLogSink(nullptr); }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;

  // "LEVEL: TEXT" each.
  std::vector<std::string> lines() const {
    MutexLock lock(&mutex_);
    return lines_;
  }
  std::string text() const { return absl::StrJoin(lines(), "\n"); }

  // Lines come a moment after what they tell of.
  bool WaitFor(std::string_view part, absl::Duration timeout = kHangGuard) const {
    return Eventually([&] { return text().find(part) != std::string::npos; }, timeout);
  }

 private:
  mutable Mutex mutex_;
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_CAPTURED_LOG_H_
