#include "tests/bench/cases.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_format.h"
#include "shmrpc/mutex.h"

namespace shmrpc::bench {
namespace {

using Clock = std::chrono::steady_clock;

int64_t NanosBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count();
}

// Every call carries its own number in its first eight bytes, so that a reply to another call is noticed. The numbers
// never begin again: floor-cacheline knows a new line by them.
void SetNumber(absl::Span<char> payload, uint64_t number) { std::memcpy(payload.data(), &number, sizeof(number)); }

void SetNextNumber(absl::Span<char> payload) {
  uint64_t number;
  std::memcpy(&number, payload.data(), sizeof(number));
  SetNumber(payload, number + 1);
}

absl::Status CheckReply(absl::Span<const char> request, absl::string_view reply) {
  if (reply.size() != request.size()) {
    return absl::DataLossError(absl::StrFormat("sent a payload of %d bytes, got %d bytes back; the peer is broken",
                                               request.size(), reply.size()));
  }
  if (std::memcmp(request.data(), reply.data(), reply.size()) == 0) return absl::OkStatus();
  size_t first = 0;
  while (request[first] == reply[first]) ++first;
  return absl::DataLossError(absl::StrFormat(
      "a payload of %d bytes came back different: byte %d was sent as 0x%02x and received as 0x%02x; the peer is "
      "broken",
      reply.size(), first, static_cast<unsigned char>(request[first]), static_cast<unsigned char>(reply[first])));
}

// Closed loop: one thread, the next call begins when the last one is over. The check of the reply is not part of the
// latency.
absl::StatusOr<CaseResult> RunUnary(ClientSide& client, int slots, absl::Duration duration) {
  CaseResult result;
  const absl::Span<char> request = client.request(0);
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = begin + absl::ToChronoNanoseconds(duration);
  Clock::time_point after = begin;
  while (after < end) {
    SetNextNumber(request);
    const Clock::time_point before = Clock::now();
    const absl::Status status = client.Call(0);
    after = Clock::now();
    if (!status.ok()) return status;
    const absl::Status check = CheckReply(request, client.reply(0));
    if (!check.ok()) return check;
    result.latencies.Add(NanosBetween(before, after));
  }
  result.elapsed = absl::FromChrono(after - begin);
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

absl::StatusOr<CaseResult> RunPipelined(ClientSide& client, int slots, absl::Duration duration) {
  return Pipeline(client, slots, duration).Run();
}

}  // namespace

const std::vector<CaseInfo>& AllCases() {
  static const auto* const cases = new std::vector<CaseInfo>{
      {.name = "unary", .pipelines = false, .run = RunUnary},
      {.name = "pipelined", .pipelines = true, .run = RunPipelined},
  };
  return *cases;
}

const CaseInfo* FindCase(absl::string_view name) {
  for (const CaseInfo& info : AllCases()) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

void FillRequests(ClientSide& client, int slots) {
  for (int slot = 0; slot < slots; ++slot) {
    const absl::Span<char> request = client.request(slot);
    // A multiplicative generator's high bits: no byte repeats at a short distance, so that shifted data is noticed.
    uint32_t state = static_cast<uint32_t>(slot) + 1;
    for (char& byte : request) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<char>(state >> 24);
    }
    SetNumber(request, static_cast<uint64_t>(slot) << 48);
  }
}

}  // namespace shmrpc::bench
