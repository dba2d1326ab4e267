// The client of the hello example: calls SayHello and prints the reply, then which way the calls went.
//
//   greeter_client --target=localhost:50051 --name=world

#include <iostream>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "hello.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

ABSL_FLAG(std::string, target, "localhost:50051", "the server's address");
ABSL_FLAG(std::string, name, "world", "whom to greet");
ABSL_FLAG(int, count, 1, "how many calls to make, one after the other");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(5), "how long one call may take");
ABSL_FLAG(bool, wait_for_ready, false, "wait for a server, up to the timeout, instead of failing when there is none");

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Asks a greeter_server for a greeting. See --help for the flags.");
  absl::ParseCommandLine(argc, argv);

  // A channel is the way to one server. It connects with the first call, and anew whenever the connection is lost;
  // any number of threads and stubs may share it. The stub has one function for each method of the .proto.
  const std::shared_ptr<shmrpc::Channel> channel = shmrpc::Channel::Create(absl::GetFlag(FLAGS_target));
  hello::Greeter::Stub greeter(channel);

  hello::HelloRequest request;
  request.set_name(absl::GetFlag(FLAGS_name));

  for (int i = 0; i < absl::GetFlag(FLAGS_count); ++i) {
    // One context per call. Without a deadline a call may last for ever.
    shmrpc::ClientContext context;
    context.set_timeout(absl::GetFlag(FLAGS_timeout));
    context.set_wait_for_ready(absl::GetFlag(FLAGS_wait_for_ready));

    hello::HelloReply reply;
    const absl::Status status = greeter.SayHello(&context, request, &reply);
    if (!status.ok()) {
      std::cerr << "greeter_client: " << status << std::endl;
      return 1;
    }
    std::cout << reply.message() << std::endl;
  }

  // "shm", or for example "tcp: peer on another host": the channel chose by itself, and says why.
  std::cout << "transport: " << channel->transport() << std::endl;
  return 0;
}
