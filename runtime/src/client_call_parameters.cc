#include "runtime/src/client_call_parameters.h"

#include <algorithm>

#include "absl/base/optimization.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/client_call_access.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {
namespace {

// Of a path, as on the wire: see PROTOCOL.md.
constexpr size_t kMaxMethodBytes = 4096;
// Of a path that is not right, in the text that says so.
constexpr size_t kMaxQuotedBytes = 256;

// Why `method`, which the program has put together at run time, can be no method's path, or OK.
absl::Status CheckMethod(const std::string& method) {
  if (method.size() > kMaxMethodBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the path of the method, which begins with \"",
                                                   absl::CHexEscape(method.substr(0, kMaxQuotedBytes)), "\", has ",
                                                   method.size(), " bytes; ", kMaxMethodBytes, " are allowed"));
  }
  const size_t slash = method.rfind('/');
  const bool graphic =
      std::all_of(method.begin(), method.end(), [](unsigned char c) { return absl::ascii_isgraph(c); });
  if (graphic && method[0] == '/' && slash > 1 && slash != std::string::npos && slash + 1 < method.size()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("\"", absl::CHexEscape(method.substr(0, kMaxQuotedBytes)),
                                                 "\" is no method: write /package.Service/Method"));
}

}  // namespace

CallParameters::CallParameters(const char* method_path, MethodKind method_kind, const ClientContext* context,
                               const ChannelOptions& options)
    : method(method_path),
      kind(method_kind),
      max_send_message_bytes(options.max_send_message_bytes),
      max_receive_message_bytes(options.max_receive_message_bytes),
      retry_policy(options.retry_policy.has_value() ? &*options.retry_policy : nullptr) {
  if (context == nullptr) return;
  own_method = ClientCallAccess::method(*context);
  deadline = ClientCallAccess::deadline(*context);
  wait_for_ready = context->wait_for_ready();
  if (!context->metadata().empty()) metadata = &context->metadata();
  max_send_message_bytes = ClientCallAccess::max_send_message_bytes(*context).value_or(max_send_message_bytes);
  max_receive_message_bytes = ClientCallAccess::max_receive_message_bytes(*context).value_or(max_receive_message_bytes);
  if (ClientCallAccess::has_own_retry_policy(*context)) {
    own_retry_policy = ClientCallAccess::retry_policy(*context);
    retry_policy = own_retry_policy.get();
  }
}

absl::Status CallParameters::TooLate() const {
  if (start >= deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat(method, ": the deadline had passed before the call began; nothing was sent"));
  }
  absl::Duration timeout = deadline - start;
  // The caller said 100ms and means to read that, not what was left of it when the call began.
  if (timeout > absl::Milliseconds(1)) timeout = absl::Ceil(timeout, absl::Milliseconds(1));
  return absl::DeadlineExceededError(absl::StrCat(method, " did not finish within ", absl::FormatDuration(timeout)));
}

absl::Status CallParameters::Check(const ChannelImpl& channel) {
  absl::Status status = channel.CheckProcess();
  if (!status.ok()) return status;
  if (!channel.status().ok()) return channel.status();
  if (ABSL_PREDICT_FALSE(own_method != nullptr)) {
    status = CheckMethod(*own_method);
    if (!status.ok()) return status;
  }
  if (metadata != nullptr) {
    status = metadata->Validate();
    if (!status.ok()) return status;
  }
  if (own_retry_policy != nullptr) {
    status = own_retry_policy->Validate();
    if (!status.ok()) return status;
  }
  if (has_deadline()) {
    start = SteadyTime::Now();
    if (start >= deadline) return TooLate();
  }
  return absl::OkStatus();
}

absl::Status CallParameters::CheckRequest(const google::protobuf::MessageLite& request) const {
  if (request.IsInitialized()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the request of ", method, ", a ", request.GetTypeName(),
                                                 ", lacks required fields: ", request.InitializationErrorString()));
}

absl::Status CallParameters::CheckRequestSize(size_t size) const {
  if (size <= max_send_message_bytes && size <= kMaxMaxMessageBytes) return absl::OkStatus();
  if (size > kMaxMaxMessageBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the request of ", method, " has ", size,
                                                     " bytes; protobuf allows ", kMaxMaxMessageBytes, " at most"));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the request of ", method, " has ", size, " bytes, the limit is ", max_send_message_bytes,
                   "; the option max_send_message_bytes, of the channel or of the call, can raise it"));
}

}  // namespace shmrpc
