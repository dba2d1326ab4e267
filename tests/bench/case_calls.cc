// Closed loops of calls: unary, threads, clients, idle and slow-handler, where a thread makes its next call when the
// last one is over, and pipelined, where the end of a call starts the next one.

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "shmrpc/mutex.h"
#include "tests/bench/cases.h"
#include "tests/bench/clock.h"
#include "tests/bench/closed_loop.h"
#include "tests/bench/payload.h"

namespace shmrpc::bench {
namespace {

absl::StatusOr<CaseResult> RunCalls(ClientSide& client, int slot, Clock::time_point begin, absl::Duration duration) {
  return ClosedLoop(client, slot, begin, duration, [&] { return client.Call(slot); });
}

absl::StatusOr<CaseResult> RunUnary(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  return RunCalls(client, 0, Clock::now(), duration);
}

// Each thread has a slot.
absl::StatusOr<CaseResult> RunThreads(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  std::vector<absl::StatusOr<CaseResult>> results(shape.amount);
  std::vector<std::thread> threads;
  const Clock::time_point begin = Clock::now();
  for (int slot = 0; slot < shape.amount; ++slot) {
    threads.emplace_back([&, slot] { results[slot] = RunCalls(client, slot, begin, duration); });
  }
  for (std::thread& thread : threads) thread.join();
  CaseResult all;
  all.elapsed = absl::FromChrono(Clock::now() - begin);
  for (const absl::StatusOr<CaseResult>& result : results) {
    if (!result.ok()) return result.status();
    all.latencies.Merge(result->latencies);
  }
  return all;
}

// The fast calls are measured. The slow ones go over the same connection, from threads of their own, one after the
// other.
absl::StatusOr<CaseResult> RunSlowHandler(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  std::atomic<bool> over = false;
  std::vector<absl::Status> outcomes(shape.amount);
  std::vector<std::thread> threads;
  for (int i = 0; i < shape.amount; ++i) {
    threads.emplace_back([&, i] {
      do {
        outcomes[i] = client.Sleep(shape.sleep);
      } while (!over && outcomes[i].ok());
    });
  }
  absl::StatusOr<CaseResult> result = RunUnary(client, shape, duration);
  over = true;
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& outcome : outcomes) {
    if (!outcome.ok()) return outcome;
  }
  return result;
}

// Keeps every slot busy: the end of a slot's call starts its next one, on the thread that told the end.
class Pipeline final : public ClientSide::Observer {
 public:
  Pipeline(ClientSide& client, int slots, absl::Duration duration)
      : client_(client),
        begin_(Clock::now()),
        end_(begin_ + absl::ToChronoNanoseconds(duration)),
        slots_(slots),
        running_(slots) {}

  absl::StatusOr<CaseResult> Run() {
    for (int slot = 0; slot < static_cast<int>(slots_.size()); ++slot) StartNext(slot);
    MutexLock lock(&mutex_);
    while (running_ > 0) all_done_.Wait(&mutex_);
    if (!error_.ok()) return error_;
    CaseResult result;
    for (const Slot& slot : slots_) result.latencies.Merge(slot.latencies);
    result.elapsed = absl::FromChrono(last_done_ - begin_);
    return result;
  }

  void OnDone(int slot, const absl::Status& status) override {
    const Clock::time_point now = Clock::now();
    absl::Status outcome = status;
    if (outcome.ok()) outcome = CheckReply(client_.request(slot), client_.reply(slot));
    if (outcome.ok()) {
      slots_[slot].latencies.Add(NanosBetween(slots_[slot].began, now));
      if (now < end_) return StartNext(slot);
    }
    MutexLock lock(&mutex_);
    error_.Update(outcome);
    last_done_ = std::max(last_done_, now);
    if (--running_ == 0) all_done_.Signal();
  }

 private:
  // Touched only between the end of a slot's call and the start of its next one, so by one thread at a time. On lines
  // of their own: neighbours may be with different threads.
  struct alignas(64) Slot {
    LatencyHistogram latencies;
    Clock::time_point began;
  };

  void StartNext(int slot) {
    SetNextNumber(client_.request(slot));
    slots_[slot].began = Clock::now();
    client_.Start(slot, this);
  }

  ClientSide& client_;
  const Clock::time_point begin_;
  const Clock::time_point end_;
  std::vector<Slot> slots_;

  Mutex mutex_;
  CondVar all_done_;
  int running_ ABSL_GUARDED_BY(mutex_);  // slots that will start or end further calls
  Clock::time_point last_done_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<CaseResult> RunPipelined(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  return Pipeline(client, shape.amount, duration).Run();
}

}  // namespace

std::vector<CaseInfo> CallCases() {
  return {
      {.name = "unary", .run = RunUnary},
      {.name = "pipelined", .axis = Axis::kConcurrency, .needs = kPipelining, .throughput = true, .run = RunPipelined},
      {.name = "threads",
       .axis = Axis::kThreads,
       .needs = kThreads,
       .throughput = true,
       .crowded = true,
       .run = RunThreads},
      {.name = "clients",
       .axis = Axis::kClients,
       .needs = kClients,
       .throughput = true,
       .crowded = true,
       .run = RunUnary},
      {.name = "idle", .axis = Axis::kConnections, .needs = kConnections, .run = RunUnary},
      {.name = "slow-handler", .axis = Axis::kSleeping, .needs = kSleeping | kThreads, .run = RunSlowHandler},
  };
}

}  // namespace shmrpc::bench
