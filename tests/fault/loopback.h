#ifndef SHMRPC_TESTS_FAULT_LOOPBACK_H_
#define SHMRPC_TESTS_FAULT_LOOPBACK_H_

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstdint>

namespace shmrpc::fault {

// A port of this host.
inline sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace shmrpc::fault

#endif  // SHMRPC_TESTS_FAULT_LOOPBACK_H_
