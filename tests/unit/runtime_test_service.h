#ifndef SHMRPC_TESTS_UNIT_RUNTIME_TEST_SERVICE_H_
#define SHMRPC_TESTS_UNIT_RUNTIME_TEST_SERVICE_H_

// What the tests of the call core share: a service without generated code.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/wrappers.pb.h"
#include "shmrpc/channel.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server.h"
#include "shmrpc/service.h"
#include "shmrpc/stub.h"
#include "tests/unit/runtime_sync.h"
#include "transports/inproc/inproc_transport.h"

namespace shmrpc::testing {

using google::protobuf::StringValue;

// "test.Echo": both methods run the same function.
class TestService : public Service {
 public:
  using Handler = std::function<absl::Status(ServerContext*, const StringValue&, StringValue*)>;

  static constexpr const char* kEcho = "/test.Echo/Echo";
  static constexpr const char* kOther = "/test.Echo/Other";

  TestService()
      : TestService([](ServerContext*, const StringValue& request, StringValue* reply) {
          reply->set_value(request.value());
          return absl::OkStatus();
        }) {}
  explicit TestService(Handler handler) : handler_(std::move(handler)) {}

  std::string_view ShmrpcServiceName() const override { return "test.Echo"; }
  std::span<const ServiceMethod> ShmrpcMethods() const override {
    static const ServiceMethod methods[] = {{kEcho, MethodKind::kUnary, &Prototype, &Prototype, &Invoke},
                                            {kOther, MethodKind::kUnary, &Prototype, &Prototype, &Invoke}};
    return methods;
  }

 private:
  static const google::protobuf::MessageLite& Prototype() { return StringValue::default_instance(); }
  static absl::Status Invoke(Service* service, ServerContext* context, const google::protobuf::MessageLite* request,
                             google::protobuf::MessageLite* reply, ServerStream* /*stream*/) {
    return static_cast<TestService*>(service)->handler_(context, static_cast<const StringValue&>(*request),
                                                        static_cast<StringValue*>(reply));
  }

  const Handler handler_;
};

inline TransportSet Inproc() { return {std::make_shared<InprocTransport>()}; }

inline StringValue Text(const std::string& text) {
  StringValue message;
  message.set_value(text);
  return message;
}

inline std::unique_ptr<Server> StartServer(const std::string& address, Service* service) {
  return ServerBuilder(Inproc()).Listen(address).Register(service).Start().value();
}

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTS_UNIT_RUNTIME_TEST_SERVICE_H_
