// The other process of the tests of limits and access: a server or a client with the options that its arguments say.
//
//   limits_peer server ADDRESS [OPTION...]   serves Echo; prints "listening on ADDRESS"; ends when its input does
//   limits_peer client TARGET [OPTION...]    makes one call, and prints what came of it:
//                                              status: OK, or the code and message
//                                              transport: what Channel::transport() says
//                                              seen: whom the handler has seen, "uid=0 gid=0 pid=12 groups=0,4" or
//                                              "none" server: whom the client has seen, in the same form
//
// Options of both:
//   shm=POLICY, unix=POLICY         who has access: any, same, users:1,2, groups:3
// of a server:
//   mode=0666                       of the socket file
//   connections=N, handshake=1s     fields of ConnectionLimits
// of a client:
//   transport=shm                   ChannelOptions::transport
//   timeout=1s                      of the call and of its attempts to connect; 60s
//   wait=10s                        as timeout, and the call waits for a server
//
// A request whose payload is "tight" lets the server have no more memory than it has at that moment (RLIMIT_AS);
// "loose" takes that back.

#include <sys/types.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "address_space.h"
#include "conformance.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

namespace shmrpc::conformance {
namespace {

// What the arguments say.
struct Options {
  AccessPolicy shm;
  AccessPolicy unix_socket;
  mode_t mode = 0600;
  ConnectionLimits limits;
  TransportPreference transport = TransportPreference::kAuto;
  absl::Duration timeout = absl::Seconds(60);
  bool wait = false;
};

template <typename Id>
bool ParseIds(absl::string_view text, std::vector<Id>* ids) {
  for (const absl::string_view id : absl::StrSplit(text, ',')) {
    ids->emplace_back();
    if (!absl::SimpleAtoi(id, &ids->back())) return false;
  }
  return true;
}

bool ParsePolicy(absl::string_view text, AccessPolicy* policy) {
  if (text == "any") policy->any_user = true;
  if (text == "any" || text == "same") return true;
  if (absl::ConsumePrefix(&text, "users:")) return ParseIds(text, &policy->users);
  return absl::ConsumePrefix(&text, "groups:") && ParseIds(text, &policy->groups);
}

bool ParseOption(absl::string_view text, Options* options) {
  if (absl::ConsumePrefix(&text, "shm=")) return ParsePolicy(text, &options->shm);
  if (absl::ConsumePrefix(&text, "unix=")) return ParsePolicy(text, &options->unix_socket);
  if (absl::ConsumePrefix(&text, "mode=")) {
    options->mode = static_cast<mode_t>(strtoul(std::string(text).c_str(), nullptr, 8));
    return options->mode != 0;
  }
  if (absl::ConsumePrefix(&text, "connections=")) {
    int connections = 0;
    const bool good = absl::SimpleAtoi(text, &connections);
    options->limits.max_connections = options->limits.max_connections_per_user =
        options->limits.max_connections_per_address = connections;
    return good;
  }
  if (absl::ConsumePrefix(&text, "handshake=")) return absl::ParseDuration(text, &options->limits.handshake_timeout);
  if (absl::ConsumePrefix(&text, "timeout=")) return absl::ParseDuration(text, &options->timeout);
  if (absl::ConsumePrefix(&text, "wait=")) {
    options->wait = true;
    return absl::ParseDuration(text, &options->timeout);
  }
  if (!absl::ConsumePrefix(&text, "transport=")) return false;
  const absl::StatusOr<TransportPreference> preference = ParseTransportPreference(std::string(text));
  if (preference.ok()) options->transport = *preference;
  return preference.ok();
}

template <typename Id>
std::string OrNone(const std::optional<Id>& id) {
  return id.has_value() ? absl::StrCat(*id) : "none";
}

std::string Describe(const std::optional<PeerCredentials>& credentials) {
  if (!credentials.has_value()) return "none";
  return absl::StrCat("uid=", credentials->uid, " gid=", OrNone(credentials->gid), " pid=", OrNone(credentials->pid),
                      " groups=", absl::StrJoin(credentials->groups, ","));
}

// Answers with whom it sees.
class WhoIsThere final : public Echo::Service {
 public:
  absl::Status Echo(ServerContext* context, const EchoRequest* request, EchoReply* reply) override {
    reply->set_payload(Describe(context->peer_credentials()));
    if (request->payload() == "tight") return tests::FreezeAddressSpace();
    if (request->payload() == "loose") return tests::ThawAddressSpace();
    return absl::OkStatus();
  }
};

int Serve(const std::string& address, const Options& options) {
  WhoIsThere service;
  const absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder()
                                                             .Listen(address)
                                                             .Register(&service)
                                                             .SetSharedMemoryAccess(options.shm)
                                                             .SetUnixSocketAccess(options.unix_socket)
                                                             .SetUnixSocketMode(options.mode)
                                                             .SetConnectionLimits(options.limits)
                                                             .Start();
  if (!server.ok()) {
    std::cerr << "limits_peer: " << server.status() << std::endl;
    return EXIT_FAILURE;
  }
  std::cout << "listening on " << (*server)->addresses().front().ToString() << std::endl;
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  (*server)->Shutdown(absl::Now() + absl::Seconds(10));
  return EXIT_SUCCESS;
}

int Call(const std::string& target, const Options& options) {
  ChannelOptions channel_options;
  channel_options.transport = options.transport;
  channel_options.connect_timeout = options.timeout;
  channel_options.shared_memory_access = options.shm;
  channel_options.unix_socket_access = options.unix_socket;
  const auto channel = Channel::Create(target, channel_options);
  Echo::Stub stub(channel);
  ClientContext context;
  context.set_timeout(options.timeout);
  context.set_wait_for_ready(options.wait);
  EchoRequest request;
  EchoReply reply;
  const absl::Status status = stub.Echo(&context, request, &reply);
  std::cout << "status: " << status << "\ntransport: " << channel->transport() << "\nseen: " << reply.payload()
            << "\nserver: " << Describe(context.peer().credentials) << std::endl;
  return EXIT_SUCCESS;
}

int Main(const std::vector<std::string>& arguments) {
  tests::ReserveHeapAndStacks();
  Options options;
  bool good = arguments.size() >= 3;
  for (size_t i = 3; good && i < arguments.size(); ++i) good = ParseOption(arguments[i], &options);
  if (good && arguments[1] == "server") return Serve(arguments[2], options);
  if (good && arguments[1] == "client") return Call(arguments[2], options);
  std::cerr << "usage: limits_peer server ADDRESS [OPTION...]\n       limits_peer client TARGET [OPTION...]\n";
  return 2;
}

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) { return shmrpc::conformance::Main({argv, argv + argc}); }
