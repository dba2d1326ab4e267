#include "runtime/src/server_call.h"

#include <exception>

#include "absl/strings/str_cat.h"
#include "runtime/src/server_context_access.h"

namespace shmrpc::internal {
namespace {

// What a handler returns, made fit to travel: a code that absl::StatusCode does not have becomes UNKNOWN.
absl::Status WithKnownCode(absl::Status status) {
  if (status.raw_code() == static_cast<int>(status.code())) return status;
  absl::Status known(absl::StatusCode::kUnknown,
                     absl::StrCat("the handler returned the status code ", status.raw_code(), ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view type_url, const absl::Cord& payload) { known.SetPayload(type_url, payload); });
  return known;
}

absl::Status CheckMetadata(const ServiceMethod& method, const Metadata& metadata) {
  absl::Status valid = metadata.Validate();
  if (valid.ok()) return valid;
  return absl::InternalError(absl::StrCat("the handler of ", method.path, " added ", valid.message()));
}

// What is wrong with the metadata that the handler has added, if anything.
absl::Status CheckContext(const ServiceMethod& method, const ServerContext& context) {
  const std::optional<size_t> sent = ServerContextAccess::initial_metadata_sent(context);
  if (!sent.has_value()) {
    absl::Status status = CheckMetadata(method, context.initial_metadata());
    if (!status.ok()) return status;
  } else if (*sent != context.initial_metadata().size()) {
    return absl::InternalError(
        absl::StrCat("the handler of ", method.path, " added initial metadata after it had been sent"));
  }
  return CheckMetadata(method, context.trailing_metadata());
}

absl::Status DeadlinePassed(const ServiceMethod& method, const absl::Status& status) {
  return absl::DeadlineExceededError(
      absl::StrCat("the deadline passed before ", method.path, " was done; the handler said ", status.ToString()));
}

}  // namespace

absl::Status StatusForClient(const ServerCall& call, const ServiceMethod& method, const ServerContext& context,
                             absl::Status status) {
  switch (call.ended_by_client()) {
    case absl::StatusCode::kOk:
      if (call.deadline().HasPassed()) return DeadlinePassed(method, status);
      if (!call.IsCancelled()) break;
      [[fallthrough]];
    case absl::StatusCode::kCancelled:
      return absl::CancelledError(absl::StrCat("the client cancelled ", method.path,
                                               ", or is gone, before it was done; the handler said ",
                                               status.ToString()));
    default:
      return DeadlinePassed(method, status);
  }
  absl::Status valid = CheckContext(method, context);
  return valid.ok() ? WithKnownCode(std::move(status)) : valid;
}

absl::Status ParseRequest(const ServiceMethod& method, const IncomingMessage& bytes,
                          google::protobuf::MessageLite* request) {
  if (!bytes.ParseTo(request)) {
    return absl::InternalError(absl::StrCat("the request of ", method.path, " (", bytes.size(), " bytes) is not a ",
                                            request->GetTypeName(),
                                            "; client and server may have been built from different .proto files"));
  }
  if (!request->IsInitialized()) {
    return absl::InvalidArgumentError(absl::StrCat("the request of ", method.path, ", a ", request->GetTypeName(),
                                                   ", lacks required fields: ", request->InitializationErrorString()));
  }
  return absl::OkStatus();
}

absl::Status CheckReply(const ServerCalls& calls, const ServiceMethod& method,
                        const google::protobuf::MessageLite& reply, const OutgoingProto& message) {
  if (!reply.IsInitialized()) {
    return absl::InternalError(absl::StrCat("the reply of ", method.path, ", a ", reply.GetTypeName(),
                                            ", lacks required fields: ", reply.InitializationErrorString()));
  }
  if (message.size() > calls.max_send_message_bytes()) {
    return absl::ResourceExhaustedError(absl::StrCat("the reply of ", method.path, " has ", message.size(),
                                                     " bytes, the server's limit is ", calls.max_send_message_bytes(),
                                                     "; the option max_send_message_bytes can raise it"));
  }
  return absl::OkStatus();
}

absl::Status NoRequest(const ServiceMethod& method) {
  return absl::InvalidArgumentError(
      absl::StrCat("the client half-closed ", method.path, " without a request; the method takes exactly one"));
}

absl::Status SecondRequest(const ServiceMethod& method) {
  return absl::InvalidArgumentError(
      absl::StrCat("the client sent a second request to ", method.path, "; the method takes exactly one"));
}

absl::Status EndedBeforeHandler(const ServerCall& call) {
  if (call.deadline().HasPassed()) return DeadlineBeforeHandler();
  return absl::CancelledError("the call was cancelled before its request had come; the handler did not run");
}

absl::Status SendInitialMetadata(ServerCall* call, const ServiceMethod& method, ServerContext* context,
                                 bool ahead_of_message) {
  if (ServerContextAccess::initial_metadata_sent(*context).has_value()) return absl::OkStatus();
  absl::Status status = CheckMetadata(method, context->initial_metadata());
  if (!status.ok()) return status;
  if (!ahead_of_message || !context->initial_metadata().empty()) call->SendHeaders(context->initial_metadata());
  ServerContextAccess::MarkInitialMetadataSent(context);
  return absl::OkStatus();
}

void FinishServerCall(ServerCalls* calls, ServerCallPtr call, const ServiceMethod& method, const ServerContext& context,
                      absl::Status status, const google::protobuf::MessageLite* reply) {
  calls->Leave();
  absl::Status valid = CheckContext(method, context);
  if (!valid.ok()) return FailServerCall(std::move(call), std::move(valid));
  ServerCall::Reply out;
  if (!context.initial_metadata().empty() && !ServerContextAccess::initial_metadata_sent(context).has_value()) {
    out.initial_metadata = &context.initial_metadata();
  }
  if (!context.trailing_metadata().empty()) out.trailing_metadata = &context.trailing_metadata();
  // A gRPC server ends a call at its deadline, and what the handler says later is lost. So it is here: most handlers
  // that fail now do so because of the deadline, whatever they call it, and a stream's may have taken the failure of a
  // read for the half-close, and say OK. The reply of a unary call is left to the client, which looks at its own clock,
  // so that this side need not. (Interceptors have been told what the client is to be told, and that it is.)
  if ((!status.ok() || method.kind != MethodKind::kUnary) && calls->interceptors().empty() &&
      call->deadline().HasPassed()) {
    out.status = DeadlinePassed(method, status);
    return FinishCall(std::move(call), out);
  }
  if (!status.ok() || reply == nullptr) {
    out.status = WithKnownCode(std::move(status));
    return FinishCall(std::move(call), out);
  }
  const OutgoingProto message(*reply);
  out.status = CheckReply(*calls, method, *reply, message);
  if (out.status.ok()) out.message = &message;
  FinishCall(std::move(call), out);
}

void FailServerCall(ServerCallPtr call, absl::Status status, bool not_processed) {
  ServerCall::Reply reply;
  reply.status = std::move(status);
  reply.not_processed = not_processed;
  FinishCall(std::move(call), reply);
}

absl::Status StatusOfException(const char* path) {
  try {
    throw;
  } catch (const std::exception& error) {
    return absl::UnknownError(absl::StrCat("the handler of ", path, " threw: ", error.what()));
  } catch (...) {
    return absl::UnknownError(absl::StrCat("the handler of ", path, " threw something that is not a std::exception"));
  }
}

}  // namespace shmrpc::internal
