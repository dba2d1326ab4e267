#ifndef SHMRPC_TRANSPORTS_TCP_SOCKET_OPTIONS_H_
#define SHMRPC_TRANSPORTS_TCP_SOCKET_OPTIONS_H_

namespace shmrpc::tcp {

// What every TCP connection here has, at either end: no waiting for more before a small frame goes, and the kernel's
// keepalive, which takes a connection that is not in use down two minutes after its other host has vanished. While
// calls are in progress the session sees to that itself, sooner (framed/keepalive.h); the kernel's costs no process a
// wake-up.
void SetTcpOptions(int socket);

}  // namespace shmrpc::tcp

#endif  // SHMRPC_TRANSPORTS_TCP_SOCKET_OPTIONS_H_
