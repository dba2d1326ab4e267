#include "tests/soak/watched.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/sanitizers.h"

namespace shmrpc::soak {
namespace {

constexpr int64_t kMiB = 1 << 20;

// Memory in use that need not come back: the pools of messages and chunks that live as long as the process. Far less
// than one small leak makes of the calls of a short run.
constexpr int64_t kHeapSlackBytes = 2 * kMiB;

// The threads of the deadline timers, and those of a poller that stay when nothing is to be done.
constexpr int kTimerThreads = 2;
constexpr int kPollerThreads = 3;
// A client's poller has an epoll and an eventfd. (A server has its poller before any call.)
constexpr int kPollerDescriptors = 2;

// ThreadSanitizer has threads of its own, which the supervisor, whose threads are a client's base line, has not got
// yet.
constexpr int kSanitizerThreads = SHMRPC_TSAN ? 2 : 0;

}  // namespace

// A thread that has slept in a synchronous call, or in a handler, keeps a descriptor for as long as it lives; those of
// a server that stay may all have done so.
Watched WatchedServer(const std::string& name, bool whole_time, const Holdings& base) {
  Watched watched;
  watched.name = name;
  watched.whole_time = whole_time;
  watched.kept_threads = kTimerThreads;
  watched.kept_descriptors = kPollerThreads;
  watched.base = base;
  watched.highest = base;
  return watched;
}

// The client's own threads, which wait for calls, are gone at the end.
Watched WatchedClient(const std::string& name, bool whole_time, const Holdings& base) {
  Watched watched;
  watched.name = name;
  watched.whole_time = whole_time;
  watched.kept_threads = kTimerThreads + kPollerThreads + kSanitizerThreads;
  watched.kept_descriptors = kPollerDescriptors;
  watched.base = base;
  watched.highest = base;
  return watched;
}

void Trend::Add(int third, int64_t bytes) {
  highest[third] = std::max(highest[third], bytes);
  sum[third] += bytes;
  ++samples[third];
}

void NoteHighest(const Holdings& now, Holdings* highest) {
  highest->descriptors = std::max(highest->descriptors, now.descriptors);
  highest->shared_mappings = std::max(highest->shared_mappings, now.shared_mappings);
  highest->mappings = std::max(highest->mappings, now.mappings);
  highest->threads = std::max(highest->threads, now.threads);
  highest->private_bytes = std::max(highest->private_bytes, now.private_bytes);
  highest->shared_bytes = std::max(highest->shared_bytes, now.shared_bytes);
}

std::string NotGivenBack(const Watched& watched, bool idle) {
  const Holdings& base = watched.base;
  const Holdings& last = watched.last;
  std::string text;
  const auto compare = [&text](absl::string_view what, int64_t before, int64_t now, int64_t slack) {
    if (now <= before + slack) return;
    absl::StrAppend(&text, text.empty() ? "" : ", ", now, " ", what, " (before any call: ", before, ", and ", slack,
                    " may stay)");
  };
  compare("descriptors", base.descriptors, last.descriptors, watched.kept_descriptors + (idle ? 0 : last.threads));
  compare("mappings of shared memory", base.shared_mappings, last.shared_mappings, 0);
  if (!idle) return text;
  compare("threads", base.threads, last.threads, watched.kept_threads);
  compare("bytes of memory in use", watched.heap_base, watched.heap_last, kHeapSlackBytes);
  return text;
}

std::string Grown(const Watched& watched) {
  const int64_t first = watched.trend.mean(0);
  const int64_t last = watched.trend.mean(2);
  if (!watched.whole_time || watched.trend.samples[0] == 0 || last <= first + first / 2 + 32 * kMiB) return "";
  return absl::StrCat(watched.name, " had ", first / kMiB,
                      " MiB of resident memory in the first third of the time and ", last / kMiB,
                      " MiB in the last, on average");
}

}  // namespace shmrpc::soak
