#ifndef SHMRPC_RETRY_H_
#define SHMRPC_RETRY_H_

// When a call is attempted more than once.
//
// A request that may have reached a handler is never sent again. One that provably did not may be: nothing of it, or
// not all, had been sent when the connection ended; the server refused it before a handler began; or there was no
// connection at all.
//
// Without any option, a call that ends so with UNAVAILABLE, because the connection was lost or the server is shutting
// down, is attempted again at once, on another connection, up to kMaxTransparentRetries times: as in gRPC, but with one
// limit for both cases. The next attempt is like the first: it fails when there is no connection to be had, unless the
// call has wait_for_ready. A RetryPolicy adds attempts after a pause: for connections that cannot be had, and for
// servers that refuse with another code, as RESOURCE_EXHAUSTED beyond SetMaxConcurrentCalls.
//
// Which calls: unary ones, and those whose server streams, in every style. Their request is kept for that; of an
// asynchronous unary call, or one whose server streams, if its encoded size is at most kMaxKeptRequestBytes.
//
// Not those whose client streams, once one of its messages, or its half-close, has been handed over, policy or not:
// messages are not kept to be sent again. Such a call ends with UNAVAILABLE, or the code of the refusal, although no
// handler has seen it, and its caller begins it anew. (A stream that waits is attempted again only until the function
// that begins it returns.)
//
// Deadline and TryCancel are those of the whole call, with all its attempts. Interceptors see one call.

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace shmrpc {

inline constexpr int kMaxTransparentRetries = 5;
inline constexpr size_t kMaxKeptRequestBytes = 256 * 1024;

// How often, with which pauses and for which codes calls that have not reached a handler are attempted again. Shapes
// and names are those of retryPolicy in gRPC's service config (gRFC A6). The meaning is narrower: what a handler has
// answered is final, whatever the code.
//
//   options.retry_policy = shmrpc::RetryPolicy{.max_attempts = 4, .codes = {absl::StatusCode::kUnavailable}};
struct RetryPolicy {
  // Of one call, with the first one; at least 2. Transparent retries do not count. There is no limit from above.
  int max_attempts = 0;

  // The pause before the n-th retry: initial_backoff × multiplier^(n−1), but max_backoff at most, and then a part of it
  // more or less at random: up to ±jitter, 0 to 1. All but jitter are positive.
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  double multiplier = 2;
  double jitter = 0.2;

  // At least one; not OK.
  std::vector<absl::StatusCode> codes = {};

  // OK, or INVALID_ARGUMENT and what is wrong.
  absl::Status Validate() const;
};

// Keeps the retry policies of a channel's calls from adding to the load when most of them fail: retryThrottling of
// gRPC's service config.
//
// A channel has max_tokens at first, and never more. Each attempt that fails with one of its policy's codes costs one
// token, also when it is the last one and when the status is a handler's; each call with a policy that succeeds brings
// token_ratio back. As long as half of max_tokens or less is there, no policy makes an attempt: calls end with the
// status they have. Transparent retries neither count nor wait for tokens, nor do calls without a policy.
struct RetryThrottling {
  double max_tokens = 0;   // more than 0, up to 1000
  double token_ratio = 0;  // at least 0.001, to three decimal places

  // OK, or INVALID_ARGUMENT and what is wrong.
  absl::Status Validate() const;
};

}  // namespace shmrpc

#endif  // SHMRPC_RETRY_H_
