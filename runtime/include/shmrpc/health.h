#ifndef SHMRPC_HEALTH_H_
#define SHMRPC_HEALTH_H_

#include <string_view>

namespace shmrpc {

// What a server tells load balancers and monitors that ask whether it is well, through the standard service
// grpc.health.v1.Health: Check answers once, Watch goes on to tell every change (to a client that reads slowly, the
// latest). Every server has that service unless ServerBuilder::EnableHealthService(false) says otherwise.
//
// A status belongs to a service, under its full name; the empty name is the server as a whole. The services that were
// registered, and the server, are serving from the start. When Server::Shutdown begins they all stop serving, for good;
// Watches are told so and end with UNAVAILABLE. A name that nobody has set is unknown: Check answers NOT_FOUND, Watch
// sends SERVICE_UNKNOWN until it is set.
//
// Belongs to the server. Thread-safe.
class HealthService {
 public:
  // Does not affect the calls of `service` itself, nor the status of other names. Any name will do, not only those of
  // registered services.
  virtual void SetServingStatus(std::string_view service, bool serving) = 0;

  // Of every known name, that of the server included.
  virtual void SetAll(bool serving) = 0;

 protected:
  virtual ~HealthService() = default;
};

}  // namespace shmrpc

#endif  // SHMRPC_HEALTH_H_
