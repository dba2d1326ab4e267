#include "kill_phases.h"

#include <utility>

#include "absl/time/clock.h"
#include "conformance.shmrpc.pb.h"
#include "kill_services.h"
#include "sync.h"

namespace shmrpc::conformance {
namespace {

absl::Status CheckReply(absl::string_view sent, absl::string_view received) {
  if (sent == received) return absl::OkStatus();
  return absl::DataLossError("an OK reply is not what was sent");
}

absl::Status CallOnce(const std::shared_ptr<Channel>& channel, const std::string& payload) {
  EchoRequest request;
  request.set_payload(payload);
  const absl::StatusOr<EchoReply> reply = Echo::Stub(channel).Echo(request);
  return reply.ok() ? CheckReply(payload, reply->payload()) : reply.status();
}

}  // namespace

ChannelOptions KillPhase::Options() {
  ChannelOptions options;
  options.transport = TransportPreference::kShm;
  options.initial_backoff = absl::Milliseconds(1);
  options.max_backoff = absl::Milliseconds(10);
  return options;
}

absl::Status KillPhase::Prepare(const std::string& address, std::shared_ptr<Channel> channel) {
  address_ = address;
  payload_ = std::string(PayloadOf(name_ == "large" ? 80'000 : 64));
  // What a process does once in its life, or a server for its first client, is not what the phase is about: so it comes
  // for the second time.
  if (name_ == "attach") return Channel::Create(address, Options())->WaitForConnected(absl::Now() + kHangGuard);
  const bool own = channel == nullptr || name_ == "detach";
  channel_ = own ? Channel::Create(address, Options()) : std::move(channel);
  absl::Status status = CallOnce(channel_, payload_);
  if (status.ok() && name_ == "async") status = CallAsynchronously();
  if (status.ok() && name_ == "stream") status = Chat();
  return status;
}

absl::Status KillPhase::Run() {
  if (name_ == "attach") {
    channel_ = Channel::Create(address_, Options());
    // Not a time from now: when a process is stepped through, absl::Now() does not find a moment that is short enough.
    return channel_->WaitForConnected(absl::InfiniteFuture());
  }
  if (name_ == "async") return CallAsynchronously();
  if (name_ == "stream") return Chat();
  if (name_ == "detach") {
    channel_ = nullptr;
    return absl::OkStatus();
  }
  return CallOnce(channel_, payload_);
}

absl::Status KillPhase::CallAsynchronously() {
  ClientContext context;
  EchoRequest request;
  request.set_payload(payload_);
  EchoReply reply;
  absl::Status result;
  Event done;
  Echo::Stub stub(channel_);
  stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
    result = std::move(status);
    done.Set();
  });
  if (!done.Wait()) return absl::DeadlineExceededError("the call never ended");
  return result.ok() ? CheckReply(payload_, reply.payload()) : result;
}

absl::Status KillPhase::Chat() {
  Streams::Stub stub(channel_);
  ClientContext context;
  const auto chat = stub.Chat(&context);
  Item item;
  item.set_payload(payload_);
  for (int i = 0; i < 3; ++i) {
    Item received;
    if (!chat->Write(item) || !chat->Read(&received)) break;
    if (absl::Status status = CheckReply(payload_, received.payload()); !status.ok()) return status;
  }
  chat->WritesDone();
  return chat->Finish();
}

}  // namespace shmrpc::conformance
