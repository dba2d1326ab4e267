#include "runtime/src/client_retry.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"

namespace shmrpc {
namespace {

absl::Duration Backoff(const RetryPolicy& policy, int retry) {
  static thread_local absl::InsecureBitGen random;
  const absl::Duration backoff =
      std::min(policy.initial_backoff * std::pow(policy.multiplier, retry - 1), policy.max_backoff);
  return backoff * absl::Uniform(absl::IntervalClosed, random, 1 - policy.jitter, 1 + policy.jitter);
}

bool Covers(const RetryPolicy& policy, const absl::Status& status) {
  return std::find(policy.codes.begin(), policy.codes.end(), status.code()) != policy.codes.end();
}

constexpr double kMaxTokens = 1000;
constexpr double kMinTokenRatio = 0.001;

// Ratios beyond what there can be of tokens mean the same.
int64_t Thousandths(double tokens) { return static_cast<int64_t>(std::lround(std::min(tokens, kMaxTokens) * 1000)); }

}  // namespace

absl::Status RetryPolicy::Validate() const {
  if (max_attempts < 2) {
    return absl::InvalidArgumentError(absl::StrCat("the option max_attempts is ", max_attempts,
                                                   "; it counts the first attempt, so it has to be 2 at least"));
  }
  if (initial_backoff <= absl::ZeroDuration() || max_backoff <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("the option initial_backoff is ",
                                                   absl::FormatDuration(initial_backoff), " and max_backoff ",
                                                   absl::FormatDuration(max_backoff), "; both have to be positive"));
  }
  if (!(multiplier > 0) || !std::isfinite(multiplier)) {
    return absl::InvalidArgumentError(absl::StrCat("the option multiplier is ", multiplier, "; it has to be positive"));
  }
  if (!(jitter >= 0 && jitter <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("the option jitter is ", jitter, "; it is 0 to 1"));
  }
  if (codes.empty()) {
    return absl::InvalidArgumentError("the option codes is empty; it names the codes to retry, as UNAVAILABLE");
  }
  for (const absl::StatusCode code : codes) {
    if (code > absl::StatusCode::kOk && code <= absl::StatusCode::kUnauthenticated) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the option codes has ", static_cast<int>(code), ", which is not the code of an error"));
  }
  return absl::OkStatus();
}

absl::Status RetryThrottling::Validate() const {
  if (!(max_tokens > 0 && max_tokens <= kMaxTokens)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the option max_tokens is ", max_tokens, "; it has to be more than 0 and at most ", kMaxTokens));
  }
  if (!(token_ratio >= kMinTokenRatio) || !std::isfinite(token_ratio)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the option token_ratio is ", token_ratio, "; it has to be ", kMinTokenRatio, " at least"));
  }
  return absl::OkStatus();
}

RetryThrottle::RetryThrottle(const std::optional<RetryThrottling>& throttling)
    : max_(throttling.has_value() ? Thousandths(throttling->max_tokens) : 1),
      threshold_(max_ / 2),
      ratio_(throttling.has_value() ? Thousandths(throttling->token_ratio) : 0),
      cost_(throttling.has_value() ? 1000 : 0),
      tokens_(max_) {}

void RetryThrottle::Record(const RetryPolicy& policy, const absl::Status& status) {
  if (cost_ == 0) return;
  if (status.ok()) {
    Add(ratio_);
  } else if (Covers(policy, status)) {
    Add(-cost_);
  }
}

void RetryThrottle::Add(int64_t tokens) {
  int64_t before = tokens_.load(std::memory_order_relaxed);
  while (!tokens_.compare_exchange_weak(before, std::clamp<int64_t>(before + tokens, 0, max_),
                                        std::memory_order_relaxed)) {
  }
}

std::optional<absl::Duration> CallAttempts::NextAfter(AttemptEnd end, const absl::Status& status,
                                                      const RetryPolicy* policy, RetryThrottle& throttle) {
  if (end == AttemptEnd::kMayHaveRun) return std::nullopt;
  if (end == AttemptEnd::kNotProcessed && absl::IsUnavailable(status) &&
      transparent_retries_ < kMaxTransparentRetries) {
    ++transparent_retries_;
    return absl::ZeroDuration();
  }
  // What else can keep a call from being connected is for good: its deadline, its caller, a wrong address.
  if (end == AttemptEnd::kNotConnected && !absl::IsUnavailable(status)) return std::nullopt;
  if (policy == nullptr) return std::nullopt;
  throttle.Record(*policy, status);
  if (policy_retries_ + 1 >= policy->max_attempts || !Covers(*policy, status)) return std::nullopt;
  if (!throttle.AllowsRetry()) return std::nullopt;
  return Backoff(*policy, ++policy_retries_);
}

const Metadata* CallAttempts::KeepMetadata(const Metadata* first) {
  if (first_metadata_ == nullptr) first_metadata_ = std::make_unique<Metadata>(first != nullptr ? *first : Metadata());
  metadata_ = std::make_unique<Metadata>(*first_metadata_);
  if (policy_retries_ > 0) metadata_->Add(kPreviousAttempts, absl::StrCat(policy_retries_));
  return metadata_->empty() ? nullptr : metadata_.get();
}

void KeptRequest::Keep(const OutgoingMessage& message) {
  size_ = message.size();
  if (size_ > kSmallBytes) large_ = std::make_unique_for_overwrite<uint8_t[]>(size_);
  message.SerializeToArray(large_ != nullptr ? large_.get() : small_);
  kept_ = true;
}

void KeptRequest::SerializeToArray(uint8_t* target) const { std::memcpy(target, bytes(), size_); }

bool KeptRequest::SerializeToStream(google::protobuf::io::ZeroCopyOutputStream* stream) const {
  google::protobuf::io::CodedOutputStream coded(stream);
  coded.WriteRaw(bytes(), static_cast<int>(size_));
  return !coded.HadError();
}

}  // namespace shmrpc
