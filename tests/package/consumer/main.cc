// A server and a client in one process, over the transport that needs nothing else.

#include <iostream>

#include "greeter.shmrpc.pb.h"
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
  auto server = shmrpc::ServerBuilder().Listen("inproc:consumer").Register(&service).Start();
  if (!server.ok()) {
    std::cerr << server.status() << "\n";
    return 1;
  }
  consumer::Greeter::Stub greeter(shmrpc::Channel::Create("inproc:consumer"));
  consumer::HelloRequest request;
  request.set_name("package");
  const absl::StatusOr<common::Text> reply = greeter.SayHello(request);
  if (!reply.ok()) {
    std::cerr << reply.status() << "\n";
    return 1;
  }
  std::cout << reply->text() << "\n";
  return 0;
}
