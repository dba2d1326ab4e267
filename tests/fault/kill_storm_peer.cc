// The processes that kill_storm_test kills at random moments.
//
//   kill_storm_peer clients TRANSPORT ADDRESS COUNT AT_ONCE SEED
//     starts COUNT clients, AT_ONCE at a time, each a process of its own, which connects to ADDRESS over TRANSPORT
//     (shm, tcp, unix) and calls without pause; kills each after a random time; prints "killed COUNT"
//   kill_storm_peer server ADDRESS...
//     serves at all of them; prints "ready"; goes on until it is killed, or its input ends
//   kill_storm_peer forking-server ADDRESS...
//     the same, but, once a first call has come, forks a child that does nothing for a minute, and prints "forked PID"
//   kill_storm_peer forking-client TRANSPORT ADDRESS
//     connects, opens a stream, forks such a child, prints "forked PID"
//
// A client that ends by itself has found something wrong: it prints what, and the exit code is 1.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conformance.shmrpc.pb.h"
#include "kill_services.h"
#include "shmrpc/shmrpc.h"
#include "stream_services.h"

namespace shmrpc::conformance {
namespace {

// Forks a child that is there for a minute at most, holding whatever it has inherited.
void ForkChild() {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    for (;;) pause();
  }
  std::cout << "forked " << child << std::endl;
}

void WaitForEndOfInput() {
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
}

int ConnectAndFork(TransportPreference transport, const std::string& address) {
  ChannelOptions options;
  options.transport = transport;
  Streams::Stub stub(Channel::Create(address, options));
  ClientContext context;
  const auto chat = stub.Chat(&context);
  Item item;
  if (!chat->Write(item) || !chat->Read(&item)) return EXIT_FAILURE;
  ForkChild();
  WaitForEndOfInput();
  return EXIT_SUCCESS;
}

// Between the two, small ones as often as large ones.
double LogUniform(std::mt19937_64& random, double low, double high) {
  return std::exp(std::uniform_real_distribution<double>(std::log(low), std::log(high))(random));
}

absl::Status Chat(Streams::Stub& stub, size_t size) {
  ClientContext context;
  const auto chat = stub.Chat(&context);
  Item item;
  item.set_payload(std::string(PayloadOf(size)));
  for (int i = 0; i < 4; ++i) {
    Item received;
    if (!chat->Write(item) || !chat->Read(&received)) break;
    if (!IsPayload(received.payload())) return absl::DataLossError("an item is not what was sent");
  }
  chat->WritesDone();
  return chat->Finish();
}

absl::Status Call(Echo::Stub& stub, size_t size) {
  EchoRequest request;
  request.set_payload(std::string(PayloadOf(size)));
  const absl::StatusOr<EchoReply> reply = stub.Echo(request);
  if (!reply.ok()) return reply.status();
  if (reply->payload() != request.payload()) return absl::DataLossError("a reply is not what was sent");
  return absl::OkStatus();
}

[[noreturn]] void CallWithoutPause(TransportPreference transport, const std::string& address, uint64_t seed) {
  std::mt19937_64 random(seed);
  ChannelOptions options;
  options.transport = transport;
  const auto channel = Channel::Create(address, options);
  Echo::Stub echo(channel);
  Streams::Stub streams(channel);
  absl::Status status;
  while (status.ok()) {
    const auto size = static_cast<size_t>(LogUniform(random, 8, kMaxPayload));
    status = random() % 4 == 0 ? Chat(streams, size) : Call(echo, size);
  }
  std::cout << absl::StrCat("a client ended by itself: ", status.ToString(), "\n") << std::flush;
  _exit(EXIT_FAILURE);
}

// The clients are made by fork(), by a process that does not use the library itself.
int RunClients(TransportPreference transport, const std::string& address, int count, int at_once, uint64_t seed) {
  struct Client {
    pid_t pid;
    absl::Time end;
  };
  std::mt19937_64 random(seed);
  std::vector<Client> clients;
  (void)PayloadOf(0);  // once for all of them
  for (int started = 0; started < count || !clients.empty();) {
    if (started < count && static_cast<int>(clients.size()) < at_once) {
      const uint64_t clients_seed = random();
      const absl::Duration life = absl::Milliseconds(LogUniform(random, 0.1, 60));
      const pid_t pid = fork();
      if (pid < 0) {
        std::cout << "no process could be made" << std::endl;
        return EXIT_FAILURE;
      }
      if (pid == 0) CallWithoutPause(transport, address, clients_seed);
      clients.push_back({pid, absl::Now() + life});
      ++started;
      continue;
    }
    const auto next = std::min_element(clients.begin(), clients.end(),
                                       [](const Client& a, const Client& b) { return a.end < b.end; });
    absl::SleepFor(next->end - absl::Now());
    kill(next->pid, SIGKILL);
    int status = -1;
    waitpid(next->pid, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
      std::cout << "a client ended with " << status << std::endl;
      for (const Client& client : clients) kill(client.pid, SIGKILL);
      return EXIT_FAILURE;
    }
    clients.erase(next);
  }
  std::cout << "killed " << count << std::endl;
  return EXIT_SUCCESS;
}

int Serve(const std::vector<std::string>& addresses, bool forks) {
  WholeEcho echo;
  StreamCounters counters;
  const auto streams = MakeStreamService(ServerStyle::kCoroutine, &counters);
  ServerBuilder builder;
  for (const std::string& address : addresses) builder.Listen(address);
  const auto server = builder.Register(&echo).Register(streams.get()).Start();
  if (!server.ok()) {
    std::cout << "the server did not start: " << server.status() << std::endl;
    return EXIT_FAILURE;
  }
  std::cout << "ready" << std::endl;
  if (forks && counters.items_sent.WaitFor(1)) ForkChild();
  WaitForEndOfInput();
  return EXIT_SUCCESS;
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() > 2 && (arguments[1] == "server" || arguments[1] == "forking-server")) {
    return Serve({arguments.begin() + 2, arguments.end()}, arguments[1] != "server");
  }
  if (arguments.size() == 4 && arguments[1] == "forking-client") {
    const auto transport = ParseTransportPreference(arguments[2]);
    if (transport.ok()) return ConnectAndFork(*transport, arguments[3]);
  }
  int count;
  int at_once;
  uint64_t seed;
  if (arguments.size() == 7 && arguments[1] == "clients" && absl::SimpleAtoi(arguments[4], &count) &&
      absl::SimpleAtoi(arguments[5], &at_once) && absl::SimpleAtoi(arguments[6], &seed)) {
    const auto transport = ParseTransportPreference(arguments[2]);
    if (transport.ok()) return RunClients(*transport, arguments[3], count, at_once, seed);
  }
  std::cerr << "usage: see the beginning of kill_storm_peer.cc\n";
  return 2;
}

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) { return shmrpc::conformance::Main({argv, argv + argc}); }
