#ifndef SHMRPC_RUNTIME_SRC_CLIENT_RETRY_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_RETRY_H_

// What calls of all styles need for a further attempt: the decision, and the request.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "shmrpc/message.h"
#include "shmrpc/metadata.h"
#include "shmrpc/retry.h"

namespace shmrpc {

// How far an attempt has got that failed.
enum class AttemptEnd : unsigned char {
  kMayHaveRun,    // the last attempt, therefore
  kNotProcessed,  // there was a connection, but no handler has begun: see CallEnd
  kNotConnected,  // there was no connection
};

// A channel's tokens: see RetryThrottling. Thread-safe.
class RetryThrottle {
 public:
  explicit RetryThrottle(const std::optional<RetryThrottling>& throttling);

  // An attempt of a call with `policy` has ended for good.
  void Record(const RetryPolicy& policy, const absl::Status& status);
  // Whether policies may make further attempts now.
  bool AllowsRetry() const { return tokens_.load(std::memory_order_relaxed) > threshold_; }

 private:
  void Add(int64_t tokens);

  // In thousandths of a token. Without throttling there is one of them, and the threshold is 0.
  const int64_t max_;
  const int64_t threshold_;
  const int64_t ratio_;
  const int64_t cost_;
  std::atomic<int64_t> tokens_;
};

// The attempts of one call, and whether there is to be another. Costs a call that needs none next to nothing. Not
// synchronised: belongs to the thread that has learnt how an attempt ended.
class CallAttempts {
 public:
  // The latest attempt ended with `status`. How long to wait before the next one, or nullopt: it was the last one.
  // `throttle` is told, unless the attempt may have run.
  std::optional<absl::Duration> NextAfter(AttemptEnd end, const absl::Status& status, const RetryPolicy* policy,
                                          RetryThrottle& throttle);

  // The metadata of the next attempt, given that of the first one (may be null). A copy, which lives as long as this
  // object: the first attempt's may be gone by then.
  const Metadata* KeepMetadata(const Metadata* first);

 private:
  int transparent_retries_ = 0;
  int policy_retries_ = 0;
  std::unique_ptr<Metadata> first_metadata_;
  std::unique_ptr<Metadata> metadata_;
};

// A request in encoded form, for the time after the call's user has got it back.
class KeptRequest final : public OutgoingMessage {
 public:
  KeptRequest() = default;
  KeptRequest(const KeptRequest&) = delete;
  KeptRequest& operator=(const KeptRequest&) = delete;

  // Keeps `message`. Once.
  void Keep(const OutgoingMessage& message);
  // What keeps nothing may be dropped by several threads.
  void Drop() {
    if (!kept_) return;
    kept_ = false;
    large_ = nullptr;
  }
  bool kept() const { return kept_; }

  // OutgoingMessage
  size_t size() const override { return size_; }
  void SerializeToArray(uint8_t* target) const override;
  bool SerializeToStream(google::protobuf::io::ZeroCopyOutputStream* stream) const override;

 private:
  // So that most requests need no allocation.
  static constexpr size_t kSmallBytes = 256;

  const uint8_t* bytes() const { return large_ != nullptr ? large_.get() : small_; }

  bool kept_ = false;
  size_t size_ = 0;
  std::unique_ptr<uint8_t[]> large_;
  uint8_t small_[kSmallBytes];
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_RETRY_H_
