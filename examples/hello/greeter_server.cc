// The server of the hello example: answers SayHello until it is told to stop with SIGTERM or SIGINT (control-C).
//
//   greeter_server --listen=0.0.0.0:50051

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "hello.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

ABSL_FLAG(std::string, listen, "0.0.0.0:50051", "where to listen: host:port (port 0: any free one), unix:/path, …");
ABSL_FLAG(absl::Duration, delay, absl::ZeroDuration(), "how long each call takes, to see what a slow handler does");
ABSL_FLAG(absl::Duration, drain, absl::Seconds(10), "how long calls may still take after SIGTERM");

namespace {

// What the service does. The generated class Greeter::Service has one virtual function for each method of the .proto.
// The library calls them from several threads at once, so members that change would need a lock.
class GreeterImpl final : public hello::Greeter::Service {
 public:
  explicit GreeterImpl(absl::Duration delay) : delay_(delay) {}

  absl::Status SayHello(shmrpc::ServerContext* context, const hello::HelloRequest* request,
                        hello::HelloReply* reply) override {
    if (request->name().empty()) return absl::InvalidArgumentError("HelloRequest.name is empty: say whom to greet");

    // A handler may take its time, other calls go on meanwhile. One that works for long looks now and then whether
    // anybody still waits for the reply.
    const absl::Time end = absl::Now() + delay_;
    while (absl::Now() < end) {
      if (context->IsCancelled()) return absl::CancelledError("the client does not wait any more");
      absl::SleepFor(std::min(end - absl::Now(), absl::Milliseconds(10)));
    }

    reply->set_message(absl::StrCat("Hello, ", request->name(), "!"));
    return absl::OkStatus();
  }

 private:
  const absl::Duration delay_;
};

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Greets whoever calls. See --help for the flags.");
  absl::ParseCommandLine(argc, argv);

  // From here on SIGTERM and SIGINT do not end the process: the main thread waits for them below.
  shmrpc::ShutdownSignals signals;

  GreeterImpl greeter(absl::GetFlag(FLAGS_delay));
  absl::StatusOr<std::unique_ptr<shmrpc::Server>> server =
      shmrpc::ServerBuilder().Listen(absl::GetFlag(FLAGS_listen)).Register(&greeter).Start();
  if (!server.ok()) {
    std::cerr << "greeter_server: " << server.status() << std::endl;
    return 1;
  }
  for (const shmrpc::Target& address : (*server)->addresses()) {
    std::cout << "listening on " << address.ToString() << std::endl;
  }

  signals.Wait();

  // Takes no new calls from here on; those that were accepted get their reply if they finish in time.
  (*server)->Shutdown(absl::Now() + absl::GetFlag(FLAGS_drain));
  return 0;
}
