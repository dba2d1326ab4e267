#ifndef SHMRPC_TESTS_INTEROP_SHMRPC_SERVICE_H_
#define SHMRPC_TESTS_INTEROP_SHMRPC_SERVICE_H_

#include "grpc/testing/test.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

namespace shmrpc::interop {

// gRPC's interoperability service, as its description of the test cases has it. Without UnimplementedCall.
class TestServiceImpl final : public ::grpc::testing::TestService::Service {
 public:
  using Empty = ::grpc::testing::Empty;
  using SimpleRequest = ::grpc::testing::SimpleRequest;
  using SimpleResponse = ::grpc::testing::SimpleResponse;
  using InRequest = ::grpc::testing::StreamingInputCallRequest;
  using InResponse = ::grpc::testing::StreamingInputCallResponse;
  using OutRequest = ::grpc::testing::StreamingOutputCallRequest;
  using OutResponse = ::grpc::testing::StreamingOutputCallResponse;

  absl::Status EmptyCall(ServerContext* context, const Empty* request, Empty* response) override;
  absl::Status UnaryCall(ServerContext* context, const SimpleRequest* request, SimpleResponse* response) override;
  absl::Status StreamingOutputCall(ServerContext* context, const OutRequest* request,
                                   ServerWriter<OutResponse>* writer) override;
  absl::Status StreamingInputCall(ServerContext* context, ServerReader<InRequest>* reader,
                                  InResponse* response) override;
  absl::Status FullDuplexCall(ServerContext* context, ServerReaderWriter<OutResponse, OutRequest>* stream) override;
};

}  // namespace shmrpc::interop

#endif  // SHMRPC_TESTS_INTEROP_SHMRPC_SERVICE_H_
