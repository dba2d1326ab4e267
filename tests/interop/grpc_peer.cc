// The gRPC C++ side of the matrix; see shmrpc_peer.cc for its arguments. Only one ADDRESS, and no TRANSPORT.

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "grpc/testing/test.grpc.pb.h"
#include "grpc_client.h"

namespace shmrpc::interop {
namespace {

using ::grpc::testing::Empty;
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;
using ::grpc::testing::StreamingInputCallRequest;
using ::grpc::testing::StreamingInputCallResponse;
using ::grpc::testing::StreamingOutputCallRequest;
using ::grpc::testing::StreamingOutputCallResponse;

void EchoMetadata(grpc::ServerContext* context) {
  for (const auto& [key, value] : context->client_metadata()) {
    const std::string name(key.data(), key.size());
    const std::string text(value.data(), value.size());
    if (name == kEchoInitialKey) context->AddInitialMetadata(name, text);
    if (name == kEchoTrailingKey) context->AddTrailingMetadata(name, text);
  }
}

template <typename Request>
grpc::Status WantedStatus(const Request& request) {
  if (!request.has_response_status()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(request.response_status().code()),
                      request.response_status().message());
}

template <typename Writer>
bool SendResponses(const StreamingOutputCallRequest& request, Writer* writer) {
  for (const auto& parameters : request.response_parameters()) {
    StreamingOutputCallResponse response;
    response.mutable_payload()->set_body(std::string(parameters.size(), '\0'));
    if (!writer->Write(response)) return false;
  }
  return true;
}

class TestServiceImpl final : public ::grpc::testing::grpc_peer::TestService::Service {
 public:
  grpc::Status EmptyCall(grpc::ServerContext* context, const Empty*, Empty*) override {
    EchoMetadata(context);
    return grpc::Status::OK;
  }
  grpc::Status UnaryCall(grpc::ServerContext* context, const SimpleRequest* request,
                         SimpleResponse* response) override {
    EchoMetadata(context);
    if (request->response_compressed().value()) context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    response->mutable_payload()->set_body(std::string(request->response_size(), '\0'));
    return WantedStatus(*request);
  }
  grpc::Status StreamingOutputCall(grpc::ServerContext* context, const StreamingOutputCallRequest* request,
                                   grpc::ServerWriter<StreamingOutputCallResponse>* writer) override {
    EchoMetadata(context);
    SendResponses(*request, writer);
    return WantedStatus(*request);
  }
  grpc::Status StreamingInputCall(grpc::ServerContext* context, grpc::ServerReader<StreamingInputCallRequest>* reader,
                                  StreamingInputCallResponse* response) override {
    EchoMetadata(context);
    int size = 0;
    StreamingInputCallRequest request;
    while (reader->Read(&request)) size += static_cast<int>(request.payload().body().size());
    response->set_aggregated_payload_size(size);
    return grpc::Status::OK;
  }
  grpc::Status FullDuplexCall(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<StreamingOutputCallResponse, StreamingOutputCallRequest>* stream) override {
    EchoMetadata(context);
    StreamingOutputCallRequest request;
    while (stream->Read(&request)) {
      const grpc::Status status = WantedStatus(request);
      if (!status.ok()) return status;
      if (!SendResponses(request, stream)) break;
    }
    return grpc::Status::OK;
  }
};

int Serve(const std::string& address) {
  TestServiceImpl service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  const std::string host = address.substr(0, address.rfind(':'));
  std::cout << "listening on " << (port > 1 ? host + ":" + std::to_string(port) : address) << std::endl;
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
  return 0;
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() == 3 && arguments[1] == "server") return Serve(arguments[2]);
  if (arguments.size() >= 4 && arguments[1] == "client") {
    return RunCases(GrpcCases(arguments[2]), {arguments.begin() + 3, arguments.end()});
  }
  std::cerr << "usage: grpc_peer server ADDRESS\n       grpc_peer client ADDRESS CASE...\n";
  return 2;
}

}  // namespace
}  // namespace shmrpc::interop

int main(int argc, char** argv) { return shmrpc::interop::Main({argv, argv + argc}); }
