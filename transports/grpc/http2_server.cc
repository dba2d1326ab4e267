#include "transports/grpc/http2_server.h"

#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/src/log.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::grpc_transport {

void LazyHttp2Server::Serve(framed::UniqueFd socket, const Peer& peer, std::string_view read) {
  std::shared_ptr<GrpcServer> server;
  {
    MutexLock lock(&mutex_);
    if (shutting_down_) return;
    std::optional<uid_t> uid;
    if (peer.credentials.has_value()) uid = peer.credentials->uid;
    if (servers_.size() >= kMaxUsers && !servers_.contains(uid)) uid = std::nullopt;
    std::shared_ptr<GrpcServer>& found = servers_[uid];
    if (found == nullptr) {
      GrpcServer::Options options = options_;
      options.peer_uid = uid;
      absl::StatusOr<std::unique_ptr<GrpcServer>> started = GrpcServer::Start(options);
      if (!started.ok()) {
        static internal::LogLimiter limiter;
        internal::LogWarningLimited(limiter, absl::StrCat("closed a connection from ", peer.address,
                                                          ", which speaks HTTP/2: ", started.status().message()));
        servers_.erase(uid);
        return;
      }
      found = *std::move(started);
    }
    server = found;
  }
  server->Accept(std::move(socket), read);
}

void LazyHttp2Server::Shutdown(SteadyTime deadline) {
  std::vector<std::shared_ptr<GrpcServer>> servers;
  {
    MutexLock lock(&mutex_);
    shutting_down_ = true;
    for (auto& [uid, server] : servers_) servers.push_back(server);
  }
  // All at the same time: each may take until the deadline.
  std::vector<std::thread> threads;
  for (size_t i = 1; i < servers.size(); ++i) {
    absl::StatusOr<std::thread> thread =
        internal::StartThread("shmrpc-shutdown", [server = servers[i].get(), deadline] { server->Shutdown(deadline); });
    if (thread.ok()) threads.push_back(*std::move(thread));
  }
  for (const std::shared_ptr<GrpcServer>& server : servers) server->Shutdown(deadline);
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(&mutex_);
  servers_.clear();
}

}  // namespace shmrpc::grpc_transport
