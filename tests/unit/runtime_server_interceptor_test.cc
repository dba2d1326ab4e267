// Interceptors of servers, against a client that the test plays.

#include "runtime/src/absl_strings.h"
#include "shmrpc/server_interceptor.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/server_coroutine.h"
#include "shmrpc/server_reactor.h"
#include "shmrpc/server_stream.h"
#include "tests/unit/runtime_fake_server_call.h"
#include "tests/unit/runtime_interceptor_notes.h"

namespace shmrpc {
namespace {

using google::protobuf::MessageLite;
using ::testing::ElementsAre;
using testing::FakeServerCall;
using ::testing::HasSubstr;
using testing::KindsService;
using testing::Notes;
using testing::ServerUnderTest;
using testing::StringValue;
using testing::TextOf;

// Notes everything, with its name.
ServerInterceptor NotingServer(const std::string& name, Notes* notes) {
  return [name, notes](InterceptedServerCall* call) {
    notes->Add(absl::StrCat(name, " begin"));
    call->OnSend([=](const MessageLite& message) { notes->Add(absl::StrCat(name, " send ", TextOf(message))); });
    call->OnReceive([=](const MessageLite& message) { notes->Add(absl::StrCat(name, " receive ", TextOf(message))); });
    call->OnEnd([=](absl::Status* status) {
      notes->Add(absl::StrCat(name, " end ", absl::StatusCodeToString(status->code())));
    });
    return absl::OkStatus();
  };
}

// ---- Servers, with handlers of every style that echo.

absl::Status Echo(ServerContext*, const StringValue* request, StringValue* reply, ServerStream* stream) {
  StringValue message;
  if (request != nullptr && reply != nullptr) {
    reply->set_value(request->value());
  } else if (request != nullptr) {
    stream->Write(*request);
  } else if (reply != nullptr) {
    while (stream->Read(&message)) reply->set_value(reply->value() + message.value());
  } else {
    while (stream->Read(&message)) stream->Write(message);
  }
  return absl::OkStatus();
}

Task<absl::Status> CoEcho(ServerContext*, const StringValue* request, StringValue* reply, CoServerStream* stream) {
  if (request != nullptr && reply != nullptr) {
    reply->set_value(request->value());
  } else if (request != nullptr) {
    CoServerWriter<StringValue> writer(stream);
    co_await writer.Write(*request);
  } else if (reply != nullptr) {
    CoServerReader<StringValue> reader(stream);
    while (std::optional<StringValue> read = co_await reader.Read()) reply->set_value(reply->value() + read->value());
  } else {
    CoServerReaderWriter<StringValue, StringValue> both(stream);
    while (std::optional<StringValue> read = co_await both.Read()) co_await both.Write(*read);
  }
  co_return absl::OkStatus();
}

class UnaryReactor final : public ServerUnaryReactor {
 public:
  void OnDone() override { delete this; }
};

class WriteReactor final : public ServerWriteReactor<StringValue> {
 public:
  explicit WriteReactor(const StringValue* message) { StartWriteAndFinish(message, absl::OkStatus()); }
  void OnDone() override { delete this; }
};

class ReadReactor final : public ServerReadReactor<StringValue> {
 public:
  explicit ReadReactor(StringValue* reply) : reply_(reply) { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(absl::OkStatus());
    reply_->set_value(reply_->value() + message_.value());
    StartRead(&message_);
  }
  void OnDone() override { delete this; }

 private:
  StringValue* const reply_;
  StringValue message_;
};

class BidiReactor final : public ServerBidiReactor<StringValue, StringValue> {
 public:
  BidiReactor() { StartRead(&message_); }
  void OnReadDone(bool ok) override { ok ? StartWrite(&message_) : Finish(absl::OkStatus()); }
  void OnWriteDone(bool ok) override { ok ? StartRead(&message_) : Finish(absl::AbortedError("not written")); }
  void OnDone() override { delete this; }

 private:
  StringValue message_;
};

ServerReactor* ReactEcho(ServerContext*, const StringValue* request, StringValue* reply) {
  if (request != nullptr && reply != nullptr) {
    reply->set_value(request->value());
    auto* const reactor = new UnaryReactor;
    reactor->Finish(absl::OkStatus());
    return reactor;
  }
  if (request != nullptr) return new WriteReactor(request);
  if (reply != nullptr) return new ReadReactor(reply);
  return new BidiReactor;
}

class ServerInterceptorTest : public ::testing::TestWithParam<const char*> {
 protected:
  ServerInterceptorTest() {
    if (std::string_view(GetParam()) == "Synchronous") service_ = std::make_unique<KindsService>(&Echo);
    if (std::string_view(GetParam()) == "Callback") service_ = std::make_unique<KindsService>(&ReactEcho);
    if (std::string_view(GetParam()) == "Coroutine") service_ = std::make_unique<KindsService>(&CoEcho);
  }

  std::unique_ptr<ServerUnderTest> Start(const std::vector<ServerInterceptor>& interceptors) {
    return std::make_unique<ServerUnderTest>(service_.get(), [&](ServerBuilder* builder) {
      for (const ServerInterceptor& interceptor : interceptors) builder->AddInterceptor(interceptor);
    });
  }

