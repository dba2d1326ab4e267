// Streams: ping-pong over one, and as much as possible in one direction.

#include "tests/bench/cases.h"
#include "tests/bench/clock.h"
#include "tests/bench/closed_loop.h"
#include "tests/bench/payload.h"

namespace shmrpc::bench {
namespace {

// Repeats `step`, which returns a status, for `duration`; at least once.
template <typename Step>
absl::StatusOr<CaseResult> Repeat(absl::Duration duration, Step step) {
  CaseResult result;
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = begin + absl::ToChronoNanoseconds(duration);
  Clock::time_point now;
  do {
    const Clock::time_point before = Clock::now();
    absl::Status status = step();
    if (!status.ok()) return status;
    now = Clock::now();
    result.latencies.Add(NanosBetween(before, now));
  } while (now < end);
  result.elapsed = absl::FromChrono(now - begin);
  return result;
}

// One stream; the next message goes when the last one is back. Opening and closing the stream do not count.
absl::StatusOr<CaseResult> RunPingPong(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  absl::Status status = client.OpenStream(StreamKind::kPingPong);
  if (!status.ok()) return status;
  absl::StatusOr<CaseResult> result = ClosedLoop(client, 0, Clock::now(), duration, [&]() -> absl::Status {
    absl::Status written = client.Write();
    return written.ok() ? client.Read() : written;
  });
  if (!result.ok()) return result;
  status = client.CloseStream();
  if (!status.ok()) return status;
  return result;
}

// The clock stops when the server has taken everything.
absl::StatusOr<CaseResult> RunUpload(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  absl::Status status = client.OpenStream(StreamKind::kUpload);
  if (!status.ok()) return status;
  const absl::Span<char> request = client.request(0);
  const Clock::time_point begin = Clock::now();
  absl::StatusOr<CaseResult> result = Repeat(duration, [&] {
    SetNextNumber(request);
    return client.Write();
  });
  if (!result.ok()) return result;
  status = client.CloseStream();
  result->elapsed = absl::FromChrono(Clock::now() - begin);
  if (!status.ok()) return status;
  return result;
}

// The clock runs from the first message to the last one that is read. What the server has sent ahead by then is thrown
// away and does not count.
absl::StatusOr<CaseResult> RunDownload(ClientSide& client, const LoadShape& shape, absl::Duration duration) {
  const absl::Span<char> request = client.request(0);
  SetNextNumber(request);
  absl::Status status = client.OpenStream(StreamKind::kDownload);
  if (!status.ok()) return status;
  StreamCheck check(request);
  const auto read = [&] {
    const absl::Status status = client.Read();
    return status.ok() ? check.Check(client.reply(0)) : status;
  };
  status = read();
  if (!status.ok()) return status;
  absl::StatusOr<CaseResult> result = Repeat(duration, read);
  if (!result.ok()) return result;
  SetNumber(request, NumberOf(client.reply(0)));  // the next run goes on from here
  status = client.CloseStream();
  if (!status.ok()) return status;
  return result;
}

}  // namespace

std::vector<CaseInfo> StreamCases() {
  return {
      {.name = "stream", .needs = kPingPong, .run = RunPingPong},
      {.name = "bulk", .needs = kUploads, .throughput = true, .one_way = true, .uploads = true, .run = RunUpload},
      {.name = "bulk-down", .needs = kDownloads, .throughput = true, .one_way = true, .run = RunDownload},
  };
}

}  // namespace shmrpc::bench
