// A gRPC server, as people write them. The test builds it as it is with gRPC, and with shmrpc after docs/from-grpc.sed.
//
// usage: greeter_server ADDRESS        ends when its standard input does

#include <grpcpp/grpcpp.h>

#include <iostream>
#include <memory>
#include <string>

#include "greeter.grpc.pb.h"

using grpc::Server;
using grpc::ServerBuilder;
using grpc::ServerContext;
using grpc::ServerReader;
using grpc::ServerReaderWriter;
using grpc::ServerWriter;
using grpc::Status;
using grpc::StatusCode;
using migration::Greeter;
using migration::HelloReply;
using migration::HelloRequest;

class GreeterServiceImpl final : public Greeter::Service {
  Status SayHello(ServerContext* context, const HelloRequest* request, HelloReply* reply) override {
    if (request->name().empty()) {
      return Status(StatusCode::INVALID_ARGUMENT, "nobody to greet");
    }
    if (request->name() == "nobody") return {grpc::StatusCode::NOT_FOUND, "there is no such person"};
    context->AddTrailingMetadata("greeted", request->name());
    reply->set_message("Hello, " + request->name());
    return Status::OK;
  }

  Status SayHellos(ServerContext* context, const HelloRequest* request, ServerWriter<HelloReply>* writer) override {
    HelloReply reply;
    for (const char* greeting : {"Hello", "Good day", "Welcome"}) {
      if (context->IsCancelled()) return Status::CANCELLED;
      reply.set_message(std::string(greeting) + ", " + request->name());
      if (!writer->Write(reply)) break;
    }
    return Status::OK;
  }

  Status GreetAll(ServerContext* context, ServerReader<HelloRequest>* reader, HelloReply* reply) override {
    HelloRequest request;
    std::string message = "Hello";
    while (reader->Read(&request)) message += ", " + request.name();
    reply->set_message(message);
    return Status::OK;
  }

  Status Chat(ServerContext* context, ServerReaderWriter<HelloReply, HelloRequest>* stream) override {
    HelloRequest request;
    HelloReply reply;
    while (stream->Read(&request)) {
      reply.set_message("How are you, " + request.name() + "?");
      stream->Write(reply);
    }
    return Status::OK;
  }
};

int main(int argc, char** argv) {
  const std::string server_address = argv[1];
  GreeterServiceImpl service;
  grpc::EnableDefaultHealthCheckService(true);
  ServerBuilder builder;
  builder.AddListeningPort(server_address, grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(1 << 20);
  builder.RegisterService(&service);
  std::unique_ptr<Server> server(builder.BuildAndStart());
  std::cin.ignore(1 << 20, EOF);
  server->Shutdown();
  server->Wait();
  return 0;
}
