#include "transports/grpc/client_connection.h"

#include <grpcpp/create_channel.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/fork.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/errno_name.h"
#include "transports/framed/unique_fd.h"
#include "transports/grpc/certificates.h"
#include "transports/grpc/client_call.h"

namespace shmrpc::grpc_transport {
namespace {

// Threads that run callbacks of asynchronous calls, at most; there is no use in more than calls that block in them.
constexpr int kMaxCallbackThreads = 256;

// The completion threads of this process's clients. They live while there are connections or calls.
class ClientThreads {
 public:
  absl::StatusOr<std::shared_ptr<CompletionThreads>> Get() {
    MutexLock lock(&mutex_);
    std::shared_ptr<CompletionThreads> threads = threads_.lock();
    if (threads != nullptr) return threads;
    absl::StatusOr<std::unique_ptr<CompletionThreads>> started =
        CompletionThreads::Start("shmrpc-grpc", std::make_unique<grpc::CompletionQueue>(), kMaxCallbackThreads);
    if (!started.ok()) return started.status();
    threads = *std::move(started);
    threads_ = threads;
    return threads;
  }

 private:
  Mutex mutex_;
  std::weak_ptr<CompletionThreads> threads_ ABSL_GUARDED_BY(mutex_);
};

constinit internal::PerProcess<ClientThreads> client_threads;

// A change of a channel's state, which makes a descriptor readable. Belongs to itself from Begin on.
class StateWatch final : public Completion {
 public:
  // `changed` is written to when the state is not `state` any more, or at `deadline`.
  static void Begin(const std::shared_ptr<ClientChannel>& channel, grpc_connectivity_state state, SteadyTime deadline,
                    std::shared_ptr<framed::UniqueFd> changed) {
    auto* const watch = new StateWatch(channel, std::move(changed));
    channel->channel->NotifyOnStateChange(state, ToGrpcTime(deadline), channel->threads->queue(),
                                          static_cast<Completion*>(watch));
  }

  void OnCompletion(bool) override {
    eventfd_write(changed_->get(), 1);
    delete this;
  }

 private:
  StateWatch(std::shared_ptr<ClientChannel> channel, std::shared_ptr<framed::UniqueFd> changed)
      : channel_(std::move(channel)), changed_(std::move(changed)) {}

  const std::shared_ptr<ClientChannel> channel_;  // with its queue
  const std::shared_ptr<framed::UniqueFd> changed_;
};

// Finds out why a channel does not connect: only calls are told. A call of the health service does no harm if the
// channel should be connected by now.
class Probe final : public CallBase {
 public:
  static absl::Status Run(const std::shared_ptr<ClientChannel>& channel) {
    auto* const probe = new Probe(channel);
    probe->context_.set_deadline(ToGrpcTime(SteadyTime::Now() + absl::Seconds(1)));
    probe->reader_ = channel->stub.PrepareUnaryCall(&probe->context_, "/grpc.health.v1.Health/Check",
                                                    grpc::ByteBuffer(), channel->threads->queue());
    probe->reader_->StartCall();
    probe->reader_->Finish(&probe->reply_, &probe->status_, probe->finish_.Begin());
    probe->Wait([probe] { return probe->done_.load(); }, SteadyTime::InfiniteFuture());
    absl::Status status = FromGrpcStatus(probe->status_);
    probe->Unref();
    return status;
  }

 private:
  explicit Probe(std::shared_ptr<ClientChannel> channel) : CallBase(channel->threads), channel_(std::move(channel)) {}

  bool IsDue() const override { return due_; }
  void TellNext() override {
    MutexLock lock(&mutex_);
    due_ = false;
    done_ = true;
  }
  bool RunsUserCode() const override { return false; }
  void OnFinish(bool) {
    {
      MutexLock lock(&mutex_);
      due_ = true;
    }
    Wake(Where::kHere);
  }

  const std::shared_ptr<ClientChannel> channel_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader_;
  grpc::ByteBuffer reply_;
  grpc::Status status_;
  bool due_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> done_{false};
  Operation<Probe> finish_{this, &Probe::OnFinish};
};

// What a client is told of when a server does not accept its certificate: that comes after the client's part of the
// handshake, and the connection just ends.
constexpr char kCertificateHint[] =
    " (over TLS a server ends the connection at once when it does not accept the client's certificate, or demands one: "
    "see GrpcTlsClientOptions)";

// The same for a client without TLS, whom servers with TLS answer in as many ways as there are implementations.
constexpr char kPlainHint[] =
    " (the server was reached, but does not answer as a gRPC server does: if it speaks TLS, set the "
    "option tls)";

// Whether a failure is one to connect at all, in the gRPC library's words: no server has said anything then. What the
// gRPC library says of one that has depends on the server's implementation.
bool WasNotReached(std::string_view failure) {
  for (const std::string_view words : {"Failed to connect to remote host", "Connection refused", "No such file",
                                       "DNS resolution failed", "imed out", "imeout", "eadline", "HTTP proxy"}) {
    if (absl::StrContains(failure, words)) return true;
  }
  return false;
}

class GrpcConnection final : public Connection {
 public:
  GrpcConnection(std::shared_ptr<ClientChannel> channel, const ClientConnectionOptions& options)
      : channel_(std::move(channel)), choice_(options.choice), tls_(options.tls.has_value()) {
    peer_.transport = choice_.name;
    peer_.address = options.target;
  }

  ~GrpcConnection() override {
    std::vector<ClientCall*> calls;
    {
      MutexLock lock(&channel_->mutex);
      channel_->closed = true;
      calls.assign(channel_->calls.begin(), channel_->calls.end());
      for (ClientCall* call : calls) call->Ref();
    }
    for (ClientCall* call : calls) {
      call->CancelHere(absl::CancelledError("the channel was destroyed while the call was in progress"));
      call->Unref();
    }
  }

