#include "shmrpc/channel.h"

#include <stdlib.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/channel_impl.h"
#include "runtime/src/client_call_access.h"
#include "runtime/src/option_checks.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {
namespace {

constexpr const char* kTransportVariable = "SHMRPC_TRANSPORT";

absl::Status CheckLimit(std::string_view name, size_t limit) {
  if (limit <= kMaxMaxMessageBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the option ", ToAbsl(name), " is ", limit, " bytes; protobuf allows ",
                                                 kMaxMaxMessageBytes, " at most"));
}

absl::Status CheckOptions(const ChannelOptions& options) {
  absl::Status status = CheckLimit("max_send_message_bytes", options.max_send_message_bytes);
  status.Update(CheckLimit("max_receive_message_bytes", options.max_receive_message_bytes));
  if (std::find(options.interceptors.begin(), options.interceptors.end(), nullptr) != options.interceptors.end()) {
    status.Update(absl::InvalidArgumentError("the option interceptors has an empty function"));
  }
  status.Update(internal::CheckFlowControl("the option flow_control", options.flow_control));
  if (options.keepalive_timeout < kMinKeepaliveTimeout) {
    status.Update(absl::InvalidArgumentError(absl::StrCat(
        "the option keepalive_timeout is ", absl::FormatDuration(options.keepalive_timeout), "; it must be at least ",
        absl::FormatDuration(kMinKeepaliveTimeout), ", and InfiniteDuration() switches keepalive off")));
  }
  if (options.retry_policy.has_value()) {
    const absl::Status policy = options.retry_policy->Validate();
    if (!policy.ok()) {
      status.Update(absl::InvalidArgumentError(absl::StrCat("the option retry_policy: ", policy.message())));
    }
  }
  if (options.retry_throttling.has_value()) {
    const absl::Status throttling = options.retry_throttling->Validate();
    if (!throttling.ok()) {
      status.Update(absl::InvalidArgumentError(absl::StrCat("the option retry_throttling: ", throttling.message())));
    }
  }
  if (options.connect_timeout <= absl::ZeroDuration()) {
    status.Update(absl::InvalidArgumentError(absl::StrCat(
        "the option connect_timeout is ", absl::FormatDuration(options.connect_timeout), "; it has to be positive")));
  }
  if (options.initial_backoff <= absl::ZeroDuration() || options.max_backoff < options.initial_backoff) {
    status.Update(absl::InvalidArgumentError(absl::StrCat(
        "the option initial_backoff is ", absl::FormatDuration(options.initial_backoff), " and max_backoff ",
        absl::FormatDuration(options.max_backoff), "; both have to be positive, and max_backoff the larger one")));
  }
  return status;
}

// Whether `target` can be reached the way the user insists on. `source` is where that was said.
absl::Status CheckPreference(const Target& target, TransportPreference preference, std::string_view source) {
  std::string_view choices;
  switch (target.kind) {
    case Target::Kind::kInproc:
      if (preference == TransportPreference::kAuto) return absl::OkStatus();
      choices = "auto";
      break;
    case Target::Kind::kGrpc:
      if (preference == TransportPreference::kAuto || preference == TransportPreference::kGrpc) return absl::OkStatus();
      choices = "auto or grpc";
      break;
    case Target::Kind::kHostPort:
      if (preference != TransportPreference::kUnix) return absl::OkStatus();
      choices = "auto, shm, tcp or grpc";
      break;
    case Target::Kind::kUnix:
    case Target::Kind::kUnixAbstract:
      if (preference != TransportPreference::kTcp) return absl::OkStatus();
      choices = "auto, shm, unix or grpc";
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      ToAbsl(source), " asks for \"", ToAbsl(TransportPreferenceName(preference)), "\", which does not go to \"",
      absl::CHexEscape(target.original), "\"; for that address it can be ", ToAbsl(choices)));
}

