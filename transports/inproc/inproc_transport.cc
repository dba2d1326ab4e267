#include "transports/inproc/inproc_transport.h"

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/fork.h"
#include "shmrpc/mutex.h"
#include "transports/inproc/inproc_call.h"
#include "transports/inproc/inproc_server.h"

namespace shmrpc {
namespace {

using internal::InprocCall;
using internal::InprocServer;

// Who listens under which name. A fork()ed child starts with an empty one: the parent's threads do not exist there.
class Registry {
 public:
  // False when the name is taken.
  bool Add(const std::shared_ptr<InprocServer>& server) {
    MutexLock lock(&mutex_);
    return servers_.emplace(server->name(), server).second;
  }

  void Remove(const std::shared_ptr<InprocServer>& server) {
    MutexLock lock(&mutex_);
    const auto found = servers_.find(server->name());
    if (found != servers_.end() && found->second == server) servers_.erase(found);
  }

  std::shared_ptr<InprocServer> Find(const std::string& name) {
    MutexLock lock(&mutex_);
    const auto found = servers_.find(name);
    return found == servers_.end() ? nullptr : found->second;
  }

 private:
  Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<InprocServer>> servers_ ABSL_GUARDED_BY(mutex_);
};

constinit internal::PerProcess<Registry> registry;

class InprocConnection final : public Connection {
 public:
  InprocConnection(std::shared_ptr<InprocServer> server, WaitMode wait_mode)
      : server_(std::move(server)), wait_mode_(wait_mode) {
    choice_.name = "inproc";
  }

  ~InprocConnection() override {
    server_->CancelCalls(this, absl::CancelledError("the connection was closed on the client's side"));
  }

  void StartCall(const CallSpec& spec, const OutgoingMessage& request, CallEvents* events, Call** call) override {
    InprocCall* const started = new InprocCall(server_, this, wait_mode_, spec, events);
    *call = started;
    // The events may let go of everything, this connection too; the reference outlives them, and the call its server.
    started->Ref();
    InprocServer& server = *server_;
    absl::Status status;
    if (request.size() > server.max_receive_message_bytes()) {
      status = absl::ResourceExhaustedError(
          absl::StrCat("the request of ", spec.method, " has ", request.size(), " bytes, the server's limit is ",
                       server.max_receive_message_bytes(), "; ServerBuilder::SetMaxReceiveMessageBytes can raise it"));
    } else {
      started->SetRequest(request);
      status = server.Accept(started);
    }
    if (!status.ok()) started->FailToStart(std::move(status));
    started->Unref();
  }

  const TransportChoice& choice() const override { return choice_; }
  const Peer& peer() const override { return server_->peer(); }
  bool IsOver() override { return server_->IsDraining(); }
  absl::Status reason_over() const override { return server_->ShutDownError(); }

 private:
  const std::shared_ptr<InprocServer> server_;
  const WaitMode wait_mode_;
  TransportChoice choice_;
};

class InprocListener final : public Listener {
 public:
  InprocListener(Target address, std::shared_ptr<InprocServer> server)
      : address_(std::move(address)), server_(std::move(server)) {}

  ~InprocListener() override { Shutdown(absl::InfinitePast()); }

  const Target& address() const override { return address_; }

  void Shutdown(absl::Time deadline) override {
    registry.Get().Remove(server_);
    server_->Shutdown(deadline);
  }

 private:
  const Target address_;
  const std::shared_ptr<InprocServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> InprocTransport::Connect(const Target& target,
                                                                     const ConnectOptions& options) {
  std::shared_ptr<InprocServer> server = registry.Get().Find(target.name);
  if (server == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("no server in this process listens on \"inproc:", absl::CHexEscape(target.name), "\""));
  }
  return std::make_unique<InprocConnection>(std::move(server), options.wait_mode);
}

absl::StatusOr<std::unique_ptr<Listener>> InprocTransport::Listen(const Target& target, const ListenOptions& options,
                                                                  CallHandler* handler) {
  auto server = std::make_shared<InprocServer>(target.name, options, handler);
  if (!registry.Get().Add(server)) {
    return absl::AlreadyExistsError(
        absl::StrCat("another server in this process listens on \"inproc:", absl::CHexEscape(target.name), "\""));
  }
  return std::make_unique<InprocListener>(target, std::move(server));
}

}  // namespace shmrpc
