#include "tests/bench/measure.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {
namespace {

// The server, in a child process or, for peers that have both sides in one process, here.
class RunningServer {
 public:
  // `server_socket` is the server's end of the pair; it stays open in the server process only.
  static absl::StatusOr<RunningServer> Start(const PeerInfo& peer, PeerSetup setup, Descriptor server_socket) {
    setup.socket = server_socket.get();
    RunningServer running;
    if (peer.in_process) {
      running.here_ = peer.make_server(setup);
      absl::StatusOr<std::string> address = running.here_->Start();
      if (!address.ok()) return address.status();
      running.address_ = *std::move(address);
      return running;
    }

    int ends[2];
    if (pipe(ends) < 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
    Descriptor read_end(ends[0]);
    Descriptor write_end(ends[1]);
    absl::StatusOr<ChildProcess> child = ChildProcess::Fork([&] {
      read_end.Close();
      const std::unique_ptr<ServerSide> server = peer.make_server(setup);
      const absl::StatusOr<std::string> address = server->Start();
      const std::string answer =
          address.ok() ? absl::StrCat("=", *address) : absl::StrCat("!", address.status().ToString());
      if (write(write_end.get(), answer.data(), answer.size()) < 0) return;
      write_end.Close();
      if (!address.ok()) return;
      const absl::Status status = server->Serve();
      if (!status.ok()) std::cerr << "shmrpc_bench: the server of " << peer.name << " ended: " << status << "\n";
    });
    if (!child.ok()) return child.status();
    write_end.Close();
    running.child_ = std::make_unique<ChildProcess>(*std::move(child));

    std::string answer;
    char buffer[1024];
    for (ssize_t n; (n = read(read_end.get(), buffer, sizeof(buffer))) != 0;) {
      if (n < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "cannot read from the server process");
      if (n > 0) answer.append(buffer, n);
    }
    if (answer.empty()) return absl::InternalError("the server process died before it was ready");
    if (answer[0] == '!') return absl::UnavailableError(absl::StrCat("the server did not start: ", answer.substr(1)));
    running.address_ = answer.substr(1);
    return running;
  }

  const std::string& address() const { return address_; }

  absl::Status Bind(const CpuPair& cpus) const {
    if (child_ == nullptr) return BindProcess(getpid(), {cpus.client, cpus.server});
    const absl::Status status = BindProcess(child_->pid(), {cpus.server});
    return status.ok() ? BindProcess(getpid(), {cpus.client}) : status;
  }

  // Of both processes, or of the one that there is.
  absl::StatusOr<absl::Duration> CpuTimeOfBoth() const {
    absl::StatusOr<absl::Duration> client = CpuTime(getpid());
    if (child_ == nullptr || !client.ok()) return client;
    const absl::StatusOr<absl::Duration> server = CpuTime(child_->pid());
    if (!server.ok()) return server;
    return *client + *server;
  }

 private:
  std::string address_;
  std::unique_ptr<ServerSide> here_;
  std::unique_ptr<ChildProcess> child_;
};

// Runs in the client process.
absl::StatusOr<Measurement> MeasureHere(const MeasurementSpec& spec, const CpuPair& cpus) {
  absl::StatusOr<PrivateDirectory> directory = PrivateDirectory::Create();
  if (!directory.ok()) return directory.status();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
  }
  Descriptor client_socket(ends[0]);
  Descriptor server_socket(ends[1]);
  PeerSetup setup{.wait_mode = spec.wait_mode,
                  .payload_bytes = spec.payload_bytes,
                  .slots = spec.concurrency,
                  .directory = directory->path(),
                  .socket = client_socket.get()};

  // Until the client object exists this process has one thread, so it may still fork the server.
  const absl::StatusOr<RunningServer> server = RunningServer::Start(*spec.peer, setup, std::move(server_socket));
  if (!server.ok()) return server.status();
  const std::unique_ptr<ClientSide> client = spec.peer->make_client(setup);
  absl::Status status = client->Connect(server->address());
  if (!status.ok()) return status;
  FillRequests(*client, spec.concurrency);
  const absl::StatusOr<CaseResult> first_calls = spec.load->run(*client, spec.concurrency, absl::Milliseconds(1));
  if (!first_calls.ok()) return first_calls.status();
  directory->Remove();

  // Bound to their CPUs only now: a library that looks how many CPUs it may use, to decide whether waiting actively
  // makes sense, has looked by now and has seen what it would see in a program of its own.
  status = server->Bind(cpus);
  if (!status.ok()) return status;
  const absl::Duration warm_up = std::max(spec.duration / 4, absl::Milliseconds(20));
  const absl::StatusOr<CaseResult> warm = spec.load->run(*client, spec.concurrency, warm_up);
  if (!warm.ok()) return warm.status();

  const absl::StatusOr<absl::Duration> cpu_before = server->CpuTimeOfBoth();
  if (!cpu_before.ok()) return cpu_before.status();
  const absl::StatusOr<CaseResult> result = spec.load->run(*client, spec.concurrency, spec.duration);
  if (!result.ok()) return result.status();
  const absl::StatusOr<absl::Duration> cpu_after = server->CpuTimeOfBoth();
  if (!cpu_after.ok()) return cpu_after.status();

  const auto calls = static_cast<double>(result->latencies.count());
  return Measurement{
      .p50_nanos = result->latencies.Percentile(0.5),
      .p99_nanos = result->latencies.Percentile(0.99),
      .p999_nanos = result->latencies.Percentile(0.999),
      .calls = result->latencies.count(),
      .calls_per_second = calls / absl::ToDoubleSeconds(result->elapsed),
      .cpu_micros_per_call = absl::ToDoubleMicroseconds(*cpu_after - *cpu_before) / calls,
  };
}

}  // namespace

absl::StatusOr<Measurement> Measure(const MeasurementSpec& spec, const CpuPair& cpus) {
  static_assert(std::is_trivially_copyable_v<Measurement>);
  // Only a hang takes that long.
  const absl::Duration limit = absl::Minutes(1) + 4 * spec.duration;
  const absl::StatusOr<std::string> bytes = RunInChild(limit, [&]() -> absl::StatusOr<std::string> {
    const absl::StatusOr<Measurement> measurement = MeasureHere(spec, cpus);
    if (!measurement.ok()) return measurement.status();
    return std::string(reinterpret_cast<const char*>(&*measurement), sizeof(*measurement));
  });
  if (!bytes.ok()) return bytes.status();
  if (bytes->size() != sizeof(Measurement)) return absl::InternalError("the client process died while it reported");
  Measurement measurement;
  std::memcpy(&measurement, bytes->data(), sizeof(measurement));
  return measurement;
}

}  // namespace shmrpc::bench