  static constexpr const char* kMethods[] = {KindsService::kUnary, KindsService::kServerStreaming,
                                             KindsService::kClientStreaming, KindsService::kBidi};
  std::unique_ptr<KindsService> service_;
  Notes notes_;
};

INSTANTIATE_TEST_SUITE_P(Styles, ServerInterceptorTest, ::testing::Values("Synchronous", "Callback", "Coroutine"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(ServerInterceptorTest, WrapHandlersOfEveryKindLikeTheLayersOfAnOnion) {
  const auto server = Start({NotingServer("a", &notes_), NotingServer("b", &notes_)});
  const auto all_of_it =
      ElementsAre("a begin", "b begin", "a receive x", "b receive x", "b send x", "a send x", "b end OK", "a end OK");
  for (const char* method : kMethods) {
    const auto call = server->Call(method, "x");
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus()) << method;
    EXPECT_THAT(call->sent(), ElementsAre("x"));
    EXPECT_THAT(notes_.Take(), all_of_it) << method;
  }
  for (const char* method : kMethods) {  // the message comes later
    const auto call = server->Call(method);
    call->WaitForReceive();
    call->Send("x");
    call->HalfClose();
    EXPECT_EQ(call->WaitForStatus(), absl::OkStatus()) << method;
    EXPECT_THAT(notes_.Take(), all_of_it) << method;
  }
}

TEST_P(ServerInterceptorTest, Reject) {
  const auto server = Start({NotingServer("a", &notes_),
                             [](InterceptedServerCall* call) {
                               EXPECT_EQ(call->context()->client_metadata().Find("authorization"), std::nullopt);
                               call->context()->AddTrailingMetadata("why", "because");
                               return absl::UnauthenticatedError(ToAbsl(call->context()->method()));
                             },
                             NotingServer("c", &notes_)});
  for (const char* method : kMethods) {
    for (const bool with_request : {true, false}) {
      FakeServerCall::Options options;
      options.method = method;
      if (with_request) options.request = "this is not a message";
      const auto call = server->Call(options);
      EXPECT_EQ(call->WaitForStatus(), absl::UnauthenticatedError(method));
      EXPECT_EQ(call->trailing_metadata().Find("why"), "because");
      EXPECT_THAT(notes_.Take(), ElementsAre("a begin", "a end UNAUTHENTICATED"));
    }
  }
}

TEST_P(ServerInterceptorTest, ReplaceTheStatusAndAddTrailingMetadata) {
  const auto server = Start({[](InterceptedServerCall* call) {
    call->OnEnd([call](absl::Status* status) {
      call->context()->AddTrailingMetadata("was", absl::StatusCodeToString(status->code()));
      *status = absl::DataLossError("replaced");
    });
    return absl::OkStatus();
  }});
  for (const char* method : kMethods) {
    const auto call = server->Call(method, "x");
    EXPECT_EQ(call->WaitForStatus(), absl::DataLossError("replaced")) << method;
    EXPECT_EQ(call->trailing_metadata().Find("was"), "OK");
  }
}

TEST_P(ServerInterceptorTest, AnExceptionEndsTheCall) {
  const auto server =
      Start({[](InterceptedServerCall*) -> absl::Status { throw std::runtime_error("no interceptor today"); }});
  for (const char* method : kMethods) {
    const absl::Status status = server->Call(method, "x")->WaitForStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
    EXPECT_THAT(std::string(status.message()), HasSubstr("no interceptor today"));
  }
}

TEST_P(ServerInterceptorTest, TheEndIsWhatTheClientSees) {
  // The handler takes until its call is past its deadline, or cancelled, and then says OK.
  const auto server = Start({NotingServer("a", &notes_), [&](InterceptedServerCall* call) {
                               ServerContext* const context = call->context();
                               call->OnReceive([context](const MessageLite&) {
                                 while (!context->IsCancelled()) std::this_thread::yield();
                               });
                               return absl::OkStatus();
                             }});
  for (const char* method : {KindsService::kUnary, KindsService::kServerStreaming}) {
    FakeServerCall::Options options;
    options.method = method;
    options.request = testing::Text("x").SerializeAsString();
    std::vector<std::string> notes;
    for (absl::Duration timeout = absl::Milliseconds(20); notes.empty(); timeout *= 2) {  // it may pass before the call
      options.deadline = SteadyTime::Now() + timeout;
      const auto late = server->Call(options);
      EXPECT_EQ(late->WaitForStatus().code(), absl::StatusCode::kDeadlineExceeded) << method;
      notes = notes_.Take();
    }
    EXPECT_THAT(notes, ::testing::Contains("a end DEADLINE_EXCEEDED")) << method;
    options.deadline = SteadyTime::InfiniteFuture();
    const auto cancelled = server->Call(options);
    cancelled->Cancel();
    EXPECT_EQ(cancelled->WaitForStatus().code(), absl::StatusCode::kCancelled) << method;
    EXPECT_THAT(notes_.Take(), ::testing::Contains("a end CANCELLED")) << method;
  }
}

TEST_P(ServerInterceptorTest, SeeTheEndOfACallWithoutARequest) {
  const auto server = Start({NotingServer("a", &notes_)});
  const auto call = server->Call(KindsService::kUnary);
  call->WaitForReceive();
  call->Cancel();
  EXPECT_EQ(call->WaitForStatus().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(notes_.Take(), ElementsAre("a begin", "a end CANCELLED"));
}

}  // namespace
}  // namespace shmrpc