  void StartCall(const CallSpec& spec, const OutgoingMessage* request, CallEvents* events,
                 std::atomic<Call*>* call) override {
    // The callback may destroy the connection before this function is done.
    const std::shared_ptr<ClientChannel> channel = channel_;
    ClientCall::Start(channel, spec, request, events, call);
  }

  const TransportChoice& choice() const override { return choice_; }
  const Peer& peer() const override { return peer_; }

  // Whoever is told so and may connect again lets go of it. Otherwise a call that was started in the moment of the loss
  // may make the gRPC library connect again by itself; then this is a connection still.
  bool IsOver() override { return channel_->channel->GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_READY; }

  absl::Status reason_over() const override {
    MutexLock lock(&channel_->mutex);
    std::string reason = absl::StrCat("the gRPC connection to ", peer_.address, " was lost");
    if (!channel_->last_failure.empty()) absl::StrAppend(&reason, ": ", channel_->last_failure);
    if (tls_ && SteadyTime::Now() - since_ < absl::Seconds(1)) {
      absl::StrAppend(&reason, kCertificateHint);
    }
    return absl::UnavailableError(reason);
  }

 private:
  const std::shared_ptr<ClientChannel> channel_;
  const TransportChoice choice_;
  const bool tls_;
  const SteadyTime since_ = SteadyTime::Now();
  Peer peer_;
};

// Waits until `changed` is readable. False when `interrupt_fd` is.
bool WaitReadable(int changed, int interrupt_fd, SteadyTime deadline) {
  for (;;) {
    pollfd fds[2] = {{changed, POLLIN, 0}, {interrupt_fd, POLLIN, 0}};
    const timespec timeout = absl::ToTimespec(deadline.Left());
    const int ready = ppoll(fds, interrupt_fd >= 0 ? 2 : 1, &timeout, nullptr);
    if (ready < 0 && errno == EINTR) continue;
    if (fds[1].revents != 0) return false;
    eventfd_t count;
    if (fds[0].revents != 0) (void)eventfd_read(changed, &count);
    return true;
  }
}

}  // namespace

absl::Status BeginUse() {
  constexpr uint64_t kUnused = ~uint64_t{0};
  static std::atomic<uint64_t> used_in{kUnused};
  const uint64_t generation = internal::ForkGeneration();
  uint64_t before = kUnused;
  if (used_in.compare_exchange_strong(before, generation) || before == generation) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the parent of this process used gRPC before fork(), and the gRPC library does not work in such a child; fork "
      "before the first use, or exec a program");
}

absl::StatusOr<std::unique_ptr<Connection>> ConnectGrpc(const ClientConnectionOptions& connection_options,
                                                        const ConnectOptions& options) {
  absl::Status usable = BeginUse();
  if (!usable.ok()) return usable;
  absl::StatusOr<std::shared_ptr<CompletionThreads>> threads = client_threads.Get().Get();
  if (!threads.ok()) return absl::UnavailableError(threads.status().message());
  auto changed = std::make_shared<framed::UniqueFd>(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!changed->valid()) return absl::UnavailableError(absl::StrCat("no eventfd: ", framed::ErrnoText(errno)));
  const auto channel = std::make_shared<ClientChannel>(
      grpc::CreateCustomChannel(connection_options.target, connection_options.credentials,
                                connection_options.arguments),
      *threads, connection_options.keepalive_timeout);
  // A watch cannot be taken back: one that nobody waits for any more shall not keep the channel for long.
  constexpr absl::Duration kWatchTime = absl::Milliseconds(200);
  constexpr absl::Duration kExplanationTime = absl::Seconds(2);
  for (;;) {
    const grpc_connectivity_state state = channel->channel->GetState(/*try_to_connect=*/true);
    const SteadyTime now = SteadyTime::Now();
    switch (state) {
      case GRPC_CHANNEL_READY:
        return std::make_unique<GrpcConnection>(channel, connection_options);
      case GRPC_CHANNEL_TRANSIENT_FAILURE: {
        const absl::Status why = Probe::Run(channel);
        if (channel->channel->GetState(false) == GRPC_CHANNEL_READY) continue;
        std::string text =
            absl::StrCat(connection_options.target, ": ", why.ok() ? "the connection was lost at once" : why.message());
        if (!WasNotReached(why.message())) {
          std::string explanation;
          if (connection_options.tls.has_value() && absl::StrContains(why.message(), "andshake")) {
            explanation =
                ExplainHandshakeFailure(connection_options.target, *connection_options.tls,
                                        std::min(options.deadline, now + kExplanationTime), options.interrupt_fd);
          }
          if (explanation.empty()) explanation = connection_options.tls.has_value() ? kCertificateHint : kPlainHint;
          absl::StrAppend(&text, explanation);
        }
        return absl::UnavailableError(text);
      }
      case GRPC_CHANNEL_SHUTDOWN:
        return absl::UnavailableError(absl::StrCat(connection_options.target, ": the gRPC channel has shut down"));
      case GRPC_CHANNEL_IDLE:
      case GRPC_CHANNEL_CONNECTING:
        break;
    }
    if (now >= options.deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(connection_options.target, ": the gRPC library has not connected in time"));
    }
    const SteadyTime until = std::min(options.deadline, now + kWatchTime);
    StateWatch::Begin(channel, state, until, changed);
    if (!WaitReadable(changed->get(), options.interrupt_fd, until)) {
      return absl::CancelledError("the attempt to connect was given up");
    }
  }
}

}  // namespace shmrpc::grpc_transport
