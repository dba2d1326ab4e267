#ifndef SHMRPC_TESTS_BENCH_STUB_SERVICE_H_
#define SHMRPC_TESTS_BENCH_STUB_SERVICE_H_

// What the handlers of BenchmarkService do, for shmrpc's streams and gRPC's alike: both are given the same work.

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grpc/testing/messages.pb.h"
#include "tests/bench/payload.h"

namespace shmrpc::bench {

// UnaryCall.
inline void SendBack(const grpc::testing::SimpleRequest& request, grpc::testing::SimpleResponse* response) {
  *response->mutable_payload() = request.payload();
}

// StreamingCall: each payload as it comes.
template <typename Stream>
void SendBackEach(Stream* stream) {
  grpc::testing::SimpleRequest request;
  grpc::testing::SimpleResponse response;
  while (stream->Read(&request)) {
    SendBack(request, &response);
    if (!stream->Write(response)) return;
  }
}

// StreamingFromClient: checks the payloads as they come; the last one is the response.
template <typename Reader>
absl::Status TakeAll(Reader* reader, const std::string& expected, grpc::testing::SimpleResponse* response) {
  StreamCheck check(expected);
  grpc::testing::SimpleRequest request;
  while (reader->Read(&request)) {
    const absl::Status status = check.Check(request.payload().body());
    if (!status.ok()) return status;
    // Not copied: only the last one is wanted, but a Read that finds no more may leave anything in `request`.
    response->mutable_payload()->Swap(request.mutable_payload());
  }
  return absl::OkStatus();
}

// StreamingFromServer: the request's payload with the next numbers, until the client has had enough.
template <typename Writer>
void SendAgainAndAgain(const grpc::testing::SimpleRequest& request, Writer* writer) {
  grpc::testing::SimpleResponse response;
  SendBack(request, &response);
  std::string* const body = response.mutable_payload()->mutable_body();
  do {
    SetNextNumber(absl::MakeSpan(&(*body)[0], body->size()));
  } while (writer->Write(response));
}

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_STUB_SERVICE_H_
