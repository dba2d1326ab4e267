// The other process of the tests of faults.
//
//   fault_peer server TRANSPORT ADDRESS                   serves Echo and Streams
//   fault_peer recorder TRANSPORT ADDRESS FILE            serves Echo; each call's handler appends the first 8 bytes of
//                                                         the payload to FILE, which lasts whatever becomes of the
//                                                         process, and echoes
//   fault_peer hoarder TRANSPORT ADDRESS STREAMS CALLS    a client: begins STREAMS streams that never end and reads
//                                                         none of them, and CALLS held calls with replies of 1 MiB
//
// TRANSPORT is the name of a case in transport_cases.cc. Servers print where they are as "listening on …", the client
// "ready". Each ends in good order when its standard input does.

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "shmrpc/shmrpc.h"
#include "stream_services.h"
#include "transport_case.h"

namespace shmrpc::conformance {
namespace {

constexpr size_t kIdBytes = 8;

class Recorder final : public Echo::Service {
 public:
  explicit Recorder(const std::string& file)
      : file_(open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) {}
  ~Recorder() override { close(file_); }

  absl::Status Echo(ServerContext*, const EchoRequest* request, EchoReply* reply) override {
    const std::string& payload = request->payload();
    // One write, which other handlers' writes cannot get into.
    if (payload.size() < kIdBytes || write(file_, payload.data(), kIdBytes) != kIdBytes) {
      return absl::DataLossError("the call could not be recorded");
    }
    reply->set_payload(payload);
    return absl::OkStatus();
  }

 private:
  const int file_;
};

void WaitForEndOfInput() {
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
}

int Fail(const absl::Status& status) {
  std::cerr << "fault_peer: " << status << std::endl;
  return EXIT_FAILURE;
}

int ServeUntilTheEndOfInput(ServerBuilder builder) {
  const absl::StatusOr<std::unique_ptr<Server>> server = builder.Start();
  if (!server.ok()) return Fail(server.status());
  std::cout << "listening on " << (*server)->addresses().front().ToString() << std::endl;
  WaitForEndOfInput();
  (*server)->Shutdown(absl::Now() + absl::Seconds(10));
  return EXIT_SUCCESS;
}

int Serve(const TransportCase& transport_case, const std::string& address) {
  EchoService echo;
  StreamCounters counters;
  const std::unique_ptr<shmrpc::Service> streams = MakeStreamService(ServerStyle::kSynchronous, &counters);
  ServerBuilder builder(transport_case.transports());
  return ServeUntilTheEndOfInput(builder.Listen(address).Register(&echo).Register(streams.get()));
}

int Record(const TransportCase& transport_case, const std::string& address, const std::string& file) {
  Recorder recorder(file);
  ServerBuilder builder(transport_case.transports());
  return ServeUntilTheEndOfInput(builder.Listen(address).Register(&recorder));
}

int Hoard(const TransportCase& transport_case, const std::string& address, int streams, int calls) {
  ChannelOptions options;
  options.transport = transport_case.preference;
  const auto channel = Channel::Create(address, options, transport_case.transports());
  Streams::Stub stream_stub(channel);
  Echo::Stub echo_stub(channel);
  std::vector<ClientContext> contexts(streams + calls);
  std::vector<std::unique_ptr<ClientReader<Item>>> readers;
  std::vector<EchoReply> replies(calls);
  Counter done;
  CountRequest endless;
  endless.set_count(uint64_t{1} << 40);
  endless.set_payload_bytes(5000);
  for (int i = 0; i < streams; ++i) readers.push_back(stream_stub.Count(&contexts[i], endless));
  EchoRequest held;
  held.set_hold(true);
  held.set_reply_bytes(1 << 20);
  for (int i = 0; i < calls; ++i) {
    echo_stub.async().Echo(&contexts[streams + i], &held, &replies[i], [&](absl::Status) { done.Increment(); });
  }
  std::cout << "ready" << std::endl;
  WaitForEndOfInput();
  for (ClientContext& context : contexts) context.TryCancel();
  for (const auto& reader : readers) (void)reader->Finish();
  return done.WaitFor(calls) ? EXIT_SUCCESS : EXIT_FAILURE;
}

int Main(const std::vector<std::string>& arguments) {
  const TransportCase* const transport_case = arguments.size() < 4 ? nullptr : FindTransportCase(arguments[2]);
  int streams = 0, calls = 0;
  if (transport_case != nullptr) {
    if (arguments[1] == "server" && arguments.size() == 4) return Serve(*transport_case, arguments[3]);
    if (arguments[1] == "recorder" && arguments.size() == 5) {
      return Record(*transport_case, arguments[3], arguments[4]);
    }
    if (arguments[1] == "hoarder" && arguments.size() == 6 && absl::SimpleAtoi(arguments[4], &streams) &&
        absl::SimpleAtoi(arguments[5], &calls)) {
      return Hoard(*transport_case, arguments[3], streams, calls);
    }
  }
  std::cerr << "usage: fault_peer server TRANSPORT ADDRESS\n"
               "       fault_peer recorder TRANSPORT ADDRESS FILE\n"
               "       fault_peer hoarder TRANSPORT ADDRESS STREAMS CALLS\n";
  return 2;
}

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) { return shmrpc::conformance::Main({argv, argv + argc}); }
