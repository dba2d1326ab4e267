#include "shmrpc_client.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "grpc/testing/test.shmrpc.pb.h"
#include "requests.h"
#include "shmrpc/grpc.h"
#include "shmrpc/mutex.h"
#include "shmrpc/shmrpc.h"

namespace shmrpc::interop {
namespace {

using ::grpc::testing::Empty;
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;
using ::grpc::testing::StreamingInputCallResponse;
using ::grpc::testing::StreamingOutputCallRequest;
using ::grpc::testing::StreamingOutputCallResponse;
using ::grpc::testing::TestService;
using ::grpc::testing::UnimplementedService;

constexpr absl::Duration kPatience = absl::Seconds(60);

class Client {
 public:
  explicit Client(const std::string& address) {
    const size_t at = address.find('@');
    address_ = address.substr(0, at);
    if (at != std::string::npos) options_.transport = ParseTransportPreference(address.substr(at + 1)).value();
    channel_ = NewChannel();
  }

  void EmptyUnary() {
    const absl::StatusOr<Empty> reply = TestService::Stub(channel_).EmptyCall(Empty());
    INTEROP_CHECK(reply.ok(), reply.status());
  }

  void LargeUnary() { LargeUnaryOn(channel_); }

  void ClientStreaming() {
    TestService::Stub stub(channel_);
    ClientContext context;
    StreamingInputCallResponse reply;
    const auto writer = stub.StreamingInputCall(&context, &reply);
    for (const int size : kRequestSizes) {
      INTEROP_CHECK(writer->Write(InputRequest(size)), writer->Finish());
    }
    writer->WritesDone();
    const absl::Status status = writer->Finish();
    INTEROP_CHECK(status.ok(), status);
    INTEROP_CHECK(reply.aggregated_payload_size() == 74922, reply.aggregated_payload_size());
  }

  void ServerStreaming() {
    TestService::Stub stub(channel_);
    ClientContext context;
    const auto reader = stub.StreamingOutputCall(&context, OutputRequest());
    StreamingOutputCallResponse reply;
    for (const int size : kResponseSizes) {
      INTEROP_CHECK(reader->Read(&reply), "the stream ended early");
      INTEROP_CHECK(static_cast<int>(reply.payload().body().size()) == size, reply.payload().body().size());
    }
    INTEROP_CHECK(!reader->Read(&reply), "more messages than asked for");
    const absl::Status status = reader->Finish();
    INTEROP_CHECK(status.ok(), status);
  }

  void PingPong() {
    TestService::Stub stub(channel_);
    ClientContext context;
    const auto stream = stub.FullDuplexCall(&context);
    for (size_t i = 0; i < std::size(kRequestSizes); ++i) {
      INTEROP_CHECK(stream->Write(PingRequest(kRequestSizes[i], kResponseSizes[i])), i);
      StreamingOutputCallResponse reply;
      INTEROP_CHECK(stream->Read(&reply), i);
      INTEROP_CHECK(static_cast<int>(reply.payload().body().size()) == kResponseSizes[i], i);
    }
    stream->WritesDone();
    StreamingOutputCallResponse none;
    INTEROP_CHECK(!stream->Read(&none), "a message after the last");
    const absl::Status status = stream->Finish();
    INTEROP_CHECK(status.ok(), status);
  }

  void EmptyStream() {
    TestService::Stub stub(channel_);
    ClientContext context;
    const auto stream = stub.FullDuplexCall(&context);
    stream->WritesDone();
    StreamingOutputCallResponse none;
    INTEROP_CHECK(!stream->Read(&none), "a message that nobody asked for");
    const absl::Status status = stream->Finish();
    INTEROP_CHECK(status.ok(), status);
  }

  void CustomMetadata() {
    TestService::Stub stub(channel_);
    {
      ClientContext context;
      AddMetadata(&context);
      SimpleRequest request;
      request.set_response_size(1);
      SimpleResponse reply;
      const absl::Status status = stub.UnaryCall(&context, request, &reply);
      INTEROP_CHECK(status.ok(), status);
      CheckMetadata(context);
    }
    ClientContext context;
    AddMetadata(&context);
    const auto stream = stub.FullDuplexCall(&context);
    StreamingOutputCallResponse reply;
    INTEROP_CHECK(stream->Write(PingRequest(1, 1)) && stream->Read(&reply), stream->Finish());
    stream->WritesDone();
    const absl::Status status = stream->Finish();
    INTEROP_CHECK(status.ok(), status);
    CheckMetadata(context);
  }

  void StatusCodeAndMessage() {
    CheckUnaryStatus(kStatusMessage);
    TestService::Stub stub(channel_);
    ClientContext context;
    const auto stream = stub.FullDuplexCall(&context);
    stream->Write(StatusRequest<StreamingOutputCallRequest>(kStatusMessage));
    stream->WritesDone();
    const absl::Status status = stream->Finish();
    INTEROP_CHECK(status == absl::UnknownError(kStatusMessage), status);
  }

  void SpecialStatusMessage() { CheckUnaryStatus(kSpecialMessage); }

  void UnimplementedMethod() {
    const absl::Status status = TestService::Stub(channel_).UnimplementedCall(Empty()).status();
    INTEROP_CHECK(absl::IsUnimplemented(status), status);
  }

