// What programs and their users say in words and numbers: addresses, the values of SHMRPC_TRANSPORT, the options of
// channels and of their calls. Nothing is connected to.

#include <memory>
#include <string>
#include <vector>

#include "runtime/src/absl_strings.h"
#include "shmrpc/channel.h"
#include "shmrpc/options.h"
#include "shmrpc/retry.h"
#include "shmrpc/target.h"
#include "tests/fuzz/input.h"

namespace shmrpc::fuzz {
namespace {

void ParseAddress(absl::string_view text) {
  const absl::StatusOr<Target> target = Target::Parse(ToStd(text));
  if (!target.ok()) return Check(absl::IsInvalidArgument(target.status()));
  // What it is written as is the same address.
  const absl::StatusOr<Target> again = Target::Parse(target->ToString());
  Check(again.ok() && again->kind == target->kind && again->host == target->host && again->port == target->port &&
        again->name == target->name);
}

absl::Duration TakeDuration(Input* input) { return absl::Nanoseconds(input->Take<int64_t>()); }

template <typename Number>
Number TakeBits(Input* input) {
  Number number;
  const auto bits = input->Take<uint64_t>();
  static_assert(sizeof number == sizeof bits);
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

ChannelOptions TakeOptions(Input* input) {
  ChannelOptions options;
  options.max_send_message_bytes = input->Take<size_t>();
  options.max_receive_message_bytes = input->Take<size_t>();
  options.connect_timeout = TakeDuration(input);
  options.initial_backoff = TakeDuration(input);
  options.max_backoff = TakeDuration(input);
  options.keepalive_timeout = TakeDuration(input);
  const auto which = input->Take<uint8_t>();
  if ((which & 1) != 0) {
    options.retry_policy = RetryPolicy{.max_attempts = input->Take<int32_t>(),
                                       .initial_backoff = TakeDuration(input),
                                       .max_backoff = TakeDuration(input),
                                       .multiplier = TakeBits<double>(input),
                                       .jitter = TakeBits<double>(input),
                                       .codes = {static_cast<absl::StatusCode>(input->Take<uint8_t>())}};
    (void)options.retry_policy->Validate();
  }
  if ((which & 2) != 0) {
    options.retry_throttling =
        RetryThrottling{.max_tokens = TakeBits<double>(input), .token_ratio = TakeBits<double>(input)};
    (void)options.retry_throttling->Validate();
  }
  return options;
}

}  // namespace
}  // namespace shmrpc::fuzz

// The first byte: 0 for options, which follow, and an address; otherwise there are only words.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shmrpc;
  fuzz::Input input(data, size);
  ChannelOptions options;
  if (input.Take<uint8_t>() == 0) options = fuzz::TakeOptions(&input);
  const std::string text(input.TakeRest());
  fuzz::ParseAddress(text);
  const absl::StatusOr<std::vector<Target>> targets = Target::ParseList(text);
  fuzz::Check(targets.ok() ? !targets->empty() : absl::IsInvalidArgument(targets.status()));
  (void)ParseTransportPreference(text);
  (void)ParseWaitMode(text);
  const std::shared_ptr<Channel> channel = Channel::Create(text, options);
  fuzz::Check(channel != nullptr && channel->target() == text);
  fuzz::Check(targets.ok() || !channel->status().ok());
  (void)channel->GetState(/*try_to_connect=*/false);
  (void)channel->transport();
  return 0;
}
