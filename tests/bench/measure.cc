#include "tests/bench/measure.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/bench/allocations.h"
#include "tests/bench/client_process.h"
#include "tests/bench/clock.h"
#include "tests/bench/process.h"
#include "tests/bench/server_process.h"

namespace shmrpc::bench {
namespace {

// Everything that takes part in one measurement. Lives in a process made for it, which has one thread.
class Scene {
 public:
  explicit Scene(const MeasurementSpec& spec) : spec_(spec) {}

  // Starts the processes and connects the clients.
  absl::Status Prepare(const CpuSets& cpus) {
    RaiseDescriptorLimit();
    if (spec_.pin == Pin::kSingle) {
      const absl::Status bound = BindProcess(getpid(), cpus.clients);
      if (!bound.ok()) return bound;
    }
    absl::StatusOr<PrivateDirectory> directory = PrivateDirectory::Create();
    if (!directory.ok()) return directory.status();
    directory_.emplace(*std::move(directory));
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
      return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
    }
    const Descriptor client_socket(ends[0]);
    const Descriptor server_socket(ends[1]);

    ClientPlan plan{.peer = spec_.peer, .load = spec_.load, .shape = spec_.shape, .setup = {}, .address = ""};
    plan.setup.wait_mode = spec_.wait_mode;
    plan.setup.payload_bytes = spec_.payload_bytes;
    plan.setup.slots = spec_.load->Slots(spec_.shape.amount);
    plan.setup.uploads = spec_.load->uploads;
    plan.setup.directory = directory_->path();
    if (!spec_.peer->in_process) {
      plan.setup.socket = server_socket.get();
      absl::StatusOr<ServerProcess> server = ServerProcess::Start(*spec_.peer, plan.setup);
      if (!server.ok()) return server.status();
      plan.address = server->address();
      server_.emplace(*std::move(server));
    }
    plan.setup.socket = client_socket.get();

    const int clients = spec_.load->Clients(spec_.shape.amount);
    const int holders = spec_.load->axis == Axis::kConnections ? 1 : 0;
    for (int i = 0; i < clients + holders; ++i) {
      absl::StatusOr<ClientProcess> client = ClientProcess::Start(plan);
      if (!client.ok()) return client.status();
      clients_.push_back(*std::move(client));
    }
    for (ClientProcess& client : clients_) {
      const absl::Status connected = client.AwaitDone();
      if (!connected.ok()) return connected;
    }
    if (holders > 0) {
      holder_.emplace(std::move(clients_.back()));
      clients_.pop_back();
    }
    // A first call, before anything is bound: a library that looks how many CPUs it may use, to decide whether waiting
    // actively makes sense, has looked by then and has seen what it would see in a program of its own.
    const absl::Status first = Run(absl::ZeroDuration()).status();
    if (!holder_) directory_->Remove();
    return first.ok() && spec_.pin != Pin::kSingle ? Bind(cpus) : first;
  }

  // The result of each client.
  absl::StatusOr<std::vector<CaseResult>> Run(absl::Duration duration) {
    // Several clients begin together, when all of them have been told.
    Clock::time_point begin;
    if (clients_.size() > 1) begin = Clock::now() + std::chrono::milliseconds(clients_.size());
    for (ClientProcess& client : clients_) {
      const absl::Status status = client.OrderRun(duration, begin);
      if (!status.ok()) return status;
    }
    std::vector<CaseResult> results;
    for (ClientProcess& client : clients_) {
      absl::StatusOr<CaseResult> result = client.AwaitResult();
      if (!result.ok()) return result.status();
      results.push_back(*std::move(result));
    }
    return results;
  }

  // What the process that rests does; for cases with connections that rest.
  absl::Status ConnectMore() {
    absl::Status status = holder_->OrderConnectMore(spec_.shape.amount);
    if (status.ok()) status = holder_->AwaitDone();
    directory_->Remove();
    return status;
  }
  absl::Status CallOnEach() {
    const absl::Status status = holder_->OrderCallOnEach();
    return status.ok() ? holder_->AwaitDone() : status;
  }

  // Of all processes of the peer.
  absl::StatusOr<absl::Duration> CpuTimeOfAll() const {
    absl::Duration sum;
    for (const pid_t pid : Pids()) {
      const absl::StatusOr<absl::Duration> used = CpuTime(pid);
      if (!used.ok()) return used;
      sum += *used;
    }
    return sum;
  }

  // Of the server and the process whose connections rest.
  absl::StatusOr<int64_t> MemoryOfIdleConnections() const {
    const absl::StatusOr<int64_t> server = MemoryInUse(server_->pid());
    if (!server.ok()) return server;
    const absl::StatusOr<int64_t> holder = MemoryInUse(holder_->pid());
    if (!holder.ok()) return holder;
    return *server + *holder;
  }

 private:
  std::vector<pid_t> Pids() const {
    std::vector<pid_t> pids;
    for (const ClientProcess& client : clients_) pids.push_back(client.pid());
    if (holder_) pids.push_back(holder_->pid());
    if (server_) pids.push_back(server_->pid());
    return pids;
  }

