// grpc-unix and grpc-tcp: gRPC C++ with its synchronous server and its generated stub, without encryption. Everything
// is left at its default but for the limit on the size of messages, and no proxy is asked.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <climits>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpc/testing/benchmark_service.grpc.pb.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {
namespace {

// The generated classes are in a namespace of their own, see CMakeLists.txt: shmrpc's have the same names.
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;
using GrpcService = ::grpc::testing::grpc_peer::BenchmarkService;

std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + absl::ToChronoNanoseconds(kCallTimeout);
}

absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

class EchoService final : public GrpcService::Service {
 public:
  grpc::Status UnaryCall(grpc::ServerContext* context, const SimpleRequest* request,
                         SimpleResponse* response) override {
    *response->mutable_payload() = request->payload();
    return grpc::Status::OK;
  }
};

class GrpcServer : public ServerSide {
 public:
  absl::Status Serve() override {
    server_->Wait();
    return absl::OkStatus();
  }

 protected:
  // Returns the port, where `address` has one.
  absl::StatusOr<int> Listen(const std::string& address) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(INT_MAX);
    builder.SetMaxSendMessageSize(INT_MAX);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::UnavailableError(absl::StrCat("gRPC cannot listen on ", address));
    return port;
  }

 private:
  EchoService service_;
  std::unique_ptr<grpc::Server> server_;
};

class GrpcUnixServer final : public GrpcServer {
 public:
  explicit GrpcUnixServer(const PeerSetup& setup) : address_(absl::StrCat("unix:", setup.directory, "/grpc")) {}

  absl::StatusOr<std::string> Start() override {
    const absl::StatusOr<int> port = Listen(address_);
    if (!port.ok()) return port.status();
    return address_;
  }

 private:
  const std::string address_;
};

class GrpcTcpServer final : public GrpcServer {
 public:
  explicit GrpcTcpServer(const PeerSetup& setup) {}

  absl::StatusOr<std::string> Start() override {
    const absl::StatusOr<int> port = Listen("127.0.0.1:0");
    if (!port.ok()) return port.status();
    return absl::StrCat("127.0.0.1:", *port);
  }
};

class GrpcClient final : public ClientSide {
 public:
  explicit GrpcClient(const PeerSetup& setup) : slots_(setup.slots) {
    for (Slot& slot : slots_) slot.request.mutable_payload()->mutable_body()->resize(setup.payload_bytes);
  }

  absl::Status Connect(const std::string& address) override {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(INT_MAX);
    arguments.SetMaxSendMessageSize(INT_MAX);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    const auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    if (!channel->WaitForConnected(Deadline())) {
      return absl::UnavailableError(absl::StrCat("gRPC cannot connect to ", address));
    }
    stub_ = GrpcService::NewStub(channel);
    return absl::OkStatus();
  }

  absl::Span<char> request(int slot) override {
    std::string* const body = slots_[slot].request.mutable_payload()->mutable_body();
    return absl::MakeSpan(body->data(), body->size());
  }
  absl::string_view reply(int slot) const override { return slots_[slot].response.payload().body(); }

  absl::Status Call(int slot) override {
    Slot& state = slots_[slot];
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    return ToAbsl(stub_->UnaryCall(&context, state.request, &state.response));
  }

  void Start(int slot, Observer* observer) override {
    Slot& state = slots_[slot];
    state.context.emplace();
    state.context->set_deadline(Deadline());
    stub_->async()->UnaryCall(&*state.context, &state.request, &state.response,
                              [observer, slot](const grpc::Status& status) { observer->OnDone(slot, ToAbsl(status)); });
  }

 private:
  struct Slot {
    SimpleRequest request;
    SimpleResponse response;
    std::optional<grpc::ClientContext> context;  // of the asynchronous call in progress or the last one
  };

  std::unique_ptr<GrpcService::Stub> stub_;
  std::vector<Slot> slots_;
};

}  // namespace

std::vector<PeerInfo> GrpcPeers() {
  PeerInfo over_unix = DescribePeer<GrpcUnixServer, GrpcClient>("grpc-unix");
  PeerInfo over_tcp = DescribePeer<GrpcTcpServer, GrpcClient>("grpc-tcp");
  over_unix.can_pipeline = true;
  over_tcp.can_pipeline = true;
  return {over_unix, over_tcp};
}

}  // namespace shmrpc::bench
