#include "grpc_client.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "grpc/testing/test.grpc.pb.h"
#include "requests.h"

namespace shmrpc::interop {
namespace {

using ::grpc::testing::Empty;
using ::grpc::testing::SimpleRequest;
using ::grpc::testing::SimpleResponse;
using ::grpc::testing::StreamingInputCallResponse;
using ::grpc::testing::StreamingOutputCallRequest;
using ::grpc::testing::StreamingOutputCallResponse;
using ::grpc::testing::grpc_peer::TestService;
using ::grpc::testing::grpc_peer::UnimplementedService;

std::string Text(const grpc::Status& status) {
  return std::to_string(status.error_code()) + ": " + status.error_message();
}

class Client {
 public:
  explicit Client(const std::string& target) : target_(target), channel_(NewChannel()), stub_(channel_) {}

  void EmptyUnary() {
    grpc::ClientContext context;
    Empty reply;
    const grpc::Status status = stub_.EmptyCall(&context, Empty(), &reply);
    INTEROP_CHECK(status.ok(), Text(status));
  }

  void LargeUnary() { LargeUnaryOn(&stub_, GRPC_COMPRESS_NONE); }

  void ClientStreaming() {
    grpc::ClientContext context;
    StreamingInputCallResponse reply;
    const auto writer = stub_.StreamingInputCall(&context, &reply);
    for (const int size : kRequestSizes) {
      INTEROP_CHECK(writer->Write(InputRequest(size)), Text(writer->Finish()));
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    INTEROP_CHECK(status.ok(), Text(status));
    INTEROP_CHECK(reply.aggregated_payload_size() == 74922, reply.aggregated_payload_size());
  }

  void ServerStreaming() {
    grpc::ClientContext context;
    const auto reader = stub_.StreamingOutputCall(&context, OutputRequest());
    StreamingOutputCallResponse reply;
    for (const int size : kResponseSizes) {
      INTEROP_CHECK(reader->Read(&reply), "the stream ended early");
      INTEROP_CHECK(static_cast<int>(reply.payload().body().size()) == size, reply.payload().body().size());
    }
    INTEROP_CHECK(!reader->Read(&reply), "more messages than asked for");
    const grpc::Status status = reader->Finish();
    INTEROP_CHECK(status.ok(), Text(status));
  }

  void PingPong() {
    grpc::ClientContext context;
    const auto stream = stub_.FullDuplexCall(&context);
    StreamingOutputCallResponse reply;
    for (size_t i = 0; i < std::size(kRequestSizes); ++i) {
      INTEROP_CHECK(stream->Write(PingRequest(kRequestSizes[i], kResponseSizes[i])), i);
      INTEROP_CHECK(stream->Read(&reply), i);
      INTEROP_CHECK(static_cast<int>(reply.payload().body().size()) == kResponseSizes[i], i);
    }
    stream->WritesDone();
    INTEROP_CHECK(!stream->Read(&reply), "a message after the last");
    const grpc::Status status = stream->Finish();
    INTEROP_CHECK(status.ok(), Text(status));
  }

  void EmptyStream() {
    grpc::ClientContext context;
    const auto stream = stub_.FullDuplexCall(&context);
    stream->WritesDone();
    StreamingOutputCallResponse none;
    INTEROP_CHECK(!stream->Read(&none), "a message that nobody asked for");
    const grpc::Status status = stream->Finish();
    INTEROP_CHECK(status.ok(), Text(status));
  }

  void CustomMetadata() {
    {
      grpc::ClientContext context;
      AddMetadata(&context);
      SimpleRequest request;
      request.set_response_size(1);
      SimpleResponse reply;
      const grpc::Status status = stub_.UnaryCall(&context, request, &reply);
      INTEROP_CHECK(status.ok(), Text(status));
      CheckMetadata(context);
    }
    grpc::ClientContext context;
    AddMetadata(&context);
    const auto stream = stub_.FullDuplexCall(&context);
    StreamingOutputCallResponse reply;
    INTEROP_CHECK(stream->Write(PingRequest(1, 1)) && stream->Read(&reply), Text(stream->Finish()));
    stream->WritesDone();
    while (stream->Read(&reply)) {
    }
    const grpc::Status status = stream->Finish();
    INTEROP_CHECK(status.ok(), Text(status));
    CheckMetadata(context);
  }

  void StatusCodeAndMessage() {
    CheckUnaryStatus(kStatusMessage);
    grpc::ClientContext context;
    const auto stream = stub_.FullDuplexCall(&context);
    stream->Write(StatusRequest<StreamingOutputCallRequest>(kStatusMessage));
    stream->WritesDone();
    StreamingOutputCallResponse reply;
    while (stream->Read(&reply)) {
    }
    CheckStatus(stream->Finish(), kStatusMessage);
  }

  void SpecialStatusMessage() { CheckUnaryStatus(kSpecialMessage); }

  void UnimplementedMethod() {
    grpc::ClientContext context;
    Empty reply;
    const grpc::Status status = stub_.UnimplementedCall(&context, Empty(), &reply);
    INTEROP_CHECK(status.error_code() == grpc::UNIMPLEMENTED, Text(status));
  }

  void UnimplementedServiceCalled() {
    UnimplementedService::Stub stub(channel_);
    grpc::ClientContext context;
    Empty reply;
    const grpc::Status status = stub.UnimplementedCall(&context, Empty(), &reply);
    INTEROP_CHECK(status.error_code() == grpc::UNIMPLEMENTED, Text(status));
  }

  void CancelAfterBegin() {
    grpc::ClientContext context;
    StreamingInputCallResponse reply;
    const auto writer = stub_.StreamingInputCall(&context, &reply);
    context.TryCancel();
    const grpc::Status status = writer->Finish();
    INTEROP_CHECK(status.error_code() == grpc::CANCELLED, Text(status));
  }

  void CancelAfterFirstResponse() {
    grpc::ClientContext context;
    const auto stream = stub_.FullDuplexCall(&context);
    StreamingOutputCallResponse reply;
    INTEROP_CHECK(stream->Write(PingRequest(27182, 31415)) && stream->Read(&reply), Text(stream->Finish()));
    context.TryCancel();
    const grpc::Status status = stream->Finish();
    INTEROP_CHECK(status.error_code() == grpc::CANCELLED, Text(status));
  }

  void TimeoutOnSleepingServer() {
    EmptyUnary();  // connected
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
    const auto stream = stub_.FullDuplexCall(&context);
    stream->Write(PingRequest(27182, 31415));
    StreamingOutputCallResponse reply;
    while (stream->Read(&reply)) {
    }
    const grpc::Status status = stream->Finish();
    INTEROP_CHECK(status.error_code() == grpc::DEADLINE_EXCEEDED, Text(status));
  }

  void ConcurrentLargeUnary() {
    const SimpleRequest request = LargeRequest();
    std::mutex mutex;
    std::condition_variable changed;
    int running = kConcurrentCalls, failed = 0;
    std::string why;
    std::vector<SimpleResponse> replies(kConcurrentCalls);
    std::vector<grpc::ClientContext> contexts(kConcurrentCalls);
    for (int i = 0; i < kConcurrentCalls; ++i) {
      stub_.async()->UnaryCall(&contexts[i], &request, &replies[i], [&, i](grpc::Status status) {
        const std::lock_guard<std::mutex> lock(mutex);
        const bool right = status.ok() && replies[i].payload().body().size() == kLargeResponseBytes;
        if (!right && failed++ == 0) why = Text(status);
        replies[i].Clear();
        --running;
        changed.notify_all();
      });
    }
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return running == 0; });
    INTEROP_CHECK(failed == 0, failed << " failed; the first one: " << why);
  }

