// Calls with pauses between them, which is where waiting well is difficult: paced, one call at a time at a given rate,
// and bursts, some calls one after the other and then none for a while.

#include <chrono>
#include <thread>

#include "tests/bench/cases.h"
#include "tests/bench/clock.h"
#include "tests/bench/payload.h"

namespace shmrpc::bench {
namespace {

// Makes a call of slot 0, checks its reply, and returns when the call was over, before the check.
absl::StatusOr<Clock::time_point> CallOnce(ClientSide& client) {
  const absl::Span<char> request = client.request(0);
  absl::Status status = client.Call(0);
  const Clock::time_point after = Clock::now();
  if (status.ok()) status = CheckReply(request, client.reply(0));
  if (!status.ok()) return status;
  return after;
}

// A call's latency counts from its beginning, or from when it should have begun if the one before it was not over then:
// a slow call does not hide that others came late.
absl::StatusOr<CaseResult> RunPaced(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  CaseResult result;
  const auto interval = std::chrono::nanoseconds(std::chrono::seconds(1)) / shape.amount;
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = begin + absl::ToChronoNanoseconds(duration);
  Clock::time_point due = begin;
  do {
    Clock::time_point from = due;
    if (Clock::now() < due) {
      std::this_thread::sleep_until(due);
      from = Clock::now();  // that the timer was late is not the peer's fault
    }
    SetNextNumber(client.request(0));
    const absl::StatusOr<Clock::time_point> after = CallOnce(client);
    if (!after.ok()) return after.status();
    result.latencies.Add(NanosBetween(from, *after));
    due += interval;
  } while (due < end);
  // The pause after the last call belongs to it.
  std::this_thread::sleep_until(end);
  result.elapsed = absl::FromChrono(Clock::now() - begin);
  return result;
}

absl::StatusOr<CaseResult> RunBursts(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  CaseResult result;
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = begin + absl::ToChronoNanoseconds(duration);
  do {
    for (int i = 0; i < shape.amount; ++i) {
      SetNextNumber(client.request(0));
      const Clock::time_point before = Clock::now();
      const absl::StatusOr<Clock::time_point> after = CallOnce(client);
      if (!after.ok()) return after.status();
      result.latencies.Add(NanosBetween(before, *after));
    }
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(shape.pause));
  } while (Clock::now() < end);
  result.elapsed = absl::FromChrono(Clock::now() - begin);
  return result;
}

}  // namespace

std::vector<CaseInfo> TimedCases() {
  return {
      {.name = "paced", .axis = Axis::kRate, .run = RunPaced},
      {.name = "bursts", .axis = Axis::kBurst, .run = RunBursts},
  };
}

}  // namespace shmrpc::bench
