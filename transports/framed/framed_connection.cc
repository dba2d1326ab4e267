#include "transports/framed/framed_connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/fork.h"
#include "transports/framed/client_session.h"
#include "transports/framed/poller.h"

namespace shmrpc::framed {
namespace {

// The threads that look after this process's client connections: asynchronous calls, and hang-ups while nobody waits.
// Made with the first connection and never destroyed; asleep when there is nothing to do.
constexpr int kMaxThreads = 64;  // more than two only while callbacks block
constinit internal::PerProcess<std::unique_ptr<Poller>> client_poller;

class FramedConnection final : public Connection {
 public:
  FramedConnection(std::shared_ptr<ClientSession> session, TransportChoice choice, Peer peer)
      : session_(std::move(session)), choice_(std::move(choice)), peer_(std::move(peer)) {}
  ~FramedConnection() override { session_->Close(); }

  void StartCall(const CallSpec& spec, const OutgoingMessage* request, CallEvents* events,
                 std::atomic<Call*>* call) override {
    session_->StartCall(spec, request, events, call);
  }
  const TransportChoice& choice() const override { return choice_; }
  const Peer& peer() const override { return peer_; }
  bool IsOver() override { return session_->IsOver(); }
  absl::Status reason_over() const override { return session_->reason_over(); }

 private:
  const std::shared_ptr<ClientSession> session_;
  const TransportChoice choice_;
  const Peer peer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> MakeConnection(std::unique_ptr<Link> link, const SessionOptions& options,
                                                           TransportChoice choice, Peer peer) {
  const absl::StatusOr<std::unique_ptr<Poller>*> poller =
      client_poller.GetOrTry([] { return Poller::Create("shmrpc-client", kMaxThreads); });
  if (!poller.ok()) return absl::UnavailableError(poller.status().message());
  auto session = std::make_shared<ClientSession>(std::move(link), (*poller)->get(), options);
  absl::Status status = session->Start();
  if (!status.ok()) return absl::UnavailableError(status.message());
  return std::make_unique<FramedConnection>(std::move(session), std::move(choice), std::move(peer));
}

}  // namespace shmrpc::framed
