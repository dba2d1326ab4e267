// Interceptors: functions that every call of a channel or of a server passes through. This program runs two servers,
// one of which calls the other, and shows three things that interceptors are used for:
//
//   - logging: what was called, how it ended, how long it took;
//   - authentication with a bearer token;
//   - tracing: a call and the calls that it causes carry the same trace id (https://www.w3.org/TR/trace-context).
//
//   interceptors_example

#include <iostream>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "hello.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

namespace {

// ---- Interceptors.

// A client interceptor is a function that sees each call before it begins. It may add functions of its own that are
// called when something happens to the call; here, when it ends.
absl::Status LogClientCall(shmrpc::InterceptedClientCall* call) {
  call->OnEnd([call, begin = absl::Now()](absl::Status* status, const shmrpc::Metadata& trailing_metadata) {
    std::cout << absl::StrCat("client: ", std::string(call->method()), " ended with ", status->ToString(), " after ",
                              absl::FormatDuration(absl::Now() - begin), "\n");
  });
  return absl::OkStatus();  // the call goes on
}

// An interceptor that needs something is a lambda. It may change the metadata that the server will see.
shmrpc::ClientInterceptor SendToken(const std::string& token) {
  return [token](shmrpc::InterceptedClientCall* call) {
    call->metadata().Add("authorization", absl::StrCat("Bearer ", token));
    return absl::OkStatus();
  };
}

// The same on a server. The context tells who calls and what it sent along; it is the one that the handler gets.
absl::Status LogServerCall(shmrpc::InterceptedServerCall* call) {
  call->OnReceive([call](const google::protobuf::MessageLite& message) {
    const std::string trace(call->context()->client_metadata().Find("traceparent").value_or("unknown"));
    std::cout << absl::StrCat("server: ", std::string(call->context()->method()), " received a ", message.GetTypeName(),
                              ", trace ", trace, "\n");
  });
  call->OnEnd([call](absl::Status* status) {
    std::cout << absl::StrCat("server: ", std::string(call->context()->method()), " ends with ", status->ToString(),
                              "\n");
  });
  return absl::OkStatus();
}

// A server interceptor that returns an error ends the call with it, before its handler runs. A real one would compare
// in constant time.
shmrpc::ServerInterceptor RequireToken(const std::string& token) {
  return [expected = absl::StrCat("Bearer ", token)](shmrpc::InterceptedServerCall* call) {
    if (call->context()->client_metadata().Find("authorization") == expected) return absl::OkStatus();
    return absl::UnauthenticatedError("this server wants another token");
  };
}

// ---- Services.

class BackGreeter final : public hello::Greeter::Service {
  absl::Status SayHello(shmrpc::ServerContext* context, const hello::HelloRequest* request,
                        hello::HelloReply* reply) override {
    reply->set_message(absl::StrCat("Hello, ", request->name(), "!"));
    return absl::OkStatus();
  }
};

// The context for a call that a handler makes on behalf of its own: it has the same deadline, and the same trace.
std::unique_ptr<shmrpc::ClientContext> NestedContext(const shmrpc::ServerContext& server_context) {
  std::unique_ptr<shmrpc::ClientContext> context = shmrpc::ClientContext::FromServerContext(server_context);
  for (const std::string_view key : {"traceparent", "tracestate"}) {
    const auto value = server_context.client_metadata().Find(key);
    if (value.has_value()) context->AddMetadata(key, *value);
  }
  return context;
}

// Passes every call on to another Greeter.
class FrontGreeter final : public hello::Greeter::Service {
 public:
  explicit FrontGreeter(const std::shared_ptr<shmrpc::Channel>& back) : back_(back) {}

 private:
  absl::Status SayHello(shmrpc::ServerContext* context, const hello::HelloRequest* request,
                        hello::HelloReply* reply) override {
    const std::unique_ptr<shmrpc::ClientContext> nested = NestedContext(*context);
    return back_.SayHello(nested.get(), *request, reply);
  }

  hello::Greeter::Stub back_;
};

absl::Status Run() {
  const std::string token = "swordfish";

  BackGreeter back_greeter;
  absl::StatusOr<std::unique_ptr<shmrpc::Server>> back = shmrpc::ServerBuilder()
                                                             .Listen("localhost:0")
                                                             .Register(&back_greeter)
                                                             .AddInterceptor(LogServerCall)
                                                             .AddInterceptor(RequireToken(token))
                                                             .Start();
  if (!back.ok()) return back.status();
  const std::string back_address = (*back)->addresses()[0].ToString();

  // The channel from the front server to the back one.
  shmrpc::ChannelOptions options;
  options.interceptors = {LogClientCall, SendToken(token)};
  FrontGreeter front_greeter(shmrpc::Channel::Create(back_address, options));
  absl::StatusOr<std::unique_ptr<shmrpc::Server>> front =
      shmrpc::ServerBuilder().Listen("localhost:0").Register(&front_greeter).AddInterceptor(LogServerCall).Start();
  if (!front.ok()) return front.status();

  hello::Greeter::Stub greeter(shmrpc::Channel::Create((*front)->addresses()[0].ToString()));
  hello::HelloRequest request;
  request.set_name("world");
  hello::HelloReply reply;
  shmrpc::ClientContext context;
  context.set_timeout(absl::Seconds(10));
  context.AddMetadata("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  const absl::Status status = greeter.SayHello(&context, request, &reply);
  if (!status.ok()) return status;
  std::cout << reply.message() << std::endl;

  // Who has no token is sent away.
  hello::Greeter::Stub stranger(shmrpc::Channel::Create(back_address));
  const absl::StatusOr<hello::HelloReply> refused = stranger.SayHello(request);
  if (!absl::IsUnauthenticated(refused.status())) return absl::InternalError("the back server let a stranger in");
  std::cout << "a stranger is told: " << refused.status() << std::endl;
  return absl::OkStatus();
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (status.ok()) return 0;
  std::cerr << "interceptors_example: " << status << std::endl;
  return 1;
}
