// The same over gRPC's protocol, with shmrpc::grpc.

#include "shmrpc/grpc.h"

#include <iostream>

#include "greeter.shmrpc.pb.h"
#include "shmrpc/reflection.h"
#include "shmrpc/shmrpc.h"

class GreeterImpl final : public consumer::Greeter::Service {
  absl::Status SayHello(shmrpc::ServerContext* context, const consumer::HelloRequest* request,
                        common::Text* reply) override {
    reply->set_text("Hello, " + request->name() + "!");
    return absl::OkStatus();
  }
};

int main() {
  GreeterImpl service;
  shmrpc::ServerBuilder builder(shmrpc::TransportsWithGrpc());
  builder.Listen("127.0.0.1:0").Register(&service);
  const auto reflection = shmrpc::AddReflection(&builder);
  auto server = builder.Start();
  if (!server.ok()) {
    std::cerr << server.status() << "\n";
    return 1;
  }
  shmrpc::ChannelOptions options;
  options.transport = shmrpc::TransportPreference::kGrpc;
  const auto channel = shmrpc::Channel::Create((*server)->addresses().front().ToString(), options,
                                               shmrpc::TransportsWithGrpc());
  consumer::Greeter::Stub greeter(channel);
  consumer::HelloRequest request;
  request.set_name("package");
  const absl::StatusOr<common::Text> reply = greeter.SayHello(request);
  if (!reply.ok()) {
    std::cerr << reply.status() << "\n";
    return 1;
  }
  std::cout << reply->text() << " " << channel->transport() << "\n";
  return 0;
}
