#include "transports/inproc/inproc_transport.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/fork.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/errno_name.h"
#include "transports/framed/framed_connection.h"
#include "transports/framed/server_sessions.h"
#include "transports/framed/spin_policy.h"
#include "transports/framed/unique_fd.h"
#include "transports/shm/segment.h"
#include "transports/shm/shm_link.h"

namespace shmrpc {
namespace {

constexpr char kName[] = "inproc";

// What listens under one name.
struct Server {
  Server(std::string server_name, const ListenOptions& options, CallHandler* handler)
      : name(std::move(server_name)), flow_control(options.flow_control), sessions(options, handler) {}

  const std::string name;
  const FlowControlOptions flow_control;
  framed::ServerSessions sessions;
};

// Who listens under which name. A fork()ed child starts with an empty one: the parent's threads do not exist there.
class Registry {
 public:
  // False when the name is taken.
  bool Add(const std::shared_ptr<Server>& server) {
    MutexLock lock(&mutex_);
    return servers_.emplace(server->name, server).second;
  }

  void Remove(const std::shared_ptr<Server>& server) {
    MutexLock lock(&mutex_);
    const auto found = servers_.find(server->name);
    if (found != servers_.end() && found->second == server) servers_.erase(found);
  }

  std::shared_ptr<Server> Find(const std::string& name) {
    MutexLock lock(&mutex_);
    const auto found = servers_.find(name);
    return found == servers_.end() ? nullptr : found->second;
  }

 private:
  Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<Server>> servers_ ABSL_GUARDED_BY(mutex_);
};

constinit internal::PerProcess<Registry> registry;

Peer ThisProcess(std::string_view name) {
  Peer peer;
  peer.transport = kName;
  peer.address = absl::StrCat("inproc:", ToAbsl(name));
  PeerCredentials& credentials = peer.credentials.emplace();
  credentials.uid = geteuid();
  credentials.gid = getegid();
  credentials.pid = getpid();
  const int groups = getgroups(0, nullptr);
  credentials.groups.resize(groups > 0 ? static_cast<size_t>(groups) : 0);
  if (getgroups(groups, credentials.groups.data()) != groups) credentials.groups.clear();
  return peer;
}

struct LinkPair {
  std::unique_ptr<framed::Link> client;
  std::unique_ptr<framed::Link> server;
};

// The memory of `segment` as its peer sees it.
absl::StatusOr<shm::PeerSegment> AsPeer(const shm::Segment& segment) {
  framed::UniqueFd fd(fcntl(segment.fd(), F_DUPFD_CLOEXEC, 0));
  if (!fd.valid()) return absl::ResourceExhaustedError(absl::StrCat("dup failed: ", framed::ErrnoText(errno)));
  return shm::PeerSegment::Map(std::move(fd), shm::kSegmentBytes, shm::kSegmentBytes);
}

absl::StatusOr<LinkPair> MakeLinks() {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) != 0) {
    return absl::UnavailableError(absl::StrCat("socketpair failed: ", framed::ErrnoText(errno)));
  }
  framed::UniqueFd client_socket(sockets[0]), server_socket(sockets[1]);
  absl::StatusOr<shm::Segment> client = shm::Segment::Create(shm::kSegmentBytes);
  if (!client.ok()) return client.status();
  absl::StatusOr<shm::Segment> server = shm::Segment::Create(shm::kSegmentBytes);
  if (!server.ok()) return server.status();
  absl::StatusOr<shm::PeerSegment> client_as_peer = AsPeer(*client);
  if (!client_as_peer.ok()) return client_as_peer.status();
  absl::StatusOr<shm::PeerSegment> server_as_peer = AsPeer(*server);
  if (!server_as_peer.ok()) return server_as_peer.status();
  client->ReleaseFd();
  server->ReleaseFd();
  LinkPair links;
  links.client =
      std::make_unique<shm::ShmLink>(std::move(client_socket), *std::move(client), *std::move(server_as_peer), kName);
  links.server =
      std::make_unique<shm::ShmLink>(std::move(server_socket), *std::move(server), *std::move(client_as_peer), kName);
  return links;
}

class InprocListener final : public Listener {
 public:
  InprocListener(Target address, std::shared_ptr<Server> server)
      : address_(std::move(address)), server_(std::move(server)) {}

  ~InprocListener() override { Shutdown(SteadyTime::InfinitePast()); }

  const Target& address() const override { return address_; }

  void Shutdown(SteadyTime deadline) override {
    registry.Get().Remove(server_);
    server_->sessions.Shutdown(deadline);
  }

 private:
  const Target address_;
  const std::shared_ptr<Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> InprocTransport::Connect(const Target& target,
                                                                     const ConnectOptions& options) {
  const std::shared_ptr<Server> server = registry.Get().Find(target.name);
  if (server == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("no server in this process listens on \"inproc:", absl::CHexEscape(target.name), "\""));
  }
  absl::StatusOr<LinkPair> links = MakeLinks();
  if (!links.ok()) {
    return absl::UnavailableError(
        absl::StrCat("\"inproc:", absl::CHexEscape(target.name), "\": ", links.status().message()));
  }
  const std::string cpus = framed::AllowedCpus();
  const bool may_spin = framed::CanRunTogether(cpus, cpus);
  // Without keepalive: a process need not find out whether it is alive itself.
  server->sessions.Add(std::move(links->server), {.may_spin = may_spin, .granted_by_peer = options.flow_control},
                       ThisProcess(target.name));
  TransportChoice choice;
  choice.name = kName;
  return framed::MakeConnection(std::move(links->client),
                                {.spin_policy = framed::SpinPolicy(options.wait_mode, may_spin),
                                 .granted_by_peer = server->flow_control,
                                 .granted_to_peer = options.flow_control},
                                std::move(choice), ThisProcess(target.name));
}

absl::StatusOr<std::unique_ptr<Listener>> InprocTransport::Listen(const Target& target, const ListenOptions& options,
                                                                  CallHandler* handler) {
  auto server = std::make_shared<Server>(target.name, options, handler);
  absl::Status status = server->sessions.Init();
  if (!status.ok()) return status;
  if (!registry.Get().Add(server)) {
    return absl::AlreadyExistsError(
        absl::StrCat("another server in this process listens on \"inproc:", absl::CHexEscape(target.name), "\""));
  }
  return std::make_unique<InprocListener>(target, std::move(server));
}

}  // namespace shmrpc
