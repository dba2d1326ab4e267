// The shmrpc side of the matrix.
//
//   shmrpc_peer server ADDRESS...           serves TestService; prints "listening on ADDRESS..." until its input ends
//   shmrpc_peer client ADDRESS CASE...      runs cases; "ADDRESS@TRANSPORT" insists on a transport

#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "shmrpc/grpc.h"
#include "shmrpc_client.h"
#include "shmrpc_service.h"

namespace shmrpc::interop {
namespace {

int Serve(const std::vector<std::string>& addresses) {
  TestServiceImpl service;
  GrpcOptions grpc;
  grpc.server.max_compressed_message_bytes = size_t{4} << 20;
  ServerBuilder builder(TransportsWithGrpc(grpc));
  builder.Register(&service);
  for (const std::string& address : addresses) builder.Listen(address);
  absl::StatusOr<std::unique_ptr<Server>> server = builder.Start();
  if (!server.ok()) {
    std::cerr << "shmrpc_peer: " << server.status() << std::endl;
    return 1;
  }
  std::cout << "listening on "
            << absl::StrJoin((*server)->addresses(), " ",
                             [](std::string* out, const Target& address) { *out += address.ToString(); })
            << std::endl;
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  (*server)->Shutdown(absl::Now() + absl::Seconds(5));
  return 0;
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() >= 3 && arguments[1] == "server") return Serve({arguments.begin() + 2, arguments.end()});
  if (arguments.size() >= 4 && arguments[1] == "client") {
    return RunCases(ShmrpcCases(arguments[2]), {arguments.begin() + 3, arguments.end()});
  }
  std::cerr << "usage: shmrpc_peer server ADDRESS...\n       shmrpc_peer client ADDRESS[@TRANSPORT] CASE...\n";
  return 2;
}

}  // namespace
}  // namespace shmrpc::interop

int main(int argc, char** argv) { return shmrpc::interop::Main({argv, argv + argc}); }
