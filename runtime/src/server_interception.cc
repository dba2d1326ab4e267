#include "runtime/src/server_interception.h"

#include <utility>

namespace shmrpc {

void InterceptedServerCall::OnReceive(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function) {
  on_receive_.push_back(std::move(function));
}

void InterceptedServerCall::OnSend(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function) {
  on_send_.push_back(std::move(function));
}

void InterceptedServerCall::OnEnd(absl::AnyInvocable<void(absl::Status*)> function) {
  on_end_.push_back(std::move(function));
}

namespace internal {

absl::Status ServerInterception::Begin() {
  for (const ServerInterceptor& interceptor : calls_.interceptors()) {
    absl::Status status = RunGuarded(service_method_.path, [&] { return interceptor(this); });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void ServerInterception::Received(const google::protobuf::MessageLite& message) {
  for (auto& function : on_receive_) function(message);
}

void ServerInterception::Sending(const google::protobuf::MessageLite& message) {
  for (auto function = on_send_.rbegin(); function != on_send_.rend(); ++function) (*function)(message);
}

absl::Status ServerInterception::Ended(const ServerCall& call, absl::Status status,
                                       const google::protobuf::MessageLite* reply) {
  if (calls_.interceptors().empty()) return status;
  status = StatusForClient(call, service_method_, *context_, std::move(status));
  if (status.ok() && reply != nullptr) {
    status = CheckReply(calls_, service_method_, *reply, OutgoingProto(*reply));
    if (status.ok()) Sending(*reply);
  }
  for (auto function = on_end_.rbegin(); function != on_end_.rend(); ++function) (*function)(&status);
  return status;
}

}  // namespace internal
}  // namespace shmrpc
