#ifndef SHMRPC_TESTS_BENCH_CLOSED_LOOP_H_
#define SHMRPC_TESTS_BENCH_CLOSED_LOOP_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "tests/bench/cases.h"
#include "tests/bench/clock.h"
#include "tests/bench/payload.h"

namespace shmrpc::bench {

// One thread makes round trips of one slot, the next when the last is over, until `duration` after `begin`; one at
// least. `round_trip` returns a status. Filling in the payload and checking what comes back are not part of the
// latency.
template <typename RoundTrip>
absl::StatusOr<CaseResult> ClosedLoop(ClientSide& client, int slot, Clock::time_point begin, absl::Duration duration,
                                      RoundTrip round_trip) {
  CaseResult result;
  const absl::Span<char> request = client.request(slot);
  const Clock::time_point end = begin + absl::ToChronoNanoseconds(duration);
  Clock::time_point after;
  do {
    SetNextNumber(request);
    const Clock::time_point before = Clock::now();
    absl::Status status = round_trip();
    after = Clock::now();
    if (status.ok()) status = CheckReply(request, client.reply(slot));
    if (!status.ok()) return status;
    result.latencies.Add(NanosBetween(before, after));
  } while (after < end);
  result.elapsed = absl::FromChrono(after - begin);
  return result;
}

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_CLOSED_LOOP_H_
