#include "transports/tcp/socket_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace shmrpc::tcp {
namespace {

// In seconds: how long a connection is quiet before the first probe, and between probes; and how many go unanswered.
constexpr int kIdle = 60;
constexpr int kInterval = 15;
constexpr int kProbes = 4;

// None of them can fail on a TCP socket, and a connection works without.
void Set(int socket, int level, int option, int value) { setsockopt(socket, level, option, &value, sizeof value); }

}  // namespace

void SetTcpOptions(int socket) {
  Set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  Set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  Set(socket, IPPROTO_TCP, TCP_KEEPIDLE, kIdle);
  Set(socket, IPPROTO_TCP, TCP_KEEPINTVL, kInterval);
  Set(socket, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
}

}  // namespace shmrpc::tcp
