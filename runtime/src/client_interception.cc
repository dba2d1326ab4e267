#include "runtime/src/client_interception.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {

InterceptedClientCall::InterceptedClientCall(std::string_view method, MethodKind kind, SteadyTime deadline,
                                             const Metadata* metadata, google::protobuf::MessageLite* reply)
    : method_(method), kind_(kind), deadline_(deadline), reply_(reply) {
  if (metadata != nullptr) metadata_ = *metadata;
}

void InterceptedClientCall::Reply(const google::protobuf::MessageLite& reply) {
  answered_ = true;
  if (reply_ != nullptr && reply.GetTypeName() != reply_->GetTypeName()) {
    reply_error_ = absl::InternalError(absl::StrCat("an interceptor replied to ", ToAbsl(method_), " with a ",
                                                    reply.GetTypeName(), " instead of a ", reply_->GetTypeName()));
  } else if (reply_ != nullptr && !replies_.empty()) {
    reply_error_ = absl::InternalError(
        absl::StrCat("an interceptor gave two replies to ", ToAbsl(method_), ", whose reply is one message"));
  } else {
    replies_.push_back(reply.SerializePartialAsString());
  }
}

void InterceptedClientCall::AnswerWithoutReply() { answered_ = true; }

void InterceptedClientCall::OnSend(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function) {
  on_send_.push_back({std::move(function), nullptr});
}

void InterceptedClientCall::OnReceive(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function) {
  on_receive_.push_back({std::move(function), nullptr});
}

void InterceptedClientCall::TransformSend(absl::AnyInvocable<void(google::protobuf::MessageLite*)> function) {
  on_send_.push_back({nullptr, std::move(function)});
}

void InterceptedClientCall::TransformReceive(absl::AnyInvocable<void(google::protobuf::MessageLite*)> function) {
  on_receive_.push_back({nullptr, std::move(function)});
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
    if (answered_ || !status->ok()) return false;
  }
  return true;
}

void ClientInterception::FillInReply(SingleReply* reply, absl::Status* status) {
  if (!answered() || !status->ok()) return;
  if (replies_.empty()) {
    *status = absl::InternalError(
        absl::StrCat("an interceptor answered ", ToAbsl(method_), " with OK and without its reply"));
    return;
  }
  const std::string_view piece = replies_[0];
  reply->OnMessage(IncomingMessage(std::span(&piece, piece.empty() ? 0 : 1)));
}

const google::protobuf::MessageLite& ClientInterception::Sending(const google::protobuf::MessageLite& message) {
  const google::protobuf::MessageLite* current = &message;
  for (MessageFunction& function : on_send_) {
    if (function.see != nullptr) {
      function.see(*current);
      continue;
    }
    if (current == &message) {
      if (sent_ == nullptr) sent_.reset(message.New());
      sent_->Clear();
      sent_->CheckTypeAndMergeFrom(message);
      current = sent_.get();
    }
    function.transform(sent_.get());
  }
  return *current;
}

void ClientInterception::Received(google::protobuf::MessageLite* message) {
  for (auto function = on_receive_.rbegin(); function != on_receive_.rend(); ++function) {
    function->see != nullptr ? function->see(*message) : function->transform(message);
  }
}

void ClientInterception::ReceivedInitialMetadata(const Metadata& metadata) {
  for (auto function = on_initial_metadata_.rbegin(); function != on_initial_metadata_.rend(); ++function) {
    (*function)(metadata);
  }
}

absl::Status ClientInterception::Ended(absl::Status status, const Metadata& trailing_metadata) {
  if (status.ok() && reply_ != nullptr) Received(reply_);
  for (auto function = on_end_.rbegin(); function != on_end_.rend(); ++function) {
    (*function)(&status, trailing_metadata);
  }
  return status;
}

}  // namespace shmrpc
