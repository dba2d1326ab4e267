#ifndef SHMRPC_CHANNEL_H_
#define SHMRPC_CHANNEL_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shmrpc/access.h"
#include "shmrpc/client_interceptor.h"
#include "shmrpc/options.h"
#include "shmrpc/retry.h"
#include "shmrpc/target.h"
#include "shmrpc/transport.h"

namespace shmrpc {

class ChannelImpl;

struct ChannelOptions {
  // Which way to go. With kAuto the environment variable SHMRPC_TRANSPORT (auto, shm, tcp, unix, grpc) decides, if set.
  TransportPreference transport = TransportPreference::kAuto;
  WaitMode wait_mode = WaitMode::kAdaptive;

  // The encoded size of a message at most; larger ones fail with RESOURCE_EXHAUSTED. Up to kMaxMaxMessageBytes.
  size_t max_send_message_bytes = kDefaultMaxMessageBytes;
  size_t max_receive_message_bytes = kDefaultMaxMessageBytes;

  // How much a server may send ahead of this side's reading, of one stream and of all streams of the channel.
  FlowControlOptions flow_control = {};

  // Whom a server may run as: for shared memory with it, and to talk to it over a Unix socket at all. With a server
  // that shared memory is not for the calls stay with the socket, and transport() says why; to one that is not talked
  // to over its Unix socket there is no connection. Default of both: the user of this process, and root. (Not for
  // connections that the gRPC library makes.)
  AccessPolicy shared_memory_access = {};
  AccessPolicy unix_socket_access = {};

  // One attempt to connect takes this long at most; of several addresses each gets an equal share of what is left.
  // After a failed attempt the next one waits: initial_backoff at first, 1.6 times as long after each further failure,
  // up to max_backoff, each time ± 20 % at random.
  absl::Duration connect_timeout = absl::Seconds(20);
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(10);

  // A server that is not heard of for this long while calls are in flight, because its process is stopped or its host
  // has vanished, is given up: the calls end with UNAVAILABLE. One that is only slow is heard of. From
  // kMinKeepaliveTimeout; InfiniteDuration waits for ever. (A process that ends is noticed at once, whatever this
  // says.)
  absl::Duration keepalive_timeout = kDefaultKeepaliveTimeout;

  // Whether calls that have not reached a handler are attempted again after a pause, and how often; a context can say
  // otherwise for its call. Without one they are attempted again only when the connection they went to is the reason.
  std::optional<RetryPolicy> retry_policy = std::nullopt;
  // When policies, the channel's and those of contexts, make no further attempts; nullopt: they always do.
  std::optional<RetryThrottling> retry_throttling = std::nullopt;

  // Each call passes through these, in order, before it begins. See ClientInterceptor.
  std::vector<ClientInterceptor> interceptors;
};

// How a channel is connected, as in gRPC.
enum class ChannelState {
  kIdle,              // not connected; the next call, or GetState(true), will connect
  kConnecting,        // an attempt is in progress
  kReady,             // connected
  kTransientFailure,  // the latest attempt has failed, and it is not yet time for the next one
  kShutdown,          // no call can ever succeed: see status()
};

// "idle", "connecting", "ready", "transient failure", "shutdown".
std::string_view ChannelStateName(ChannelState state);

// A client's way to one server, which any number of threads and stubs share. Connects when first used and again
// whenever the connection is lost. The target may list several addresses where that server, or another one that does
// the same, may be found: an attempt to connect tries them in their order, and the channel stays with the first that
// answers until that connection is lost; then it begins with the first address again.
//
//   auto channel = shmrpc::Channel::Create("localhost:50051");
//   Greeter::Stub greeter(channel);
//
// Thread-safe. Calls in flight when the last reference goes end with CANCELLED; that may happen inside the callback
// of a call. Their own callbacks come on other threads, maybe after the channel is gone. A channel does not survive
// fork(): calls in the child fail with FAILED_PRECONDITION, the parent's go on.
class Channel final {
 public:
  // Never null and never blocks: an address or option that cannot work makes every call fail with a status that says
  // why, and status() tells it at once. `transports` lists the ways to go; the first that handles the target is used.
  static std::shared_ptr<Channel> Create(std::string_view target, ChannelOptions options = {},
                                         TransportSet transports = DefaultTransports());

  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // OK, or why no call on this channel can ever succeed (e.g. INVALID_ARGUMENT: the address is malformed).
  const absl::Status& status() const;

  // Connects now instead of with the first call; waits for it until `deadline`. OK when connected, UNAVAILABLE when
  // the attempt failed, DEADLINE_EXCEEDED.
  absl::Status WaitForConnected(absl::Time deadline);

  // The state now. An idle channel begins to connect if `try_to_connect`. A connection that was lost while nobody used
  // it is found out here, or by the next call; a call in flight is told at once.
  ChannelState GetState(bool try_to_connect);

  // Blocks until the state is not, or has ceased to be, `last_observed`; false when `deadline` passed before, or the
  // state can never change. The loss of a connection that nobody uses is noticed within 50 ms. To wait for a
  // connection, call GetState(true) before each wait:
  //
  //   while ((state = channel->GetState(true)) != ChannelState::kReady) {
  //     if (!channel->WaitForStateChange(state, deadline)) return false;
  //   }
  bool WaitForStateChange(ChannelState last_observed, absl::Time deadline);

  // Which way the calls go and why not a better one: "shm", "tcp: peer on another host", "tcp: memfd refused
  // (EMFILE)"; "none: " and the reason while there is no connection. When the target is a list it also tells which
  // address is in use: "shm to host2:50051", "tcp to host2:50051: peer on another host".
  std::string transport() const;

  // As it was given to Create.
  const std::string& target() const;

 private:
  friend class ChannelAccess;
  explicit Channel(std::shared_ptr<ChannelImpl> impl);

  const std::shared_ptr<ChannelImpl> impl_;
};

}  // namespace shmrpc

#endif  // SHMRPC_CHANNEL_H_
