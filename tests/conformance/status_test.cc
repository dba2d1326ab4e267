// A call ends with exactly the status that its handler returned.

#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "fixture.h"

namespace shmrpc::conformance {
namespace {

using testing::HasSubstr;

class StatusCaller {
 public:
  explicit StatusCaller(const std::shared_ptr<Channel>& channel) : stub_(channel) {}

  // What arrives when the handler returns `status`.
  absl::Status Call(const absl::Status& status) { return Call(ToProto(status)); }
  absl::Status Call(const Status& status) {
    EchoRequest request;
    *request.mutable_status() = status;
    return stub_.Echo(request).status();
  }

 private:
  Echo::Stub stub_;
};

TEST_P(ConformanceTest, StatusEveryCode) {
  StartServer();
  StatusCaller caller(NewChannel());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "as the handler said");
    EXPECT_EQ(caller.Call(status), status);
  }
}

TEST_P(ConformanceTest, StatusCodeOutOfRangeIsUnknown) {
  StartServer();
  StatusCaller caller(NewChannel());
  for (const int code : {17, 99, 1 << 20, -1}) {
    Status status;
    status.set_code(code);
    status.set_message("no such code");
    const absl::Status received = caller.Call(status);
    EXPECT_EQ(received.code(), absl::StatusCode::kUnknown) << code << " became " << received;
  }
}

TEST_P(ConformanceTest, StatusEveryMessage) {
  StartServer();
  StatusCaller caller(NewChannel());
  const std::vector<std::string> messages = {
      "",
      " ",
      "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n",
      "100% of %41 is not an escape",
      std::string("a zero byte \0 inside", 20),
      std::string(1024, 'm'),
      std::string(5000, 'M'),
      "\u00fc" + std::string(1500, '\n'),
  };
  for (const std::string& message : messages) {
    const absl::Status status = absl::FailedPreconditionError(message);
    EXPECT_EQ(caller.Call(status), status);
  }
}

TEST_P(ConformanceTest, StatusMessageOfOneMiBIsCutOrRefusedButTheCodeArrives) {
  StartServer();
  const auto channel = NewChannel();
  StatusCaller caller(channel);
  const absl::Status received = caller.Call(absl::DataLossError(std::string(1 << 20, 'm')));
  EXPECT_TRUE(received.code() == absl::StatusCode::kDataLoss || received.code() == absl::StatusCode::kResourceExhausted)
      << received.code();
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, StatusMessageThatIsNotUtf8KeepsItsCode) {
  StartServer();
  const auto channel = NewChannel();
  StatusCaller caller(channel);
  EXPECT_EQ(caller.Call(absl::NotFoundError("bad \xff\xc0 text")).code(), absl::StatusCode::kNotFound);
  ExpectEcho(channel);
}

TEST_P(ConformanceTest, StatusDetails) {
  StartServer();
  StatusCaller caller(NewChannel());
  absl::Status status = absl::AbortedError("with details");
  status.SetPayload("type.googleapis.com/test.Empty", absl::Cord(""));
  status.SetPayload("type.googleapis.com/test.Binary", absl::Cord(RandomBytes(300, 1)));
  status.SetPayload("type.googleapis.com/test.Text", absl::Cord("text"));

  const absl::Status received = caller.Call(status);
  EXPECT_EQ(received, status);
  EXPECT_EQ(received.GetPayload("type.googleapis.com/test.Text"), absl::Cord("text"));
}

TEST_P(ConformanceTest, StatusDetailsOfTheCallBeforeAreGone) {
  StartServer();
  StatusCaller caller(NewChannel());
  absl::Status with_details = absl::AbortedError("with details");
  with_details.SetPayload("type.googleapis.com/test.Text", absl::Cord("text"));
  const absl::Status without_details = absl::AbortedError("without");
  EXPECT_EQ(caller.Call(with_details), with_details);
  EXPECT_EQ(caller.Call(without_details), without_details);
}

TEST_P(ConformanceTest, StatusOkHasNeitherMessageNorDetails) {
  StartServer();
  Echo::Stub stub(NewChannel());
  EchoRequest request;
  request.set_payload("payload");
  request.mutable_status()->set_code(0);
  request.mutable_status()->set_message("ignored");
  Status::Detail* detail = request.mutable_status()->add_details();
  detail->set_type_url("type.googleapis.com/test.Text");
  detail->set_value("ignored");

  ClientContext context;
  EchoReply reply;
  EXPECT_EQ(stub.Echo(&context, request, &reply), absl::OkStatus());
  EXPECT_EQ(reply.payload(), "payload");
}

TEST_P(ConformanceTest, StatusOfAHandlerThatThrowsIsUnknown) {
  StartServer();
  const auto channel = NewChannel();
  Echo::Stub stub(channel);
  EchoRequest request;
  request.set_throw_exception("out of cheese");
  const absl::Status status = stub.Echo(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/shmrpc.conformance.Echo/Echo"));
  ExpectEcho(channel);
}

}  // namespace
}  // namespace shmrpc::conformance
