// What generated code does for unary methods: the table of methods, the defaults, the stub against a server, the mock
// without one.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "behaviour.shmrpc.mock.pb.h"
#include "behaviour.shmrpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/shmrpc.h"
#include "tests/codegen/echo_services.h"

namespace behaviour {
namespace {

using ::testing::_;
using ::testing::DoAll;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsNull;
using ::testing::Return;
using ::testing::SetArgPointee;

TEST(GeneratedServiceTest, NamesAndPathsAreThoseOfTheProto) {
  SyncEcho echo;
  EXPECT_EQ(std::string(Echo::kServiceName), "behaviour.Echo");
  EXPECT_EQ(echo.ShmrpcServiceName(), "behaviour.Echo");
  std::vector<std::string> paths;
  for (const shmrpc::ServiceMethod& method : echo.ShmrpcMethods()) paths.push_back(method.path);
  EXPECT_THAT(paths, ElementsAre("/behaviour.Echo/Say", "/behaviour.Echo/class", "/behaviour.Echo/Spell",
                                 "/behaviour.Echo/Join", "/behaviour.Echo/Talk", "/behaviour.Echo/Forgotten"));

  register_::Service escaped;
  EXPECT_EQ(escaped.ShmrpcServiceName(), "behaviour.register");
  ASSERT_EQ(escaped.ShmrpcMethods().size(), 1u);
  EXPECT_EQ(std::string(escaped.ShmrpcMethods()[0].path), "/behaviour.register/Say");
}

TEST(GeneratedServiceTest, ServiceWithoutMethods) {
  Empty::Service service;
  EXPECT_EQ(service.ShmrpcServiceName(), "behaviour.Empty");
  EXPECT_TRUE(service.ShmrpcMethods().empty());
}

TEST(GeneratedServiceTest, TableInvokesTheOverride) {
  SyncEcho echo;
  const Request request = MakeRequest("x");
  for (const auto& [index, expected] : {std::pair(0, "say x"), std::pair(1, "class x")}) {
    const shmrpc::ServiceMethod& method = echo.ShmrpcMethods()[index];
    EXPECT_EQ(&method.request_prototype(), &Request::default_instance());
    const std::unique_ptr<google::protobuf::MessageLite> reply(method.reply_prototype().New());
    ASSERT_TRUE(method.invoke(&echo, nullptr, &request, reply.get(), nullptr).ok());
    EXPECT_EQ(static_cast<const Reply&>(*reply).text(), expected);
  }
}

TEST(GeneratedServiceTest, DefaultIsUnimplementedAndNamesTheMethod) {
  SyncEcho echo;
  Request request;
  Reply reply;
  const absl::Status status = echo.Forgotten(nullptr, &request, &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/behaviour.Echo/Forgotten"));
}

class GeneratedUnaryStubTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string address =
        absl::StrCat("inproc:", ::testing::UnitTest::GetInstance()->current_test_info()->name());
    absl::StatusOr<std::unique_ptr<shmrpc::Server>> server =
        shmrpc::ServerBuilder().Listen(address).Register(&echo_).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = std::make_unique<Echo::Stub>(shmrpc::Channel::Create(address));
  }

  SyncEcho echo_;
  std::unique_ptr<shmrpc::Server> server_;
  std::unique_ptr<Echo::Stub> stub_;
};

TEST_F(GeneratedUnaryStubTest, AllFormsReachTheServer) {
  const absl::StatusOr<Reply> as_function = stub_->Say(MakeRequest("1"));
  ASSERT_TRUE(as_function.ok()) << as_function.status();
  EXPECT_EQ(as_function->text(), "say 1");

  shmrpc::ClientContext context;
  const absl::StatusOr<Reply> with_context = stub_->Say(&context, MakeRequest("2"));
  ASSERT_TRUE(with_context.ok()) << with_context.status();
  EXPECT_EQ(with_context->text(), "say 2");

  shmrpc::ClientContext another_context;
  Reply reply;
  const absl::Status status = stub_->class_(&another_context, MakeRequest("3"), &reply);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(reply.text(), "class 3");

  const Request request = MakeRequest("4");
  absl::Notification done;
  absl::Status async_status;
  stub_->async().Say(nullptr, &request, &reply, [&](absl::Status status) {
    async_status = std::move(status);
    done.Notify();
  });
  done.WaitForNotification();
  ASSERT_TRUE(async_status.ok()) << async_status;
  EXPECT_EQ(reply.text(), "say 4");
}

TEST_F(GeneratedUnaryStubTest, ErrorsComeBackFromAllForms) {
  EXPECT_EQ(stub_->Say(Request()).status(), absl::InvalidArgumentError("nothing to say"));
  shmrpc::ClientContext context;
  Reply reply;
  EXPECT_EQ(stub_->Say(&context, Request(), &reply), absl::InvalidArgumentError("nothing to say"));
  EXPECT_EQ(stub_->Forgotten(Request()).status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(GeneratedUnaryStubTest, CopiesShareTheChannel) {
  Echo::Stub copy = *stub_;
  stub_.reset();
  const absl::StatusOr<Reply> reply = copy.Say(MakeRequest("copy"));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->text(), "say copy");
}

// The code under test knows only the interface.
std::string AskTwice(Echo::StubInterface& stub) {
  const absl::StatusOr<Reply> first = stub.Say(MakeRequest("first"));
  if (!first.ok()) return std::string(first.status().message());
  shmrpc::ClientContext context;
  const absl::StatusOr<Reply> second = stub.Say(&context, MakeRequest("second"));
  if (!second.ok()) return std::string(second.status().message());
  return absl::StrCat(first->text(), ", ", second->text());
}

TEST(GeneratedMockTest, OneExpectationHoldsForAllFormsThatWait) {
  MockEchoStub stub;
  EXPECT_CALL(stub, Say(IsNull(), _, _)).WillOnce(DoAll(SetArgPointee<2>(MakeReply("one")), Return(absl::OkStatus())));
  EXPECT_CALL(stub, Say(::testing::NotNull(), _, _))
      .WillOnce([](shmrpc::ClientContext*, const Request& request, Reply* reply) {
        reply->set_text(request.text());
        return absl::OkStatus();
      });
  EXPECT_EQ(AskTwice(stub), "one, second");

  // The mock itself has all forms too.
  EXPECT_CALL(stub, Say(_, _, _)).WillOnce(Return(absl::UnavailableError("gone")));
  EXPECT_EQ(stub.Say(Request()).status(), absl::UnavailableError("gone"));
}

TEST(GeneratedMockTest, AsynchronousForm) {
  MockEchoStub mock;
  EXPECT_CALL(mock.async(), class_(_, _, _, _))
      .WillOnce([](shmrpc::ClientContext*, const Request* request, Reply* reply, shmrpc::StatusCallback done) {
        reply->set_text(request->text());
        done(absl::OkStatus());
      });
  Echo::StubInterface& stub = mock;
  const Request request = MakeRequest("x");
  Reply reply;
  bool called = false;
  stub.async().class_(nullptr, &request, &reply, [&](absl::Status status) { called = status.ok(); });
  EXPECT_TRUE(called);
  EXPECT_EQ(reply.text(), "x");
}

}  // namespace
}  // namespace behaviour
