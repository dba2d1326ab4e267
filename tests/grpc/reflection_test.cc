// Server reflection, asked through a client of the gRPC library that has the service's own definition.

#include "shmrpc/reflection.h"

#include <memory>
#include <set>
#include <string>

#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpc/reflection/v1/reflection.shmrpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.shmrpc.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/grpc.h"
#include "shmrpc/shmrpc.h"
#include "transports/grpc/standard_services.h"

namespace shmrpc {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

class ReflectionTest : public testing::Test {
 protected:
  ReflectionTest() {
    ServerBuilder builder(TransportsWithGrpc());
    builder.Listen("127.0.0.1:0").Register(&service_);
    reflection_ = AddReflection(&builder);
    absl::StatusOr<std::unique_ptr<Server>> server = builder.Start();
    EXPECT_TRUE(server.ok()) << server.status();
    if (server.ok()) server_ = *std::move(server);
  }

  // Asks one question on a stream of its own.
  template <typename Service, typename Request, typename Response>
  Response Ask(const Request& request) {
    ChannelOptions options;
    options.transport = TransportPreference::kGrpc;
    typename Service::Stub stub(
        Channel::Create(server_->addresses().front().ToString(), options, TransportsWithGrpc()));
    ClientContext context;
    const auto stream = stub.ServerReflectionInfo(&context);
    EXPECT_TRUE(stream->Write(request));
    Response response;
    EXPECT_TRUE(stream->Read(&response));
    EXPECT_TRUE(stream->WritesDone());
    Response none;
    EXPECT_FALSE(stream->Read(&none));
    EXPECT_EQ(stream->Finish(), absl::OkStatus());
    return response;
  }

  using Request = grpc::reflection::v1alpha::ServerReflectionRequest;
  using Response = grpc::reflection::v1alpha::ServerReflectionResponse;
  Response AskV1Alpha(const Request& request) {
    return Ask<grpc::reflection::v1alpha::ServerReflection, Request, Response>(request);
  }