  void UnimplementedServiceCalled() {
    const absl::Status status = UnimplementedService::Stub(channel_).UnimplementedCall(Empty()).status();
    INTEROP_CHECK(absl::IsUnimplemented(status), status);
  }

  void CancelAfterBegin() {
    TestService::Stub stub(channel_);
    ClientContext context;
    StreamingInputCallResponse reply;
    const auto writer = stub.StreamingInputCall(&context, &reply);
    context.TryCancel();
    const absl::Status status = writer->Finish();
    INTEROP_CHECK(absl::IsCancelled(status), status);
  }

  void CancelAfterFirstResponse() {
    TestService::Stub stub(channel_);
    ClientContext context;
    const auto stream = stub.FullDuplexCall(&context);
    StreamingOutputCallResponse reply;
    INTEROP_CHECK(stream->Write(PingRequest(27182, 31415)) && stream->Read(&reply), stream->Finish());
    context.TryCancel();
    const absl::Status status = stream->Finish();
    INTEROP_CHECK(absl::IsCancelled(status), status);
  }

  void TimeoutOnSleepingServer() {
    EmptyUnary();  // connected
    TestService::Stub stub(channel_);
    ClientContext context;
    context.set_timeout(absl::Milliseconds(1));
    const auto stream = stub.FullDuplexCall(&context);
    stream->Write(PingRequest(27182, 31415));
    StreamingOutputCallResponse reply;
    while (stream->Read(&reply)) {
    }
    const absl::Status status = stream->Finish();
    INTEROP_CHECK(absl::IsDeadlineExceeded(status), status);
  }

  void ConcurrentLargeUnary() {
    TestService::Stub stub(channel_);
    const SimpleRequest request = LargeRequest();
    Mutex mutex;
    CondVar changed;
    int running = kConcurrentCalls, failed = 0;
    std::string why;
    std::vector<SimpleResponse> replies(kConcurrentCalls);
    std::vector<ClientContext> contexts(kConcurrentCalls);
    for (int i = 0; i < kConcurrentCalls; ++i) {
      stub.async().UnaryCall(&contexts[i], &request, &replies[i], [&, i](absl::Status status) {
        MutexLock lock(&mutex);
        const bool right = status.ok() && replies[i].payload().body().size() == kLargeResponseBytes;
        if (!right && failed++ == 0) why = status.ToString();
        replies[i].Clear();
        --running;
        changed.SignalAll();
      });
    }
    MutexLock lock(&mutex);
    while (running > 0) changed.Wait(&mutex);
    INTEROP_CHECK(failed == 0, failed << " failed; the first one: " << why);
  }

  void RpcSoak() {
    for (int i = 0; i < kSoakCalls; ++i) LargeUnary();
  }

  void ChannelSoak() {
    for (int i = 0; i < kSoakCalls; ++i) LargeUnaryOn(NewChannel());
  }

  // A server that can is asked to compress; this client does not.
  void Gzip() {
    TestService::Stub stub(channel_);
    SimpleRequest request = LargeRequest();
    request.mutable_response_compressed()->set_value(true);
    const absl::StatusOr<SimpleResponse> reply = stub.UnaryCall(request);
    INTEROP_CHECK(reply.ok(), reply.status());
    INTEROP_CHECK(reply->payload().body().size() == kLargeResponseBytes, reply->payload().body().size());
  }

 private:
  std::shared_ptr<Channel> NewChannel() const {
    GrpcOptions grpc;
    grpc.client.max_compressed_message_bytes = size_t{4} << 20;
    return Channel::Create(address_, options_, TransportsWithGrpc(grpc));
  }

  static void LargeUnaryOn(const std::shared_ptr<Channel>& channel) {
    TestService::Stub stub(channel);
    ClientContext context;
    context.set_timeout(kPatience);
    SimpleResponse reply;
    const absl::Status status = stub.UnaryCall(&context, LargeRequest(), &reply);
    INTEROP_CHECK(status.ok(), status);
    INTEROP_CHECK(reply.payload().body() == std::string(kLargeResponseBytes, '\0'), reply.payload().body().size());
  }

  static void AddMetadata(ClientContext* context) {
    context->AddMetadata(kEchoInitialKey, kEchoInitialValue);
    context->AddMetadata(kEchoTrailingKey, kEchoTrailingValue);
  }

  static void CheckMetadata(const ClientContext& context) {
    INTEROP_CHECK(context.GetServerInitialMetadata().Find(kEchoInitialKey) == kEchoInitialValue, "initial metadata");
    INTEROP_CHECK(context.GetServerTrailingMetadata().Find(kEchoTrailingKey) == kEchoTrailingValue,
                  "trailing metadata");
  }

  void CheckUnaryStatus(const std::string& message) {
    const absl::Status status = TestService::Stub(channel_).UnaryCall(StatusRequest<SimpleRequest>(message)).status();
    INTEROP_CHECK(status == absl::UnknownError(message), status);
  }

  std::string address_;
  ChannelOptions options_;
  std::shared_ptr<Channel> channel_;
};

}  // namespace

Cases ShmrpcCases(const std::string& address) { return CasesOf(std::make_shared<Client>(address)); }

}  // namespace shmrpc::interop
