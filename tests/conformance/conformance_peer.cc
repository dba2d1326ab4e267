// The other process of the conformance tests.
//
//   conformance_peer server TRANSPORT ADDRESS         serves Echo; prints the address as "listening on …"
//   conformance_peer client TRANSPORT ADDRESS CALLS   makes one call, starts CALLS more that the server holds; prints
//                                                     "ready", and the status of each when it ends
//   conformance_peer relay TRANSPORT ADDRESS NEXT      serves Relay, which calls the server at NEXT; prints the address
//
// TRANSPORT is the name of a case in transport_cases.cc. Each ends in good order when its standard input does. The
// environment variable SHMRPC_PEER_KEEPALIVE is a keepalive timeout, as "1s". With it the server first waits until all
// the calls that it holds are cancelled, and prints how many.

#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "relay_service.h"
#include "shmrpc/shmrpc.h"
#include "transport_case.h"

namespace shmrpc::conformance {
namespace {

void WaitForEndOfInput() {
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
}

bool KeepaliveTimeout(absl::Duration* timeout) {
  const char* const text = getenv("SHMRPC_PEER_KEEPALIVE");
  return text != nullptr && absl::ParseDuration(text, timeout);
}

int Fail(const absl::Status& status) {
  std::cerr << "conformance_peer: " << status << std::endl;
  return EXIT_FAILURE;
}

int Serve(const TransportCase& transport_case, const std::string& address) {
  EchoService service;
  ServerBuilder builder(transport_case.transports());
  absl::Duration keepalive;
  const bool has_keepalive = KeepaliveTimeout(&keepalive);
  if (has_keepalive) builder.SetKeepaliveTimeout(keepalive);
  const absl::StatusOr<std::unique_ptr<Server>> server = builder.Listen(address).Register(&service).Start();
  if (!server.ok()) return Fail(server.status());
  std::cout << "listening on " << (*server)->addresses().front().ToString() << std::endl;
  WaitForEndOfInput();
  if (has_keepalive) {
    service.cancelled().WaitFor(service.held().value());
    std::cout << "cancelled: " << service.cancelled().value() << std::endl;
  }
  service.Release();
  (*server)->Shutdown(absl::Now() + absl::Seconds(10));
  return EXIT_SUCCESS;
}

int Call(const TransportCase& transport_case, const std::string& address, int held_calls) {
  ChannelOptions options;
  options.transport = transport_case.preference;
  (void)KeepaliveTimeout(&options.keepalive_timeout);
  std::vector<ClientContext> contexts(held_calls);
  std::vector<EchoReply> replies(held_calls);
  Counter done;
  Mutex output;
  Echo::Stub stub(Channel::Create(address, options, transport_case.transports()));
  EchoRequest request;
  const absl::StatusOr<EchoReply> reply = stub.Echo(request);
  if (!reply.ok()) return Fail(reply.status());
  request.set_hold(true);
  for (int i = 0; i < held_calls; ++i) {
    stub.async().Echo(&contexts[i], &request, &replies[i], [&](absl::Status status) {
      {
        MutexLock lock(&output);
        std::cout << status << std::endl;
      }
      done.Increment();
    });
  }
  {
    MutexLock lock(&output);
    std::cout << "ready" << std::endl;
  }
  WaitForEndOfInput();
  for (ClientContext& context : contexts) context.TryCancel();
  return done.WaitFor(held_calls) ? EXIT_SUCCESS : EXIT_FAILURE;
}

int ServeRelay(const TransportCase& transport_case, const std::string& address, const std::string& next) {
  ChannelOptions options;
  options.transport = transport_case.preference;
  RelayService service;
  service.SetNext(Channel::Create(next, options, transport_case.transports()));
  const absl::StatusOr<std::unique_ptr<Server>> server =
      ServerBuilder(transport_case.transports()).Listen(address).Register(&service).Start();
  if (!server.ok()) return Fail(server.status());
  std::cout << "listening on " << (*server)->addresses().front().ToString() << std::endl;
  WaitForEndOfInput();
  (*server)->Shutdown(absl::Now() + absl::Seconds(10));
  return EXIT_SUCCESS;
}

int Main(const std::vector<std::string>& arguments) {
  const TransportCase* const transport_case = arguments.size() < 4 ? nullptr : FindTransportCase(arguments[2]);
  int held_calls = 0;
  if (transport_case != nullptr) {
    if (arguments[1] == "server" && arguments.size() == 4) return Serve(*transport_case, arguments[3]);
    if (arguments[1] == "relay" && arguments.size() == 5) {
      return ServeRelay(*transport_case, arguments[3], arguments[4]);
    }
    if (arguments[1] == "client" && arguments.size() == 5 && absl::SimpleAtoi(arguments[4], &held_calls)) {
      return Call(*transport_case, arguments[3], held_calls);
    }
  }
  std::cerr << "usage: conformance_peer server TRANSPORT ADDRESS\n"
               "       conformance_peer client TRANSPORT ADDRESS CALLS\n"
               "       conformance_peer relay TRANSPORT ADDRESS NEXT\n";
  return 2;
}

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) { return shmrpc::conformance::Main({argv, argv + argc}); }
