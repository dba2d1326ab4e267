#ifndef SHMRPC_TESTS_SOAK_BOARD_H_
#define SHMRPC_TESTS_SOAK_BOARD_H_

// The memory that the supervisor of a soak shares with its servers and clients. It outlives each of them, so nothing
// that a process has counted or noticed goes with it when it is killed. Plain memory, all zeros at first, with no
// pointers; everything is atomic. Its size is fixed: however long a soak runs, the checker does not grow.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shmrpc/steady_time.h"
#include "tests/soak/plan.h"
#include "tests/soak/run_table.h"

namespace shmrpc::soak {

inline constexpr int kMaxServers = 4;
inline constexpr int kMaxClients = 32;
inline constexpr int kMaxThreads = 16;

// How a call has ended, for the summary: its status code, or one of two more.
inline constexpr int kStatusCodes = 17;
inline constexpr int kAsAsked = kStatusCodes;        // the handler said what it was asked to say
inline constexpr int kAbandoned = kStatusCodes + 1;  // the stream was destroyed, and no status asked for
inline constexpr int kOutcomes = kStatusCodes + 2;

// The clock that all processes of the soak share, in nanoseconds; never 0.
int64_t NowNanos();

enum class Phase : int {
  kTraffic,
  kQuiet,  // clients begin no more calls, and destroy their channels
  kEnd,    // processes end
};

// What a process says of its memory; the rest is found in /proc.
struct HeapState {
  std::atomic<int64_t> base_bytes;  // in use when it began, before any call
  std::atomic<int64_t> now_bytes;   // in use now; said in Phase::kQuiet
};

// One address, with one server process after the other.
struct ServerState {
  std::atomic<uint32_t> incarnation;  // the number of the latest process, from 1
  std::atomic<uint32_t> ready;        // the latest that serves
  std::atomic<int64_t> ready_nanos;   // since when
  // What the supervisor is about to do, always said before it does it: the latest incarnation that it ends, in whatever
  // way, and how many it has killed.
  std::atomic<uint32_t> doomed;
  std::atomic<uint32_t> kills;
  HeapState heap;
};

struct WorkerState {
  std::atomic<uint64_t> id;          // of the call, or of the first of those that it has begun together
  std::atomic<int64_t> begun_nanos;  // 0: no call
};

struct ClientState {
  // Stops that were long enough for a server to give the client up; counted before and after each.
  std::atomic<uint32_t> long_stops;
  std::atomic<int64_t> continued_nanos;  // when the latest stop, of whatever length, was over
  std::atomic<uint32_t> quiet;           // the process of that number has destroyed its channels
  std::atomic<uint64_t> outcomes[kKinds][kStyles][kOutcomes];
  std::atomic<uint64_t> bytes_sent, bytes_received, items_sent, items_received, channels;
  WorkerState workers[kMaxThreads];
  HeapState heap;
};

struct Board {
  static constexpr int kMaxFailures = 64;
  static constexpr size_t kFailureBytes = 768;

  // Fresh shared memory, for this process and those that it forks. Never unmapped.
  static absl::StatusOr<Board*> Create();

  // Notes what has gone wrong, also from a process that is killed next. Only the first kMaxFailures keep their text.
  void Fail(absl::string_view text);
  std::vector<std::string> Failures() const;

  Phase phase() const { return static_cast<Phase>(phase_word.load()); }

  std::atomic<int> phase_word;
  ServerState servers[kMaxServers];
  ClientState clients[kMaxClients];
  RunTable runs;

  std::atomic<int> failure_count;
  struct Failure {
    std::atomic<bool> written;
    char text[kFailureBytes];
  } failures[kMaxFailures];
};

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_BOARD_H_
