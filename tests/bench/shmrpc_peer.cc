// shm, tcp, unix and inproc: shmrpc through its generated stub, with default options but for the wait mode, which is
// what --modes varies, the transport, and the limit on the size of messages.

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/testing/benchmark_service.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {
namespace {

using ::grpc::testing::BenchmarkService;
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;

class EchoService final : public BenchmarkService::Service {
 public:
  absl::Status UnaryCall(ServerContext* context, const SimpleRequest* request, SimpleResponse* response) override {
    *response->mutable_payload() = request->payload();
    return absl::OkStatus();
  }
};

class ShmrpcServer : public ServerSide {
 public:
  ShmrpcServer(const PeerSetup& setup, std::string address)
      : wait_mode_(setup.wait_mode), address_(std::move(address)) {}

  absl::StatusOr<std::string> Start() override {
    const absl::StatusOr<WaitMode> wait_mode = ParseWaitMode(wait_mode_);
    if (!wait_mode.ok()) return wait_mode.status();
    absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder()
                                                         .Listen(address_)
                                                         .Register(&service_)
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
  EchoService service_;
  std::unique_ptr<Server> server_;
};

class ShmrpcClient : public ClientSide {
 public:
  ShmrpcClient(const PeerSetup& setup, TransportPreference transport)
      : wait_mode_(setup.wait_mode), transport_(transport), slots_(setup.slots) {
    for (Slot& slot : slots_) slot.request.mutable_payload()->mutable_body()->resize(setup.payload_bytes);
  }

  absl::Status Connect(const std::string& address) override {
    const absl::StatusOr<WaitMode> wait_mode = ParseWaitMode(wait_mode_);
    if (!wait_mode.ok()) return wait_mode.status();
    ChannelOptions options;
    options.transport = transport_;
    options.wait_mode = *wait_mode;
    options.max_send_message_bytes = kMaxMaxMessageBytes;
    options.max_receive_message_bytes = kMaxMaxMessageBytes;
    const auto channel = Channel::Create(address, options);
    const absl::Status status = channel->WaitForConnected(absl::Now() + kCallTimeout);
    if (!status.ok()) return status;
    stub_.emplace(channel);
    return absl::OkStatus();
  }

  absl::Span<char> request(int slot) override {
    std::string* const body = slots_[slot].request.mutable_payload()->mutable_body();
    return absl::MakeSpan(body->data(), body->size());
  }
  absl::string_view reply(int slot) const override { return slots_[slot].response.payload().body(); }

  absl::Status Call(int slot) override {
    Slot& state = slots_[slot];
    ClientContext context;
    context.set_timeout(kCallTimeout);
    return stub_->UnaryCall(&context, state.request, &state.response);
  }

  void Start(int slot, Observer* observer) override {
    Slot& state = slots_[slot];
    state.context.emplace();
    state.context->set_timeout(kCallTimeout);
    stub_->async().UnaryCall(&*state.context, &state.request, &state.response,
                             [observer, slot](absl::Status status) { observer->OnDone(slot, status); });
  }

 private:
  struct Slot {
    SimpleRequest request;
    SimpleResponse response;
    std::optional<ClientContext> context;  // of the asynchronous call in progress or the last one
  };

  const std::string wait_mode_;
  const TransportPreference transport_;
  std::vector<Slot> slots_;
  std::optional<BenchmarkService::Stub> stub_;  // goes first: its calls use the slots
};

// The four differ in the address and in what the client insists on.
class LoopbackServer final : public ShmrpcServer {
 public:
  explicit LoopbackServer(const PeerSetup& setup) : ShmrpcServer(setup, "localhost:0") {}
};

class UnixSocketServer final : public ShmrpcServer {
 public:
  explicit UnixSocketServer(const PeerSetup& setup)
      : ShmrpcServer(setup, absl::StrCat("unix:", setup.directory, "/shmrpc")) {}
};

class InProcessServer final : public ShmrpcServer {
 public:
  explicit InProcessServer(const PeerSetup& setup) : ShmrpcServer(setup, "inproc:shmrpc_bench") {}
};

template <TransportPreference kTransport>
class ClientOver final : public ShmrpcClient {
 public:
  explicit ClientOver(const PeerSetup& setup) : ShmrpcClient(setup, kTransport) {}
};

}  // namespace

std::vector<PeerInfo> ShmrpcPeers() {
  std::vector<PeerInfo> peers = {
      DescribePeer<LoopbackServer, ClientOver<TransportPreference::kShm>>("shm"),
      DescribePeer<LoopbackServer, ClientOver<TransportPreference::kTcp>>("tcp"),
      DescribePeer<UnixSocketServer, ClientOver<TransportPreference::kUnix>>("unix"),
      DescribePeer<InProcessServer, ClientOver<TransportPreference::kAuto>>("inproc"),
  };
  for (PeerInfo& peer : peers) {
    peer.has_modes = true;
    peer.can_pipeline = true;
  }
  peers.back().in_process = true;
  return peers;
}

}  // namespace shmrpc::bench
