#ifndef SHMRPC_SERVER_H_
#define SHMRPC_SERVER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shmrpc/access.h"
#include "shmrpc/health.h"
#include "shmrpc/options.h"
#include "shmrpc/server_interceptor.h"
#include "shmrpc/service.h"
#include "shmrpc/target.h"
#include "shmrpc/transport.h"

namespace shmrpc {

class GenericServiceBase;

// A running server. Thread-safe, but for destruction. Neither Shutdown, Wait nor the destructor may be called from a
// handler or a reaction of this server: they wait for those. A library that was built without NDEBUG aborts and says
// so. Any other logs it: then Shutdown goes on on a thread of its own, and returns; Wait returns; the destructor
// aborts. (From a coroutine handler that runs on a thread of the user's they hang, and the log tells what they wait
// for.)
class Server {
 public:
  // As Shutdown(InfinitePast()).
  virtual ~Server() = default;

  // Where the server listens, in the order of the Listen calls, with the ports that the kernel chose where port 0 was
  // asked for.
  virtual const std::vector<Target>& addresses() const = 0;

  // Tells those who watch the server's health, takes no further connections and calls, waits until the accepted calls
  // have finished or `deadline` passed, cancels the rest and waits for their handlers: for synchronous ones and
  // coroutines to return, for reactors' OnDone. Calls that come too late are not processed: their clients send
  // them elsewhere, or end them with UNAVAILABLE (see retry.h). Idempotent. A handler that takes no notice of its
  // cancellation is waited for; the log says now and then for which.
  virtual void Shutdown(absl::Time deadline) = 0;

  // Where the server's health is set. Null when the health service is off, or when the user has registered a service of
  // that name. Belongs to the server.
  virtual HealthService* health() = 0;

  // Blocks until some thread has called Shutdown and it is complete.
  virtual void Wait() = 0;
};

// Collects what a server needs, then starts it:
//
//   GreeterImpl greeter;
//   auto server = shmrpc::ServerBuilder().Listen("0.0.0.0:50051").Register(&greeter).Start();
//   if (!server.ok()) ...
//
// Not thread-safe. Mistakes are collected and returned by Start.
class ServerBuilder final {
 public:
  explicit ServerBuilder(TransportSet transports = DefaultTransports());

  // May be called several times: one server, several addresses. For the forms see Target. A client on this host that
  // connects to a host:port or a Unix socket moves on to shared memory by itself.
  ServerBuilder& Listen(std::string_view address);

  // `service` is not owned and outlives the server.
  ServerBuilder& Register(Service* service);

  // `service` (shmrpc/generic.h) gets the calls of all methods that no service registered with Register has. Once at
  // most; not owned, outlives the server.
  ServerBuilder& RegisterGeneric(GenericServiceBase* service);

  // Each call passes through `interceptor` before its handler runs; through several in the order in which they were
  // added. See ServerInterceptor.
  ServerBuilder& AddInterceptor(ServerInterceptor interceptor);

  // Threads that run handlers at most, shared out evenly among the addresses. They come and go as needed. Default 512.
  ServerBuilder& SetMaxThreads(int max_threads);

  // The encoded size of one message of the client, and of one of the server, at most; larger ones make the call fail
  // with RESOURCE_EXHAUSTED.
  ServerBuilder& SetMaxReceiveMessageBytes(size_t limit);
  ServerBuilder& SetMaxSendMessageBytes(size_t limit);

  // Calls that the whole server has at the same time at most, from their arrival until their reply is sent. A call
  // beyond it gets RESOURCE_EXHAUSTED and its handler does not run; nothing queues. Those of the health service do not
  // count. Default kDefaultMaxConcurrentCalls.
  ServerBuilder& SetMaxConcurrentCalls(int limit);

  // Connections, and what one of them may take. For the limits of the limits see ConnectionLimits.
  ServerBuilder& SetConnectionLimits(const ConnectionLimits& limits);

  // How much a stream's client may send ahead of its handler. For the limits see FlowControlOptions.
  ServerBuilder& SetFlowControl(const FlowControlOptions& flow_control);

  // A client that is not heard of for this long while calls of it are in progress, because its process is stopped or
  // its host has vanished, is given up: its calls are cancelled. For the limits see ChannelOptions::keepalive_timeout.
  ServerBuilder& SetKeepaliveTimeout(absl::Duration timeout);

  ServerBuilder& SetWaitMode(WaitMode mode);

  // kTcp, kUnix: offer no shared memory. kShm: refuse calls that come otherwise. Default kAuto.
  ServerBuilder& SetTransport(TransportPreference preference);

  // Whether the server has the standard service grpc.health.v1.Health (see HealthService); on by default. A service of
  // that name that is registered with Register comes in its place.
  ServerBuilder& EnableHealthService(bool enable);

  // The mode of the socket files of unix: addresses. Default 0600.
  ServerBuilder& SetUnixSocketMode(mode_t mode);

  // Whom the server shares memory with. Who is not among them stays with the socket, and is told why. Default:
  // processes of its own user, and root's.
  ServerBuilder& SetSharedMemoryAccess(AccessPolicy policy);

  // Who may connect to unix: and unix-abstract: addresses, gRPC clients included; others are told why, and the
  // connection is closed. Default: processes of the server's own user, and root's. The mode of a socket file counts as
  // well.
  ServerBuilder& SetUnixSocketAccess(AccessPolicy policy);

  // The full names of the services that the server would have if it were started now, without order.
  std::vector<std::string> ServiceNames() const;

  // INVALID_ARGUMENT for a malformed address, no address, no service or one registered twice; ALREADY_EXISTS when
  // another process listens on an address; what the kernel says otherwise.
  absl::StatusOr<std::unique_ptr<Server>> Start();

 private:
  // Whether the library's own health service will be there.
  bool HasOwnHealthService() const;

  const TransportSet transports_;
  std::vector<std::string> addresses_;
  std::vector<Service*> services_;
  Service* generic_service_ = nullptr;
  int generic_services_ = 0;  // how many RegisterGeneric was given
  std::vector<ServerInterceptor> interceptors_;
  ListenOptions options_;
  size_t max_send_message_bytes_ = kDefaultMaxMessageBytes;
  int max_concurrent_calls_ = kDefaultMaxConcurrentCalls;
  bool health_service_ = true;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVER_H_
