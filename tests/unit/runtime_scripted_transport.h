#ifndef SHMRPC_TESTS_UNIT_RUNTIME_SCRIPTED_TRANSPORT_H_
#define SHMRPC_TESTS_UNIT_RUNTIME_SCRIPTED_TRANSPORT_H_

// A transport whose attempts to connect end as the test says, and what the tests of channels share beside it.

#include <poll.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/transport.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc::testing {

// Handles every address; what Connect does is the test's.
class ScriptedTransport final : public Transport {
 public:
  using ConnectFunction =
      std::function<absl::StatusOr<std::unique_ptr<Connection>>(const Target&, const ConnectOptions&)>;

  explicit ScriptedTransport(ConnectFunction connect) : connect_(std::move(connect)) {}

  std::string_view name() const override { return "fake"; }
  bool Handles(const Target&) const override { return true; }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) override {
    ++attempts_;
    return connect_(target, options);
  }
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target&, const ListenOptions&, CallHandler*) override {
    return absl::UnimplementedError("the fake does not listen");
  }

  int attempts() const { return attempts_; }

 private:
  const ConnectFunction connect_;
  std::atomic<int> attempts_{0};
};

// Blocks until the channel gives the attempt up.
inline absl::StatusOr<std::unique_ptr<Connection>> WaitForInterrupt(const ConnectOptions& options) {
  pollfd interrupt = {options.interrupt_fd, POLLIN, 0};
  const int timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(kHang));
  if (poll(&interrupt, 1, timeout_ms) != 1) return absl::UnknownError("the attempt was never interrupted");
  return absl::CancelledError("interrupted");
}

inline absl::StatusOr<std::unique_ptr<Connection>> ConnectInproc(const std::string& name) {
  Target target;
  target.kind = Target::Kind::kInproc;
  target.name = name;
  return InprocTransport().Connect(target, ConnectOptions());
}

// Back-offs that no test outlasts, so that what happens during one can be tested without a race.
inline ChannelOptions LongBackoff() {
  ChannelOptions options;
  options.initial_backoff = absl::Hours(1);
  options.max_backoff = absl::Hours(1);
  return options;
}

inline ChannelOptions ShortBackoff() {
  ChannelOptions options;
  options.initial_backoff = absl::Milliseconds(2);
  options.max_backoff = absl::Milliseconds(10);
  return options;
}

inline absl::Status Call(Channel& channel, ClientContext* context = nullptr) {
  StringValue reply;
  return UnaryCall(channel, TestService::kEcho, context, Text("x"), &reply);
}

inline absl::Status CallWhenReady(Channel& channel) {
  ClientContext context;
  context.set_wait_for_ready(true);
  context.set_timeout(kHang);
  return Call(channel, &context);
}

inline std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTS_UNIT_RUNTIME_SCRIPTED_TRANSPORT_H_
