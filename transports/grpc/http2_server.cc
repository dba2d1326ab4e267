#include "transports/grpc/http2_server.h"

#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/src/log.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"
#include "transports/grpc/client_connection.h"

namespace shmrpc::grpc_transport {

void LazyHttp2Server::Serve(framed::UniqueFd socket, const Peer& peer, absl::string_view read) {
  std::shared_ptr<GrpcServer> server;
  {
    MutexLock lock(&mutex_);
    if (shutting_down_) return;
    absl::optional<uid_t> uid;
    if (peer.credentials.has_value()) uid = peer.credentials->uid;
    if (servers_.size() >= kMaxUsers && !servers_.contains(uid)) uid = absl::nullopt;
    std::shared_ptr<GrpcServer>& found = servers_[uid];
    if (found == nullptr) {
      absl::StatusOr<std::shared_ptr<GrpcServer>> started = StartServer(uid);
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

absl::StatusOr<std::shared_ptr<GrpcServer>> LazyHttp2Server::StartServer(absl::optional<uid_t> uid) {
  absl::Status usable = BeginUse();  // before anything of the gRPC library is made
  if (!usable.ok()) return usable;
  if (threads_ == nullptr) {
    absl::StatusOr<std::unique_ptr<CompletionThreads>> threads = CompletionThreads::Start(
        "shmrpc-grpc-srv", std::make_unique<grpc::CompletionQueue>(), options_.listen.max_threads);
    if (!threads.ok()) return threads.status();
    threads_ = *std::move(threads);
  }
  if (share_ == nullptr) share_ = GrpcShare::Of(options_.listen.connection_limiter);
  GrpcServer::Options options = options_;
  options.peer_uid = uid;
  options.threads = threads_;
  options.share = share_;
  return GrpcServer::Start(options);
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
  threads_ = nullptr;
  share_ = nullptr;
}

}  // namespace shmrpc::grpc_transport
