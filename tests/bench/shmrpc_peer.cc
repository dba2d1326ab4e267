// shm, tcp, unix and inproc: shmrpc through its generated stub, with default options but for the wait mode, which is
// what --modes varies, the transport, and the limit on the size of messages.

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/testing/benchmark_service.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"
#include "tests/bench/payload.h"
#include "tests/bench/peer.h"
#include "tests/bench/sleeper.shmrpc.pb.h"
#include "tests/bench/stub_client.h"
#include "tests/bench/stub_service.h"

namespace shmrpc::bench {
namespace {

using ::grpc::testing::BenchmarkService;
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;

class LoadService final : public BenchmarkService::Service {
 public:
  explicit LoadService(const PeerSetup& setup)
      : expected_upload_(setup.uploads ? MakePayload(setup.payload_bytes, /*slot=*/0) : "") {}

  absl::Status UnaryCall(ServerContext* context, const SimpleRequest* request, SimpleResponse* response) override {
    SendBack(*request, response);
    return absl::OkStatus();
  }

  absl::Status StreamingCall(ServerContext* context,
                             ServerReaderWriter<SimpleResponse, SimpleRequest>* stream) override {
    SendBackEach(stream);
    return absl::OkStatus();
  }

  absl::Status StreamingFromClient(ServerContext* context, ServerReader<SimpleRequest>* reader,
                                   SimpleResponse* response) override {
    return TakeAll(reader, expected_upload_, response);
  }

  absl::Status StreamingFromServer(ServerContext* context, const SimpleRequest* request,
                                   ServerWriter<SimpleResponse>* writer) override {
    SendAgainAndAgain(*request, writer);
    return absl::OkStatus();
  }

 private:
  const std::string expected_upload_;
};

class SleeperService final : public Sleeper::Service {
 public:
  absl::Status Sleep(ServerContext* context, const SleepRequest* request, SleepResponse* response) override {
    absl::SleepFor(absl::Microseconds(request->micros()));
    return absl::OkStatus();
  }
};

class ShmrpcServer : public ServerSide {
 public:
  ShmrpcServer(const PeerSetup& setup, std::string address)
      : wait_mode_(setup.wait_mode), address_(std::move(address)), load_service_(setup) {}

  absl::StatusOr<std::string> Start() override {
    const absl::StatusOr<WaitMode> wait_mode = ParseWaitMode(wait_mode_);
    if (!wait_mode.ok()) return wait_mode.status();
    absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder()
                                                         .Listen(address_)
                                                         .Register(&load_service_)
                                                         .Register(&sleeper_service_)
                                                         .SetMaxReceiveMessageBytes(kMaxMaxMessageBytes)
                                                         .SetMaxSendMessageBytes(kMaxMaxMessageBytes)
                                                         .SetWaitMode(*wait_mode)
                                                         .Start();
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    const Target& listening = server_->addresses().front();
    return listening.kind == Target::Kind::kHostPort ? absl::StrCat("localhost:", listening.port) : address_;
  }

  absl::Status Serve() override {
    server_->Wait();
    return absl::OkStatus();
  }

 private:
  const std::string wait_mode_;
  const std::string address_;
  LoadService load_service_;
  SleeperService sleeper_service_;
  std::unique_ptr<Server> server_;
};

// What StubClient needs to know of shmrpc.
class ShmrpcFramework final {
 public:
  using Channel = shmrpc::Channel;
  using Stub = BenchmarkService::Stub;
  using SleeperStub = Sleeper::Stub;
  using Context = ClientContext;

  ShmrpcFramework(std::string wait_mode, TransportPreference transport)
      : wait_mode_(std::move(wait_mode)), transport_(transport) {}

  absl::StatusOr<std::shared_ptr<Channel>> Connect(const std::string& address) {
    const absl::StatusOr<WaitMode> wait_mode = ParseWaitMode(wait_mode_);
    if (!wait_mode.ok()) return wait_mode.status();
    ChannelOptions options;
    options.transport = transport_;
    options.wait_mode = *wait_mode;
    options.max_send_message_bytes = kMaxMaxMessageBytes;
    options.max_receive_message_bytes = kMaxMaxMessageBytes;
    auto channel = Channel::Create(address, options);
    const absl::Status status = channel->WaitForConnected(absl::Now() + kCallTimeout);
    if (!status.ok()) return status;
    return channel;
  }

  static void SetTimeout(Context* context, absl::Duration timeout) { context->set_timeout(timeout); }
  static absl::Status ToAbsl(absl::Status status) { return status; }

  template <typename Done>
  static void StartUnaryCall(Stub* stub, Context* context, const SimpleRequest* request, SimpleResponse* response,
                             Done done) {
    stub->async().UnaryCall(context, request, response, std::move(done));
  }

 private:
  const std::string wait_mode_;
  const TransportPreference transport_;
};

// A peer that listens on `address` and whose client insists on `transport`.
template <TransportPreference kTransport>
PeerInfo Peer(std::string name, std::unique_ptr<ServerSide> (*make_server)(const PeerSetup& setup)) {
  PeerInfo info;
  info.name = std::move(name);
  info.has_modes = true;
  info.abilities = kPipelining | kPingPong | kUploads | kDownloads | kThreads | kClients | kSleeping | kConnections;
  info.make_server = make_server;
  info.make_client = [](const PeerSetup& setup) -> std::unique_ptr<ClientSide> {
    return std::make_unique<StubClient<ShmrpcFramework>>(setup, ShmrpcFramework(setup.wait_mode, kTransport));
  };
  return info;
}

std::unique_ptr<ServerSide> MakeLoopbackServer(const PeerSetup& setup) {
  return std::make_unique<ShmrpcServer>(setup, "localhost:0");
}

std::unique_ptr<ServerSide> MakeUnixSocketServer(const PeerSetup& setup) {
  return std::make_unique<ShmrpcServer>(setup, absl::StrCat("unix:", setup.directory, "/shmrpc"));
}

std::unique_ptr<ServerSide> MakeInProcessServer(const PeerSetup& setup) {
  return std::make_unique<ShmrpcServer>(setup, "inproc:shmrpc_bench");
}

}  // namespace

std::vector<PeerInfo> ShmrpcPeers() {
  PeerInfo inproc = Peer<TransportPreference::kAuto>("inproc", MakeInProcessServer);
  inproc.in_process = true;
  inproc.abilities &= ~static_cast<uint32_t>(kClients | kConnections);
  return {
      Peer<TransportPreference::kShm>("shm", MakeLoopbackServer),
      Peer<TransportPreference::kTcp>("tcp", MakeLoopbackServer),
      Peer<TransportPreference::kUnix>("unix", MakeUnixSocketServer),
      inproc,
  };
}

}  // namespace shmrpc::bench