  conformance::EchoService service_;
  std::unique_ptr<Reflection> reflection_;
  std::unique_ptr<Server> server_;
};

template <typename Response>
std::set<std::string> ServicesIn(const Response& response) {
  std::set<std::string> names;
  for (const auto& service : response.list_services_response().service()) names.insert(service.name());
  return names;
}

TEST_F(ReflectionTest, ListsServicesInBothVersions) {
  const auto expected = testing::ElementsAre("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                                             "grpc.reflection.v1alpha.ServerReflection", "shmrpc.conformance.Echo");
  Request request;
  request.set_host("here");
  request.set_list_services("*");
  const Response response = AskV1Alpha(request);
  EXPECT_THAT(ServicesIn(response), expected);
  EXPECT_EQ(response.valid_host(), "here");
  EXPECT_EQ(response.original_request().list_services(), "*");

  grpc::reflection::v1::ServerReflectionRequest v1;
  v1.set_list_services("");
  EXPECT_THAT(ServicesIn(Ask<grpc::reflection::v1::ServerReflection, grpc::reflection::v1::ServerReflectionRequest,
                             grpc::reflection::v1::ServerReflectionResponse>(v1)),
              expected);
}

TEST_F(ReflectionTest, DescribesWhatDeclaresASymbolAndItsImports) {
  for (const char* symbol : {"shmrpc.conformance.Echo", "shmrpc.conformance.Echo.Nothing",
                             "shmrpc.conformance.EchoRequest", "shmrpc.conformance.Status.Detail"}) {
    Request request;
    request.set_file_containing_symbol(symbol);
    const Response response = AskV1Alpha(request);
    ASSERT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 1) << symbol;
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
    EXPECT_EQ(file.name(), "conformance.proto");
    EXPECT_EQ(file.service(0).name(), "Echo");
  }
  Request request;
  request.set_file_by_filename("google/protobuf/api.proto");
  EXPECT_EQ(AskV1Alpha(request).file_descriptor_response().file_descriptor_proto_size(), 4) << "it imports, in the "
                                                                                               "end, three more";
}

// A program need not have the definitions of the services that the library brings.
TEST_F(ReflectionTest, DescribesHealthAndReflectionThemselves) {
  for (const char* symbol : {"grpc.health.v1.Health", "grpc.health.v1.HealthCheckResponse.ServingStatus",
                             "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}) {
    Request request;
    request.set_file_containing_symbol(symbol);
    const Response response = AskV1Alpha(request);
    ASSERT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 1) << symbol;
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
    ASSERT_EQ(file.service_size(), 1) << symbol;
  }
}

// Of reflection this program has the original: the library's own is the same.
TEST(StandardServicesTest, AreTheProtocols) {
  const google::protobuf::DescriptorPool& original = *google::protobuf::DescriptorPool::generated_pool();
  const google::protobuf::DescriptorPool& own = grpc_transport::StandardServices();
  for (const std::string package : {"grpc.reflection.v1", "grpc.reflection.v1alpha"}) {
    const auto* const own_service = own.FindServiceByName(package + ".ServerReflection");
    const auto* const original_service = original.FindServiceByName(package + ".ServerReflection");
    ASSERT_TRUE(own_service != nullptr && original_service != nullptr);
    EXPECT_EQ(own_service->DebugString(), original_service->DebugString());
    ASSERT_EQ(own_service->file()->message_type_count(), original_service->file()->message_type_count());
    for (int i = 0; i < own_service->file()->message_type_count(); ++i) {
      EXPECT_EQ(own_service->file()->message_type(i)->DebugString(),
                original_service->file()->message_type(i)->DebugString());
    }
  }
}

TEST_F(ReflectionTest, DescribesExtensions) {
  Request request;
  request.mutable_file_containing_extension()->set_containing_type("shmrpc.conformance.EchoRequest");
  request.mutable_file_containing_extension()->set_extension_number(100);
  EXPECT_EQ(AskV1Alpha(request).error_response().error_code(), 5);
  request.set_all_extension_numbers_of_type("shmrpc.conformance.EchoRequest");
  EXPECT_EQ(AskV1Alpha(request).all_extension_numbers_response().base_type_name(), "shmrpc.conformance.EchoRequest");
}

// To look for them takes a time that grows with the square of their length, and a lock of the whole process.
TEST_F(ReflectionTest, NamesAndQuestionsThatAreTooLongAreRefusedAtOnce) {
  std::string name = "a";
  while (name.size() <= 512) name += ".a";
  Request request;
  request.set_file_containing_symbol(name);
  EXPECT_EQ(AskV1Alpha(request).error_response().error_code(), 5);
  request.set_all_extension_numbers_of_type(name);
  EXPECT_EQ(AskV1Alpha(request).error_response().error_code(), 5);
  while (name.size() < 16 << 20) name += name;
  name.resize(8 << 20);  // it would be found out tomorrow
  request.set_file_containing_symbol(name);
  ChannelOptions options;
  options.transport = TransportPreference::kGrpc;
  grpc::reflection::v1alpha::ServerReflection::Stub stub(
      Channel::Create(server_->addresses().front().ToString(), options, TransportsWithGrpc()));
  ClientContext context;
  const auto stream = stub.ServerReflectionInfo(&context);
  EXPECT_TRUE(stream->Write(request));
  Response response;
  EXPECT_FALSE(stream->Read(&response));
  const absl::Status status = stream->Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("4096"));
}

TEST_F(ReflectionTest, SaysWhatItDoesNotKnow) {
  Request request;
  request.set_file_containing_symbol("no.such.Thing");
  Response response = AskV1Alpha(request);
  EXPECT_EQ(response.error_response().error_code(), 5);
  EXPECT_THAT(response.error_response().error_message(), HasSubstr("no.such.Thing"));
  request.set_file_by_filename("no.proto");
  EXPECT_EQ(AskV1Alpha(request).error_response().error_code(), 5);
  EXPECT_EQ(AskV1Alpha(Request()).error_response().error_code(), 3);
}

}  // namespace
}  // namespace shmrpc