// Fills in what the environment says.
absl::Status ResolvePreference(const std::vector<Target>& targets, ChannelOptions* options) {
  absl::Status status;
  if (options->transport != TransportPreference::kAuto) {
    for (const Target& target : targets) {
      status.Update(CheckPreference(target, options->transport, "the option transport"));
    }
    return status;
  }
  const auto has_one_way = [](const Target& target) {
    return target.kind == Target::Kind::kInproc || target.kind == Target::Kind::kGrpc;
  };
  if (std::all_of(targets.begin(), targets.end(), has_one_way)) return absl::OkStatus();
  // Not in a program that runs with more rights than its user's.
  const char* value = secure_getenv(kTransportVariable);
  if (value == nullptr || *value == '\0') return absl::OkStatus();
  absl::StatusOr<TransportPreference> preference = ParseTransportPreference(value);
  if (!preference.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the environment variable ", kTransportVariable, ": ", preference.status().message()));
  }
  options->transport = *preference;
  for (const Target& target : targets) {
    if (has_one_way(target)) continue;
    status.Update(CheckPreference(target, *preference, absl::StrCat("the environment variable ", kTransportVariable)));
  }
  return status;
}

std::shared_ptr<Transport> FindTransport(const TransportSet& transports, const Target& target) {
  for (const std::shared_ptr<Transport>& transport : transports) {
    if (transport->Handles(target)) return transport;
  }
  return nullptr;
}

}  // namespace

std::string_view ChannelStateName(ChannelState state) {
  switch (state) {
    case ChannelState::kIdle:
      return "idle";
    case ChannelState::kConnecting:
      return "connecting";
    case ChannelState::kReady:
      return "ready";
    case ChannelState::kTransientFailure:
      return "transient failure";
    case ChannelState::kShutdown:
      return "shutdown";
  }
  return "unknown";
}

std::shared_ptr<Channel> Channel::Create(std::string_view target_text, ChannelOptions options,
                                         TransportSet transports) {
  absl::Status status = CheckOptions(options);
  std::vector<ChannelAddress> addresses;
  absl::StatusOr<std::vector<Target>> targets = Target::ParseList(target_text);
  status.Update(targets.status());
  if (targets.ok()) {
    status.Update(ResolvePreference(*targets, &options));
    for (Target& target : *targets) {
      if (target.kind == Target::Kind::kHostPort && target.port == 0) {
        status.Update(absl::InvalidArgumentError(absl::StrCat(
            "address \"", target.original, "\": port 0 lets a server choose a port; a client names the one it chose")));
      }
      std::shared_ptr<Transport> transport = FindTransport(transports, target);
      if (transport == nullptr && target.kind == Target::Kind::kGrpc) {
        status.Update(absl::InvalidArgumentError(
            absl::StrCat("the address \"", absl::CHexEscape(target.original),
                         "\" needs the gRPC library: link shmrpc::grpc and give the channel TransportsWithGrpc()")));
      } else if (transport == nullptr) {
        status.Update(absl::InvalidArgumentError(absl::StrCat("none of the channel's ", transports.size(),
                                                              " transports handles the address \"",
                                                              absl::CHexEscape(target.original), "\"")));
      }
      addresses.push_back({std::move(target), std::move(transport)});
    }
  }
  return std::shared_ptr<Channel>(new Channel(
      std::make_shared<ChannelImpl>(std::string(target_text), std::move(status), std::move(addresses), options)));
}

std::shared_ptr<Channel> ChannelAccess::Unusable(absl::Status status) {
  return std::shared_ptr<Channel>(new Channel(std::make_shared<ChannelImpl>(
      std::string(), std::move(status), std::vector<ChannelAddress>(), ChannelOptions())));
}

Channel::Channel(std::shared_ptr<ChannelImpl> impl) : impl_(std::move(impl)) {}

Channel::~Channel() {
  if (impl_->CheckProcess().ok()) {
    impl_->Close();
  } else {
    // In a fork()ed child: the connection and its thread are the parent's, and to take them down would disturb it.
    static_cast<void>(new std::shared_ptr<ChannelImpl>(impl_));
  }
}

const absl::Status& Channel::status() const { return impl_->status(); }

absl::Status Channel::WaitForConnected(absl::Time deadline) {
  absl::Status status = impl_->CheckProcess();
  status.Update(impl_->status());
  if (!status.ok()) return status;
  ConnectionPtr connection;
  return impl_->WaitForConnection(SteadyTime::FromSystem(deadline), ChannelImpl::Patience::kNextAttempt, nullptr,
                                  &connection);
}

ChannelState Channel::GetState(bool try_to_connect) { return impl_->GetState(try_to_connect); }

bool Channel::WaitForStateChange(ChannelState last_observed, absl::Time deadline) {
  return impl_->WaitForStateChange(last_observed, SteadyTime::FromSystem(deadline));
}

std::string Channel::transport() const { return impl_->DescribeTransport(); }

const std::string& Channel::target() const { return impl_->target_text(); }

}  // namespace shmrpc
