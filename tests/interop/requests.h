#ifndef SHMRPC_TESTS_INTEROP_REQUESTS_H_
#define SHMRPC_TESTS_INTEROP_REQUESTS_H_

// What the C++ clients of the matrix send: the messages are the same for both libraries.

#include <string>

#include "cases.h"
#include "grpc/testing/messages.pb.h"

namespace shmrpc::interop {

inline ::grpc::testing::SimpleRequest LargeRequest() {
  ::grpc::testing::SimpleRequest request;
  request.set_response_size(kLargeResponseBytes);
  request.mutable_payload()->set_body(std::string(kLargeRequestBytes, '\0'));
  return request;
}

inline ::grpc::testing::StreamingInputCallRequest InputRequest(int bytes) {
  ::grpc::testing::StreamingInputCallRequest request;
  request.mutable_payload()->set_body(std::string(bytes, '\0'));
  return request;
}

// One reply of each size.
inline ::grpc::testing::StreamingOutputCallRequest OutputRequest() {
  ::grpc::testing::StreamingOutputCallRequest request;
  for (const int size : kResponseSizes) request.add_response_parameters()->set_size(size);
  return request;
}

inline ::grpc::testing::StreamingOutputCallRequest PingRequest(int request_bytes, int response_bytes) {
  ::grpc::testing::StreamingOutputCallRequest request;
  request.add_response_parameters()->set_size(response_bytes);
  request.mutable_payload()->set_body(std::string(request_bytes, '\0'));
  return request;
}

// To be answered with UNKNOWN and `message`. For unary calls and for streams.
template <typename Request>
Request StatusRequest(const std::string& message) {
  Request request;
  request.mutable_response_status()->set_code(2);
  request.mutable_response_status()->set_message(message);
  return request;
}

}  // namespace shmrpc::interop

#endif  // SHMRPC_TESTS_INTEROP_REQUESTS_H_
