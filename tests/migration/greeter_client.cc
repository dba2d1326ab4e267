// A gRPC client, as people write them; see greeter_server.cc.
//
// usage: greeter_client ADDRESS

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <condition_variable>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "greeter.grpc.pb.h"

using migration::Greeter;
using migration::HelloReply;
using migration::HelloRequest;

namespace {

HelloRequest Named(const std::string& name) {
  HelloRequest request;
  request.set_name(name);
  return request;
}

// Prints the replies of one call as they come.
class HelloPrinter final : public grpc::ClientReadReactor<HelloReply> {
 public:
  HelloPrinter(Greeter::Stub* stub, const HelloRequest* request) {
    stub->async()->SayHellos(&context_, request, this);
    StartRead(&reply_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    std::cout << "reactor: " << reply_.message() << std::endl;
    StartRead(&reply_);
  }

  void OnDone(const grpc::Status& status) override {
    std::unique_lock<std::mutex> lock(mutex_);
    status_ = status;
    done_ = true;
    changed_.notify_one();
  }

  grpc::Status Await() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    return status_;
  }

 private:
  grpc::ClientContext context_;
  HelloReply reply_;
  std::mutex mutex_;
  std::condition_variable changed_;
  grpc::Status status_;
  bool done_ = false;
};

class GreeterClient {
 public:
  explicit GreeterClient(std::shared_ptr<grpc::Channel> channel) : stub_(Greeter::NewStub(channel)) {}

  void SayHello(const std::string& name) {
    HelloReply reply;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    context.set_wait_for_ready(true);
    context.AddMetadata("who", "somebody");
    grpc::Status status = stub_->SayHello(&context, Named(name), &reply);
    if (status.ok()) {
      std::cout << "unary: " << reply.message() << std::endl;
    } else if (status.error_code() == grpc::StatusCode::INVALID_ARGUMENT) {
      std::cout << "unary: invalid: " << status.error_message() << std::endl;
    } else {
      const std::string message = status.error_message();
      std::cout << "unary: " << static_cast<int>(status.error_code()) << ": " << message << std::endl;
    }
  }

  void SayHellos(const std::string& name) {
    HelloReply reply;
    grpc::ClientContext context;
    const HelloRequest request = Named(name);
    std::unique_ptr<grpc::ClientReader<HelloReply>> reader(stub_->SayHellos(&context, request));
    while (reader->Read(&reply)) std::cout << "server streams: " << reply.message() << std::endl;
    const grpc::Status status = reader->Finish();
    std::cout << "server streams: " << (status.ok() ? "OK" : status.error_message()) << std::endl;
  }

  void GreetAll() {
    HelloReply reply;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientWriter<HelloRequest>> writer(stub_->GreetAll(&context, &reply));
    writer->Write(Named("Ada"));
    writer->WriteLast(Named("Grace"), grpc::WriteOptions());
    if (writer->Finish().ok()) std::cout << "client streams: " << reply.message() << std::endl;
  }

  void Chat() {
    HelloReply reply;
    grpc::ClientContext context;
    std::shared_ptr<grpc::ClientReaderWriter<HelloRequest, HelloReply>> stream(stub_->Chat(&context));
    for (const char* name : {"Ada", "Grace"}) {
      stream->Write(Named(name));
      if (stream->Read(&reply)) std::cout << "both stream: " << reply.message() << std::endl;
    }
    stream->WritesDone();
    std::cout << "both stream: " << stream->Finish().ok() << std::endl;
  }

  void WithCallbacks() {
    const HelloRequest request = Named("callback");
    HelloPrinter printer(stub_.get(), &request);
    const bool ok = printer.Await().ok();
    std::cout << "reactor: " << ok << std::endl;
  }

 private:
  std::unique_ptr<Greeter::Stub> stub_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string target = argv[1];
  GreeterClient client(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
  client.SayHello("world");
  client.SayHello("");
  client.SayHello("nobody");
  client.SayHellos("you");
  client.GreetAll();
  client.Chat();
  client.WithCallbacks();
  return 0;
}