  void RpcSoak() {
    for (int i = 0; i < kSoakCalls; ++i) LargeUnary();
  }

  void ChannelSoak() {
    for (int i = 0; i < kSoakCalls; ++i) {
      TestService::Stub stub(NewChannel());
      LargeUnaryOn(&stub, GRPC_COMPRESS_NONE);
    }
  }

  void Gzip() {
    LargeUnaryOn(&stub_, GRPC_COMPRESS_GZIP);
    grpc::ClientContext context;
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    const auto stream = stub_.FullDuplexCall(&context);
    StreamingOutputCallResponse reply;
    INTEROP_CHECK(stream->Write(PingRequest(27182, 31415)) && stream->Read(&reply), Text(stream->Finish()));
    INTEROP_CHECK(reply.payload().body().size() == 31415, reply.payload().body().size());
    stream->WritesDone();
    while (stream->Read(&reply)) {
    }
    const grpc::Status status = stream->Finish();
    INTEROP_CHECK(status.ok(), Text(status));
  }

 private:
  std::shared_ptr<grpc::Channel> NewChannel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments);
  }

  static void LargeUnaryOn(TestService::Stub* stub, grpc_compression_algorithm compression) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    context.set_compression_algorithm(compression);
    SimpleRequest request = LargeRequest();
    if (compression != GRPC_COMPRESS_NONE) request.mutable_response_compressed()->set_value(true);
    SimpleResponse reply;
    const grpc::Status status = stub->UnaryCall(&context, request, &reply);
    INTEROP_CHECK(status.ok(), Text(status));
    INTEROP_CHECK(reply.payload().body() == std::string(kLargeResponseBytes, '\0'), reply.payload().body().size());
  }

  static void AddMetadata(grpc::ClientContext* context) {
    context->AddMetadata(kEchoInitialKey, kEchoInitialValue);
    context->AddMetadata(kEchoTrailingKey, kEchoTrailingValue);
  }

  static void CheckMetadata(const grpc::ClientContext& context) {
    const auto initial = context.GetServerInitialMetadata().find(kEchoInitialKey);
    INTEROP_CHECK(initial != context.GetServerInitialMetadata().end() && initial->second == kEchoInitialValue,
                  "initial metadata");
    const auto trailing = context.GetServerTrailingMetadata().find(kEchoTrailingKey);
    INTEROP_CHECK(trailing != context.GetServerTrailingMetadata().end() && trailing->second == kEchoTrailingValue,
                  "trailing metadata");
  }

  static void CheckStatus(const grpc::Status& status, const std::string& message) {
    INTEROP_CHECK(status.error_code() == grpc::UNKNOWN && status.error_message() == message, Text(status));
  }

  void CheckUnaryStatus(const std::string& message) {
    grpc::ClientContext context;
    SimpleResponse reply;
    CheckStatus(stub_.UnaryCall(&context, StatusRequest<SimpleRequest>(message), &reply), message);
  }

  const std::string target_;
  const std::shared_ptr<grpc::Channel> channel_;
  TestService::Stub stub_;
};

}  // namespace

Cases GrpcCases(const std::string& target) { return CasesOf(std::make_shared<Client>(target)); }

}  // namespace shmrpc::interop
