// grpc-unix and grpc-tcp: gRPC C++ with its synchronous server and its generated stub, without encryption. Everything
// is left at its default but for the limit on the size of messages, no proxy is asked, and channels to one address do
// not share a connection, as shmrpc's do not.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <climits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/testing/benchmark_service.grpc.pb.h"
#include "tests/bench/payload.h"
#include "tests/bench/peer.h"
#include "tests/bench/sleeper.grpc.pb.h"
#include "tests/bench/stub_client.h"
#include "tests/bench/stub_service.h"

namespace shmrpc::bench {
namespace {

// The generated classes are in a namespace of their own, see CMakeLists.txt: shmrpc's have the same names.
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;
using GrpcService = ::grpc::testing::grpc_peer::BenchmarkService;
using GrpcSleeper = ::shmrpc::bench::grpc_peer::Sleeper;

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

class LoadService final : public GrpcService::Service {
 public:
  explicit LoadService(const PeerSetup& setup)
      : expected_upload_(setup.uploads ? MakePayload(setup.payload_bytes, /*slot=*/0) : "") {}

  grpc::Status UnaryCall(grpc::ServerContext* context, const SimpleRequest* request,
                         SimpleResponse* response) override {
    SendBack(*request, response);
    return grpc::Status::OK;
  }

  grpc::Status StreamingCall(grpc::ServerContext* context,
                             grpc::ServerReaderWriter<SimpleResponse, SimpleRequest>* stream) override {
    SendBackEach(stream);
    return grpc::Status::OK;
  }

  grpc::Status StreamingFromClient(grpc::ServerContext* context, grpc::ServerReader<SimpleRequest>* reader,
                                   SimpleResponse* response) override {
    return ToGrpc(TakeAll(reader, expected_upload_, response));
  }

  grpc::Status StreamingFromServer(grpc::ServerContext* context, const SimpleRequest* request,
                                   grpc::ServerWriter<SimpleResponse>* writer) override {
    SendAgainAndAgain(*request, writer);
    return grpc::Status::OK;
  }

 private:
  const std::string expected_upload_;
};

class SleeperService final : public GrpcSleeper::Service {
 public:
  grpc::Status Sleep(grpc::ServerContext* context, const SleepRequest* request, SleepResponse* response) override {
    absl::SleepFor(absl::Microseconds(request->micros()));
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
  explicit GrpcServer(const PeerSetup& setup) : load_service_(setup) {}

  // Returns the port, where `address` has one.
  absl::StatusOr<int> Listen(const std::string& address) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(INT_MAX);
    builder.SetMaxSendMessageSize(INT_MAX);
    builder.RegisterService(&load_service_);
    builder.RegisterService(&sleeper_service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::UnavailableError(absl::StrCat("gRPC cannot listen on ", address));
    return port;
  }

 private:
  LoadService load_service_;
  SleeperService sleeper_service_;
  std::unique_ptr<grpc::Server> server_;
};

class GrpcUnixServer final : public GrpcServer {
 public:
  explicit GrpcUnixServer(const PeerSetup& setup)
      : GrpcServer(setup), address_(absl::StrCat("unix:", setup.directory, "/grpc")) {}

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
  explicit GrpcTcpServer(const PeerSetup& setup) : GrpcServer(setup) {}

  absl::StatusOr<std::string> Start() override {
    const absl::StatusOr<int> port = Listen("127.0.0.1:0");
    if (!port.ok()) return port.status();
    return absl::StrCat("127.0.0.1:", *port);
  }
};

// What StubClient needs to know of gRPC.
class GrpcFramework final {
 public:
  using Channel = grpc::Channel;
  using Stub = GrpcService::Stub;
  using SleeperStub = GrpcSleeper::Stub;
  using Context = grpc::ClientContext;

  absl::StatusOr<std::shared_ptr<Channel>> Connect(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(INT_MAX);
    arguments.SetMaxSendMessageSize(INT_MAX);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    if (!channel->WaitForConnected(After(kCallTimeout))) {
      return absl::UnavailableError(absl::StrCat("gRPC cannot connect to ", address));
    }
    return channel;
  }

  static void SetTimeout(Context* context, absl::Duration timeout) { context->set_deadline(After(timeout)); }

  static absl::Status ToAbsl(const grpc::Status& status) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  template <typename Done>
  static void StartUnaryCall(Stub* stub, Context* context, const SimpleRequest* request, SimpleResponse* response,
                             Done done) {
    stub->async()->UnaryCall(context, request, response, [done](const grpc::Status& status) { done(ToAbsl(status)); });
  }

 private:
  static std::chrono::system_clock::time_point After(absl::Duration timeout) {
    return std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout);
  }
};

template <typename Server>
PeerInfo Peer(std::string name) {
  PeerInfo info;
  info.name = std::move(name);
  info.abilities = kPipelining | kPingPong | kUploads | kDownloads | kThreads | kClients | kSleeping | kConnections;
  info.make_server = [](const PeerSetup& setup) -> std::unique_ptr<ServerSide> {
    return std::make_unique<Server>(setup);
  };
  info.make_client = [](const PeerSetup& setup) -> std::unique_ptr<ClientSide> {
    return std::make_unique<StubClient<GrpcFramework>>(setup, GrpcFramework());
  };
  return info;
}

}  // namespace

std::vector<PeerInfo> GrpcPeers() { return {Peer<GrpcUnixServer>("grpc-unix"), Peer<GrpcTcpServer>("grpc-tcp")}; }

}  // namespace shmrpc::bench
