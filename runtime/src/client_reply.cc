#include "runtime/src/client_reply.h"

#include "absl/strings/str_cat.h"
#include "runtime/src/parse_failure.h"

namespace shmrpc {

absl::Status ParseReply(const char* method, const IncomingMessage& message, google::protobuf::MessageLite* reply) {
  if (!message.ParseTo(reply)) {
    return absl::InternalError(absl::StrCat("the reply of ", method, " (", message.size(), " bytes) ",
                                            internal::WhyNotParsed(message, *reply)));
  }
  if (!reply->IsInitialized()) {
    return absl::InternalError(absl::StrCat("the reply of ", method, ", a ", reply->GetTypeName(),
                                            ", lacks required fields: ", reply->InitializationErrorString()));
  }
  return absl::OkStatus();
}

absl::Status SingleReply::WrongNumberOfMessages() const {
  return absl::InternalError(absl::StrCat("the server answered ", method_, " with the status OK and ", messages_,
                                          " messages; the reply of this method is exactly one"));
}

}  // namespace shmrpc
