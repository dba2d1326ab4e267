#include "shmrpc_service.h"

#include <string>

#include "absl/time/clock.h"
#include "cases.h"

namespace shmrpc::interop {
namespace {

void EchoMetadata(ServerContext* context) {
  for (const auto& [key, value] : context->client_metadata()) {
    if (key == kEchoInitialKey) context->AddInitialMetadata(key, value);
    if (key == kEchoTrailingKey) context->AddTrailingMetadata(key, value);
  }
}

template <typename Request>
absl::Status WantedStatus(const Request& request) {
  if (!request.has_response_status()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(request.response_status().code()),
                      request.response_status().message());
}

// Sends what one request asks for. False when the call is over.
template <typename Writer>
bool SendResponses(const TestServiceImpl::OutRequest& request, Writer* writer) {
  for (const auto& parameters : request.response_parameters()) {
    if (parameters.interval_us() > 0) absl::SleepFor(absl::Microseconds(parameters.interval_us()));
    TestServiceImpl::OutResponse response;
    response.mutable_payload()->set_body(std::string(parameters.size(), '\0'));
    if (!writer->Write(response)) return false;
  }
  return true;
}

}  // namespace

absl::Status TestServiceImpl::EmptyCall(ServerContext* context, const Empty*, Empty*) {
  EchoMetadata(context);
  return absl::OkStatus();
}

absl::Status TestServiceImpl::UnaryCall(ServerContext* context, const SimpleRequest* request,
                                        SimpleResponse* response) {
  EchoMetadata(context);
  response->mutable_payload()->set_body(std::string(request->response_size(), '\0'));
  return WantedStatus(*request);
}

absl::Status TestServiceImpl::StreamingOutputCall(ServerContext* context, const OutRequest* request,
                                                  ServerWriter<OutResponse>* writer) {
  EchoMetadata(context);
  SendResponses(*request, writer);
  return WantedStatus(*request);
}

absl::Status TestServiceImpl::StreamingInputCall(ServerContext* context, ServerReader<InRequest>* reader,
                                                 InResponse* response) {
  EchoMetadata(context);
  int size = 0;
  for (InRequest request; reader->Read(&request);) size += static_cast<int>(request.payload().body().size());
  response->set_aggregated_payload_size(size);
  return absl::OkStatus();
}

absl::Status TestServiceImpl::FullDuplexCall(ServerContext* context,
                                             ServerReaderWriter<OutResponse, OutRequest>* stream) {
  EchoMetadata(context);
  for (OutRequest request; stream->Read(&request);) {
    absl::Status status = WantedStatus(request);
    if (!status.ok()) return status;
    if (!SendResponses(request, stream)) break;
  }
  return absl::OkStatus();
}

}  // namespace shmrpc::interop
