#ifndef SHMRPC_TRANSPORTS_GRPC_HTTP2_SERVER_H_
#define SHMRPC_TRANSPORTS_GRPC_HTTP2_SERVER_H_

#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/auto/http2.h"
#include "transports/grpc/server.h"

namespace shmrpc::grpc_transport {

// The servers of the gRPC library behind one listener, made when the first connection needs one. The gRPC library does
// not tell which connection a call came by, so there is one server for each user that clients run as, as far as that is
// known: so handlers know it. Thread-safe.
class LazyHttp2Server final : public autoselect::Http2Server {
 public:
  // `options` but for peer_uid.
  explicit LazyHttp2Server(GrpcServer::Options options) : options_(std::move(options)) {}
  ~LazyHttp2Server() override { Shutdown(SteadyTime::InfinitePast()); }

  // Http2Server
  void Serve(framed::UniqueFd socket, const Peer& peer, std::string_view read) override;
  void Shutdown(SteadyTime deadline) override;

 private:
  // More users than this share one server, where they are not known.
  static constexpr size_t kMaxUsers = 16;

  const GrpcServer::Options options_;
  Mutex mutex_;
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<std::optional<uid_t>, std::shared_ptr<GrpcServer>> servers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_HTTP2_SERVER_H_
