#ifndef SHMRPC_TESTS_GRPC_GRPC_CALLER_H_
#define SHMRPC_TESTS_GRPC_GRPC_CALLER_H_

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <memory>
#include <string>

#include "conformance.pb.h"

namespace shmrpc::conformance {

// Calls Echo through the gRPC library's own client, over a connection of its own. Thread-safe.
class GrpcEchoCaller {
 public:
  explicit GrpcEchoCaller(const std::string& target, const std::shared_ptr<grpc::ChannelCredentials>& credentials =
                                                         grpc::InsecureChannelCredentials()) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = std::make_unique<grpc::TemplatedGenericStub<EchoRequest, EchoReply>>(
        grpc::CreateCustomChannel(target, credentials, arguments));
  }

  grpc::Status Call(const EchoRequest& request, EchoReply* reply,
                    grpc_compression_algorithm compression = GRPC_COMPRESS_NONE) {
    grpc::ClientContext context;
    context.set_compression_algorithm(compression);
    grpc::CompletionQueue queue;
    const auto call = stub_->PrepareUnaryCall(&context, "/shmrpc.conformance.Echo/Echo", request, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(reply, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) {
    }
    return status;
  }

 private:
  std::unique_ptr<grpc::TemplatedGenericStub<EchoRequest, EchoReply>> stub_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_GRPC_GRPC_CALLER_H_
