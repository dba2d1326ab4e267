#ifndef SHMRPC_TARGET_H_
#define SHMRPC_TARGET_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace shmrpc {

// An address as users write it, taken apart. Follows gRPC's naming
// (https://github.com/grpc/grpc/blob/master/doc/naming.md):
//
//   host:port, dns:host:port, dns:///host:port   a name or a literal address, IPv6 in brackets: [::1]:50051
//   ipv4:a.b.c.d:port, ipv6:[addr]:port          literal addresses only
//   unix:path, unix:///absolute/path             a Unix socket in the file system; as in gRPC %20 is byte 0x20 there,
//   unix-abstract:name                           and in the abstract namespace; so a % is written %25, a comma %2C
//   inproc:name                                  a server in this process
//   grpc:target, grpc+unix:path                  through the gRPC library (shmrpc::grpc), which takes `target` in its
//                                                own syntax: grpc:host:port, grpc:ipv4:10.0.0.1:443,10.0.0.2:443
//
// A channel takes several of them, separated by commas, in the order in which they are to be tried:
//
//   host1:port,host2:port
//   ipv4:127.0.0.1:1,127.0.0.1:2                 ipv4: and ipv6: hold for the addresses after them, as in gRPC, until
//                                                one names a scheme of its own
//   unix:/a,unix:/b,dns:host:port                any mixture; unix:, unix-abstract: and inproc: hold for one address
//
// A comma always separates; one in the name of a Unix socket is %2C. There is no white space around it. What follows
// grpc: is left to the gRPC library with its commas, up to the next address that names a scheme.
struct Target {
  enum class Kind { kHostPort, kUnix, kUnixAbstract, kInproc, kGrpc };

  Kind kind = Kind::kHostPort;
  std::string host;      // kHostPort: without brackets
  uint16_t port = 0;     // kHostPort; 0 lets a server choose
  std::string name;      // kUnix: the path. kUnixAbstract, kInproc: the name. kGrpc: what follows "grpc:"
  std::string original;  // what the user wrote

  // The canonical form, which Parse accepts again.
  std::string ToString() const;

  // INVALID_ARGUMENT, naming `text`, what is wrong with it and what would be right.
  static absl::StatusOr<Target> Parse(std::string_view text);

  // A list of one or more. The error names the address that is wrong as well, and its place.
  static absl::StatusOr<std::vector<Target>> ParseList(std::string_view text);
};

}  // namespace shmrpc

#endif  // SHMRPC_TARGET_H_
