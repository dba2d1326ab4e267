// Uses of gRPC that docs/from-grpc.sed cannot move: each has to be an error of the compiler afterwards, so that nobody
// loses it without a word. One name in each marked line.
#include <grpcpp/grpcpp.h>

#include <memory>

void Use(const std::shared_ptr<grpc::Channel>& channel, grpc::ServerBuilder* builder, grpc::ServerContext* context) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();             // stays
  grpc::Alarm alarm;                                                      // stays
  grpc::ChannelArguments arguments;                                       // stays
  builder->AddChannelArgument("grpc.max_concurrent_streams", 100);        // stays
  auto credentials = grpc::SslCredentials(grpc::SslCredentialsOptions());  // stays
  auto found = context->client_metadata().find("key");                    // stays
  grpc::experimental::ClientRpcInfo* info = nullptr;                      // stays
  grpc::TemplatedGenericStub<int, int> stub(channel);                     // stays
  grpc::EnableDefaultHealthCheckService(false);                           // stays
}
