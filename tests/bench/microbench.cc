// What the parts of a call cost when nothing has to cross from one CPU to another: the ring, the control parts of a
// frame, and protobuf between them. `shmrpc_bench` measures calls; this program tells which part to look at.

#include <cstring>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "grpc/testing/messages.pb.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/frame.h"
#include "transports/shm/ring.h"

namespace shmrpc {
namespace {

constexpr size_t kRingBytes = 256 * 1024;

// A ring with both ends here.
struct Ring {
  struct alignas(shm::kCacheLine) Line {
    uint8_t bytes[shm::kCacheLine];
  };
  std::vector<Line> memory{kRingBytes / sizeof(Line)};
  shm::ControlBlock producer_control{};
  shm::ControlBlock consumer_control{};
  shm::RingProducer producer{memory[0].bytes, kRingBytes, framed::kMaxFrameBytes, &producer_control, &consumer_control};
  shm::RingConsumer consumer{memory[0].bytes,        kRingBytes,        framed::kFrameHeaderBytes,
                             framed::kMaxFrameBytes, &consumer_control, &producer_control};
};

void BM_RingRecord(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Ring ring;
  std::vector<uint8_t> copy(size);
  for (auto _ : state) {
    uint8_t* const record = ring.producer.Reserve(size);
    std::memset(record + sizeof(uint32_t), 7, size - sizeof(uint32_t));
    ring.producer.Commit(size);
    benchmark::DoNotOptimize(ring.producer.TakeParked());
    const size_t length = ring.consumer.Peek();
    ring.consumer.Take(length, copy.data());
    benchmark::DoNotOptimize(copy.data());
  }
  if (copy.back() != 7) state.SkipWithError("the record arrived changed");
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(size));
}
BENCHMARK(BM_RingRecord)->Arg(64)->Arg(1024)->Arg(64 * 1024);

void BM_RequestControl(benchmark::State& state) {
  Metadata metadata;
  metadata.Add("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  const SteadyTime deadline = state.range(0) != 0 ? SteadyTime::Now() + absl::Hours(1) : SteadyTime::InfiniteFuture();
  std::string control;
  std::string frame;
  for (auto _ : state) {
    framed::FrameHeader header;
    framed::EncodeRequestControl(deadline, state.range(1) != 0 ? &metadata : nullptr, &header.flags, &control);
    header.length = static_cast<uint32_t>(framed::kFrameHeaderBytes + control.size());
    frame.assign(framed::kFrameHeaderBytes, '\0');
    frame += control;
    framed::RequestControl decoded;
    if (!framed::DecodeRequestControl(frame, header, &decoded).ok()) state.SkipWithError("malformed");
    benchmark::DoNotOptimize(decoded);
  }
}
BENCHMARK(BM_RequestControl)->ArgNames({"deadline", "metadata"})->Args({0, 0})->Args({1, 0})->Args({1, 1});

void BM_ProtobufThereAndBack(benchmark::State& state) {
  grpc::testing::SimpleRequest request;
  request.mutable_payload()->set_body(std::string(static_cast<size_t>(state.range(0)), 'x'));
  std::string bytes(request.ByteSizeLong(), '\0');
  grpc::testing::SimpleRequest parsed;
  for (auto _ : state) {
    OutgoingProto(request).SerializeToArray(reinterpret_cast<uint8_t*>(bytes.data()));
    const absl::string_view piece = bytes;
    if (!IncomingMessage(absl::MakeConstSpan(&piece, 1)).ParseTo(&parsed)) state.SkipWithError("not parsed");
  }
  if (parsed.payload().body() != request.payload().body()) state.SkipWithError("the payload arrived changed");
}
BENCHMARK(BM_ProtobufThereAndBack)->Arg(64)->Arg(64 * 1024);

}  // namespace
}  // namespace shmrpc

BENCHMARK_MAIN();
