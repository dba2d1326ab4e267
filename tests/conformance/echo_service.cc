#include "echo_service.h"

#include <stdexcept>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace shmrpc::conformance {
namespace {

void Observe(const ServerContext& context, Observed* observed) {
  observed->set_method(std::string(context.method()));
  if (context.deadline() != absl::InfiniteFuture()) {
    observed->set_time_left_us(absl::ToInt64Microseconds(context.deadline() - absl::Now()));
  }
  for (const auto& [key, value] : context.client_metadata()) {
    MetadataEntry* entry = observed->add_client_metadata();
    entry->set_key(key);
    entry->set_value(value);
  }
  observed->set_peer_transport(context.peer().transport);
  observed->set_peer_address(context.peer().address);
  if (const std::optional<PeerCredentials>& credentials = context.peer_credentials()) {
    observed->set_peer_uid(credentials->uid);
    if (credentials->gid.has_value()) observed->set_peer_gid(*credentials->gid);
    if (credentials->pid.has_value()) observed->set_peer_pid(*credentials->pid);
    observed->mutable_peer_groups()->Add(credentials->groups.begin(), credentials->groups.end());
  }
}

}  // namespace

absl::Status ToAbsl(const Status& status) {
  absl::Status result(static_cast<absl::StatusCode>(status.code()), status.message());
  for (const Status::Detail& detail : status.details())
    result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  return result;
}

Status ToProto(const absl::Status& status) {
  Status result;
  result.set_code(static_cast<int>(status.code()));
  result.set_message(std::string(status.message()));
  status.ForEachPayload([&result](absl::string_view type_url, const absl::Cord& value) {
    Status::Detail* detail = result.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(value));
  });
  return result;
}

absl::Status EchoService::Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) {
  started_.Increment();
  if (request->hold() && !Hold(*context, request->hold_regardless())) {
    // The deadline may have passed here a moment before it passes for the client.
    return absl::Now() < context->deadline() ? absl::CancelledError("cancelled while it was held")
                                             : absl::DeadlineExceededError("the deadline passed while it was held");
  }

  for (const MetadataEntry& entry : request->initial_metadata())
    context->AddInitialMetadata(entry.key(), entry.value());
  for (const MetadataEntry& entry : request->trailing_metadata()) {
    context->AddTrailingMetadata(entry.key(), entry.value());
  }
  if (request->has_throw_exception()) throw std::runtime_error(request->throw_exception());
  if (request->observe()) Observe(*context, reply->mutable_observed());
  if (request->has_reply_bytes()) {
    reply->mutable_payload()->assign(request->reply_bytes(), 'r');
  } else {
    reply->set_payload(request->payload());
  }
  return request->has_status() ? ToAbsl(request->status()) : absl::OkStatus();
}

absl::Status EchoService::Nothing(ServerContext*, const Empty*, Empty*) {
  started_.Increment();
  return absl::OkStatus();
}

bool EchoService::Hold(const ServerContext& context, bool regardless) {
  held_.Increment();
  // Nothing tells a handler of a cancellation; it asks.
  while (!released_.Wait(absl::Milliseconds(2))) {
    if (!regardless && context.IsCancelled()) {
      cancelled_.Increment();
      return false;
    }
  }
  return true;
}

}  // namespace shmrpc::conformance
