// What a call over shared memory costs in a program of this kind. Built twice, with and without shmrpc::grpc, to show
// that its presence costs such calls nothing: linking.py runs both in turn.
//
// usage: PROGRAM SECONDS [default]    prints the median and the 99 % quantile of the calls' times in nanoseconds
//
// With `default` a program that links shmrpc::grpc does not use it, which tells its use from where the linker puts
// things.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "grpc/testing/benchmark_service.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"
#if SHMRPC_BENCH_WITH_GRPC
#include "shmrpc/grpc.h"
#endif

namespace {

using ::grpc::testing::BenchmarkService;
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;

constexpr int kPayloadBytes = 64;

bool only_default = false;

shmrpc::TransportSet Transports() {
#if SHMRPC_BENCH_WITH_GRPC
  if (!only_default) return shmrpc::TransportsWithGrpc();
#endif
  return shmrpc::DefaultTransports();
}

class Service final : public BenchmarkService::Service {
  absl::Status UnaryCall(shmrpc::ServerContext*, const SimpleRequest* request, SimpleResponse* response) override {
    response->mutable_payload()->set_body(request->payload().body());
    return absl::OkStatus();
  }
};

// Tells its address through `told` and serves until `until` is closed.
int Serve(int told, int until) {
  Service service;
  auto server = shmrpc::ServerBuilder(Transports()).Listen("localhost:0").Register(&service).Start();
  if (!server.ok()) {
    std::cerr << server.status() << std::endl;
    return 1;
  }
  const std::string address = (*server)->addresses().front().ToString();
  if (write(told, address.data(), address.size()) < 0) return 1;
  close(told);
  char byte;
  while (read(until, &byte, 1) > 0) {
  }
  return 0;
}

int Measure(const std::string& address, absl::Duration time) {
  shmrpc::ChannelOptions options;
  options.transport = shmrpc::TransportPreference::kShm;
  BenchmarkService::Stub stub(shmrpc::Channel::Create(address, options, Transports()));
  SimpleRequest request;
  request.mutable_payload()->set_body(std::string(kPayloadBytes, 'x'));
  std::vector<int64_t> times;
  SimpleResponse response;
  const absl::Time begin = absl::Now();
  absl::Time now = begin;
  while (now - begin < time * 1.1) {
    shmrpc::ClientContext context;
    context.set_timeout(absl::Seconds(10));
    const absl::Time before = absl::Now();
    const absl::Status status = stub.UnaryCall(&context, request, &response);
    now = absl::Now();
    if (!status.ok() || response.payload().body() != request.payload().body()) {
      std::cerr << status << std::endl;
      return 1;
    }
    if (now - begin >= time * 0.1) times.push_back(absl::ToInt64Nanoseconds(now - before));  // warm by now
  }
  std::sort(times.begin(), times.end());
  std::cout << times[times.size() / 2] << " " << times[times.size() * 99 / 100] << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  only_default = argc == 3 && std::string(argv[2]) == "default";
  if (argc != 2 && !only_default) {
    std::cerr << "usage: " << argv[0] << " SECONDS [default]" << std::endl;
    return 2;
  }
  int told[2], until[2];
  if (pipe(told) != 0 || pipe(until) != 0) return 1;
  const pid_t server = fork();  // before anything of the library is used
  if (server == 0) {
    close(told[0]);
    close(until[1]);
    return Serve(told[1], until[0]);
  }
  close(told[1]);
  close(until[0]);
  char address[256];
  const ssize_t size = read(told[0], address, sizeof address);
  const int result =
      size > 0 ? Measure(std::string(address, static_cast<size_t>(size)), absl::Seconds(std::atof(argv[1]))) : 1;
  close(until[1]);
  waitpid(server, nullptr, 0);
  return result;
}
