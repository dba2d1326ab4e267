#include "transports/grpc/standard_services.h"

#include <string>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/compiler/parser.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace shmrpc::grpc_transport {
namespace {

// Names and numbers are the protocols': https://github.com/grpc/grpc/blob/master/doc/health-checking.md and
// server-reflection.md.
constexpr char kHealth[] = R"(
syntax = "proto3";
package grpc.health.v1;
service Health {
  rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
  rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
}
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse {
  enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
  ServingStatus status = 1;
}
)";

// Both versions of reflection, after their package.
constexpr char kReflection[] = R"(
service ServerReflection {
  rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse);
}
message ServerReflectionRequest {
  string host = 1;
  oneof message_request {
    string file_by_filename = 3;
    string file_containing_symbol = 4;
    ExtensionRequest file_containing_extension = 5;
    string all_extension_numbers_of_type = 6;
    string list_services = 7;
  }
}
message ExtensionRequest { string containing_type = 1; int32 extension_number = 2; }
message ServerReflectionResponse {
  string valid_host = 1;
  ServerReflectionRequest original_request = 2;
  oneof message_response {
    FileDescriptorResponse file_descriptor_response = 4;
    ExtensionNumberResponse all_extension_numbers_response = 5;
    ListServiceResponse list_services_response = 6;
    ErrorResponse error_response = 7;
  }
}
message FileDescriptorResponse { repeated bytes file_descriptor_proto = 1; }
message ExtensionNumberResponse { string base_type_name = 1; repeated int32 extension_number = 2; }
message ListServiceResponse { repeated ServiceResponse service = 1; }
message ServiceResponse { string name = 1; }
message ErrorResponse { int32 error_code = 1; string error_message = 2; }
)";

void Add(google::protobuf::DescriptorPool* pool, const char* name, const std::string& text) {
  google::protobuf::io::ArrayInputStream input(text.data(), static_cast<int>(text.size()));
  google::protobuf::io::Tokenizer tokenizer(&input, nullptr);
  google::protobuf::compiler::Parser parser;
  google::protobuf::FileDescriptorProto file;
  const bool parsed = parser.Parse(&tokenizer, &file);
  file.set_name(name);
  ABSL_RAW_CHECK(parsed && pool->BuildFile(file) != nullptr, "a standard service's definition is wrong");
}

}  // namespace

const google::protobuf::DescriptorPool& StandardServices() {
  static const google::protobuf::DescriptorPool* const pool = [] {
    auto* const made = new google::protobuf::DescriptorPool;
    Add(made, "grpc/health/v1/health.proto", kHealth);
    for (const char* version : {"v1", "v1alpha"}) {
      Add(made, absl::StrCat("grpc/reflection/", version, "/reflection.proto").c_str(),
          absl::StrCat("syntax = \"proto3\"; package grpc.reflection.", version, ";", kReflection));
    }
    return made;
  }();
  return *pool;
}

}  // namespace shmrpc::grpc_transport