  absl::Status Bind(const CpuSets& cpus) const {
    for (const pid_t pid : Pids()) {
      const absl::Status status = BindProcess(pid, server_ && pid == server_->pid() ? cpus.server : cpus.clients);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  const MeasurementSpec& spec_;
  std::optional<PrivateDirectory> directory_;  // removed as soon as all are connected
  std::optional<ServerProcess> server_;        // none for peers in one process
  std::vector<ClientProcess> clients_;
  std::optional<ClientProcess> holder_;  // of connections that rest
};

int64_t Calls(const std::vector<CaseResult>& results) {
  int64_t calls = 0;
  for (const CaseResult& result : results) calls += result.latencies.count();
  return calls;
}

// A run with fewer calls says little of what a call allocates.
constexpr int64_t kFewestCallsForAllocations = 4;

// Allocations per call when warm: what a longer run allocates more than a run of as few calls as possible, so that what
// a run needs once, for a stream or for threads, does not count. `expected_calls`: those of a run of `duration`. Two
// further runs of calls that take as long as all of it would make a measurement twice as long, and find out nothing.
absl::StatusOr<double> AllocationsPerCall(Scene& scene, absl::Duration duration, int64_t expected_calls) {
  if (!AllocationCounter::Available() || expected_calls < kFewestCallsForAllocations) return kNotMeasured;
  AllocationCounter::Begin();
  const absl::StatusOr<std::vector<CaseResult>> shortest = scene.Run(absl::ZeroDuration());
  const int64_t few = AllocationCounter::End();
  if (!shortest.ok()) return shortest.status();
  AllocationCounter::Begin();
  const absl::StatusOr<std::vector<CaseResult>> longer = scene.Run(duration);
  const int64_t many = AllocationCounter::End();
  if (!longer.ok()) return longer.status();
  const int64_t calls = Calls(*longer) - Calls(*shortest);
  return calls > 0 ? static_cast<double>(many - few) / static_cast<double>(calls) : kNotMeasured;
}

// How long after the last call nothing may be left to do.
constexpr absl::Duration kSettle = absl::Milliseconds(300);

// CPU use while nobody calls.
absl::StatusOr<double> IdleCpuPercent(const Scene& scene, absl::Duration duration) {
  std::this_thread::sleep_for(absl::ToChronoNanoseconds(kSettle));
  const absl::StatusOr<absl::Duration> before = scene.CpuTimeOfAll();
  if (!before.ok()) return before.status();
  const Clock::time_point begin = Clock::now();
  std::this_thread::sleep_for(absl::ToChronoNanoseconds(std::max(duration, kSettle)));
  const absl::StatusOr<absl::Duration> after = scene.CpuTimeOfAll();
  if (!after.ok()) return after.status();
  return 100 * absl::FDivDuration(*after - *before, absl::FromChrono(Clock::now() - begin));
}

// One call over each of the connections that rested, one after the other.
absl::Status MeasureWaking(Scene& scene, int connections, Figures* figures) {
  const absl::StatusOr<absl::Duration> before = scene.CpuTimeOfAll();
  if (!before.ok()) return before.status();
  const Clock::time_point begin = Clock::now();
  const absl::Status status = scene.CallOnEach();
  if (!status.ok()) return status;
  const absl::Duration elapsed = absl::FromChrono(Clock::now() - begin);
  const absl::StatusOr<absl::Duration> after = scene.CpuTimeOfAll();
  if (!after.ok()) return after.status();
  figures->waking_micros = absl::ToDoubleMicroseconds(elapsed) / connections;
  figures->waking_cpu_micros = absl::ToDoubleMicroseconds(*after - *before) / connections;
  return absl::OkStatus();
}

// Runs in a process of its own.
absl::StatusOr<Measurement> MeasureHere(const MeasurementSpec& spec) {
  absl::Status status = AllocationCounter::Install();
  if (!status.ok()) return status;
  Scene scene(spec);
  status = scene.Prepare(DivideCpus(spec));
  if (!status.ok()) return status;
  const absl::Duration warm_up = std::max(spec.duration / 4, absl::Milliseconds(20));
  absl::StatusOr<std::vector<CaseResult>> warm = scene.Run(warm_up);
  if (!warm.ok()) return warm.status();

  Measurement measurement;
  Figures& figures = measurement.figures;
  const bool has_idle_connections = spec.load->axis == Axis::kConnections;
  int64_t memory_before = 0;
  if (has_idle_connections) {
    const absl::StatusOr<std::vector<CaseResult>> alone = scene.Run(spec.duration);
    if (!alone.ok()) return alone.status();
    figures.p50_alone_nanos = static_cast<double>(alone->front().latencies.Percentile(0.5));
    const absl::StatusOr<int64_t> memory = scene.MemoryOfIdleConnections();
    if (!memory.ok()) return memory.status();
    memory_before = *memory;
    status = scene.ConnectMore();
    if (!status.ok()) return status;
    warm = scene.Run(warm_up);
    if (!warm.ok()) return warm.status();
  }

  const absl::StatusOr<absl::Duration> cpu_before = scene.CpuTimeOfAll();
  if (!cpu_before.ok()) return cpu_before.status();
  const absl::StatusOr<std::vector<CaseResult>> results = scene.Run(spec.duration);
  if (!results.ok()) return results.status();
  const absl::StatusOr<absl::Duration> cpu_after = scene.CpuTimeOfAll();
  if (!cpu_after.ok()) return cpu_after.status();

  double slowest = std::numeric_limits<double>::infinity();
  for (const CaseResult& result : *results) {
    measurement.latencies.Merge(result.latencies);
    const double rate = static_cast<double>(result.latencies.count()) / absl::ToDoubleSeconds(result.elapsed);
    figures.calls_per_second += rate;
    slowest = std::min(slowest, rate);
  }
  figures.calls = measurement.latencies.count();
  figures.p50_nanos = measurement.latencies.Percentile(0.5);
  figures.p99_nanos = measurement.latencies.Percentile(0.99);
  figures.p999_nanos = measurement.latencies.Percentile(0.999);
  figures.cpu_micros_per_call =
      absl::ToDoubleMicroseconds(*cpu_after - *cpu_before) / static_cast<double>(figures.calls);
  if (spec.load->axis == Axis::kClients) {
    figures.slowest_share = slowest / (figures.calls_per_second / static_cast<double>(results->size()));
  }

  if (has_idle_connections) {
    const absl::StatusOr<double> idle_cpu = IdleCpuPercent(scene, spec.duration);
    if (!idle_cpu.ok()) return idle_cpu.status();
    figures.idle_cpu_percent = *idle_cpu;
    const absl::StatusOr<int64_t> memory = scene.MemoryOfIdleConnections();
    if (!memory.ok()) return memory.status();
    figures.memory_per_connection = static_cast<double>(*memory - memory_before) / spec.shape.amount;
    status = MeasureWaking(scene, spec.shape.amount, &figures);
    if (!status.ok()) return status;
  }
  const absl::StatusOr<double> allocations = AllocationsPerCall(scene, warm_up, Calls(*warm));
  if (!allocations.ok()) return allocations.status();
  figures.allocations_per_call = *allocations;
  return measurement;
}

}  // namespace

absl::string_view PinName(Pin pin) {
  switch (pin) {
    case Pin::kApart:
      return "apart";
    case Pin::kShared:
      return "shared";
    case Pin::kSingle:
      return "single";
    case Pin::kNone:
      return "none";
  }
  return "";
}

CpuSets DivideCpus(const MeasurementSpec& spec) {
  const std::vector<int>& cpus = spec.cpus;
  const std::vector<int> first = {cpus.front()};
  if (spec.pin == Pin::kNone) return {.clients = cpus, .server = cpus};
  if (spec.pin != Pin::kApart || cpus.size() == 1) return {.clients = first, .server = first};
  const std::vector<int> second = {cpus[1]};
  // One process has to run on both, as if they were apart.
  if (spec.peer->in_process) return {.clients = {cpus[0], cpus[1]}, .server = second};
  return {.clients = first, .server = second};
}

absl::StatusOr<Measurement> Measure(const MeasurementSpec& spec) {
  static_assert(std::is_trivially_copyable_v<Figures>);
  // Only a hang takes that long.
  const absl::Duration limit = absl::Minutes(2) + 8 * spec.duration;
  const absl::StatusOr<std::string> bytes = RunInChild(limit, [&]() -> absl::StatusOr<std::string> {
    const absl::StatusOr<Measurement> measurement = MeasureHere(spec);
    if (!measurement.ok()) return measurement.status();
    const auto* const figures = reinterpret_cast<const char*>(&measurement->figures);
    return absl::StrCat(absl::string_view(figures, sizeof(Figures)), measurement->latencies.Encode());
  });
  if (!bytes.ok()) return bytes.status();
  Measurement measurement;
  if (bytes->size() < sizeof(Figures) ||
      !measurement.latencies.Decode(absl::string_view(*bytes).substr(sizeof(Figures)))) {
    return absl::InternalError("the measuring process died while it reported");
  }
  std::memcpy(&measurement.figures, bytes->data(), sizeof(Figures));
  return measurement;
}

absl::StatusOr<std::vector<std::vector<Measurement>>> MeasureInTurns(const std::vector<MeasurementSpec>& specs,
                                                                     int rounds) {
  std::vector<std::vector<Measurement>> measurements(specs.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < specs.size(); ++i) {
      const MeasurementSpec& spec = specs[i];
      absl::StatusOr<Measurement> measurement = Measure(spec);
      if (!measurement.ok()) {
        const std::string amount =
            spec.load->axis == Axis::kNone ? "" : absl::StrCat(", ", AxisName(spec.load->axis), " ", spec.shape.amount);
        return absl::Status(measurement.status().code(),
                            absl::StrCat(spec.peer->name, " (case ", spec.load->name, ", mode ", spec.wait_mode, ", ",
                                         spec.payload_bytes, " bytes", amount, ", pin ", PinName(spec.pin),
                                         "): ", measurement.status().message()));
      }
      measurements[i].push_back(*std::move(measurement));
    }
  }
  return measurements;
}

}  // namespace shmrpc::bench
