#include "runtime/src/client_interception.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {

InterceptedClientCall::InterceptedClientCall(absl::string_view method, MethodKind kind, SteadyTime deadline,
                                             const Metadata* metadata, google::protobuf::MessageLite* reply)
    : method_(method), kind_(kind), deadline_(deadline), reply_(reply) {
  if (metadata != nullptr) metadata_ = *metadata;
}

void InterceptedClientCall::Reply(const google::protobuf::MessageLite& reply) {
  replied_ = true;
  if (reply_ == nullptr) {
    reply_error_ = absl::InternalError(absl::StrCat("an interceptor gave one reply to ", method_,
                                                    ", whose replies stream; it can only give a status"));
  } else if (reply.GetTypeName() != reply_->GetTypeName()) {
    reply_error_ = absl::InternalError(absl::StrCat("an interceptor replied to ", method_, " with a ",
                                                    reply.GetTypeName(), " instead of a ", reply_->GetTypeName()));
  } else {
    reply_->Clear();
    reply_->CheckTypeAndMergeFrom(reply);
  }
}

void InterceptedClientCall::OnSend(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function) {
  on_send_.push_back(std::move(function));
}

void InterceptedClientCall::OnReceive(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function) {
  on_receive_.push_back(std::move(function));
}

void InterceptedClientCall::OnInitialMetadata(absl::AnyInvocable<void(const Metadata&)> function) {
  on_initial_metadata_.push_back(std::move(function));
}

void InterceptedClientCall::OnEnd(absl::AnyInvocable<void(absl::Status*, const Metadata&)> function) {
  on_end_.push_back(std::move(function));
}

bool ClientInterception::Begin(const std::vector<ClientInterceptor>& interceptors, absl::Status* status) {
  for (const ClientInterceptor& interceptor : interceptors) {
    *status = interceptor(this);
    if (status->ok()) *status = reply_error_;
    if (replied_ || !status->ok()) return false;
  }
  return true;
}

void ClientInterception::Sending(const google::protobuf::MessageLite& message) {
  for (auto& function : on_send_) function(message);
}

void ClientInterception::Received(const google::protobuf::MessageLite& message) {
  for (auto function = on_receive_.rbegin(); function != on_receive_.rend(); ++function) (*function)(message);
}

void ClientInterception::ReceivedInitialMetadata(const Metadata& metadata) {
  for (auto function = on_initial_metadata_.rbegin(); function != on_initial_metadata_.rend(); ++function) {
    (*function)(metadata);
  }
}

absl::Status ClientInterception::Ended(absl::Status status, const Metadata& trailing_metadata) {
  if (status.ok() && reply_ != nullptr) Received(*reply_);
  for (auto function = on_end_.rbegin(); function != on_end_.rend(); ++function) {
    (*function)(&status, trailing_metadata);
  }
  return status;
}

}  // namespace shmrpc
