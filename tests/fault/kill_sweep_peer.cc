// The process that kill_sweep_test kills, again and again. It reads lines:
//
//   client PHASE ADDRESS   prepares the phase (kill_phases.h) and, where it lasts as long as a connection, opens a
//   stream
//                          that it then leaves alone; prints "ready PID"; with the next byte of the input it runs the
//                          phase and prints "done" and its status
//   server ADDRESS         serves at ADDRESS; prints "ready PID"
//
// Each is done by a child made with fork(), which has the input and the output for itself until it is killed. Then the
// parent, which never uses the library, prints "ended" and what waitpid says. So a process takes a millisecond to
// start, not the twenty that it takes to load one, and symbols have been resolved.

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kill_phases.h"
#include "kill_services.h"
#include "shmrpc/shmrpc.h"
#include "stream_services.h"

namespace shmrpc::conformance {
namespace {

// One system call each: nothing must be left in a buffer when this process forks or is killed.
void Say(const std::string& line) {
  const std::string bytes = line + "\n";
  if (write(STDOUT_FILENO, bytes.data(), bytes.size()) < 0) _exit(3);
}

bool ReadByte(char* byte) {
  ssize_t size;
  while ((size = read(STDIN_FILENO, byte, 1)) < 0 && errno == EINTR) {
  }
  return size == 1;
}

bool ReadLine(std::string* line) {
  line->clear();
  for (char byte; ReadByte(&byte);) {
    if (byte == '\n') return true;
    line->push_back(byte);
  }
  return false;
}

[[noreturn]] void WaitToBeKilled() {
  for (;;) pause();
}

[[noreturn]] void RunClient(const std::string& phase_name, const std::string& address) {
  KillPhase phase(phase_name);
  absl::Status status = phase.Prepare(address, nullptr);
  // A call in flight, so that the server has something to end.
  ClientContext context;
  std::unique_ptr<ClientReaderWriter<Item, Item>> chat;
  if (status.ok() && phase.KeepsItsConnection()) {
    chat = Streams::Stub(phase.channel()).Chat(&context);
    Item item;
    if (!chat->Write(item) || !chat->Read(&item)) status = absl::InternalError("the stream ended at once");
  }
  if (!status.ok()) {
    Say(absl::StrCat("failed: ", status.ToString()));
    _exit(1);
  }
  Say(absl::StrCat("ready ", getpid()));
  char go;
  ReadByte(&go);
  status = phase.Run();
  Say(absl::StrCat("done ", status.ToString()));
  WaitToBeKilled();
}

[[noreturn]] void RunServer(const std::string& address) {
  WholeEcho echo;
  StreamCounters counters;
  const auto streams = MakeStreamService(ServerStyle::kCallback, &counters);
  const auto server = ServerBuilder().Listen(address).Register(&echo).Register(streams.get()).Start();
  if (!server.ok()) {
    Say(absl::StrCat("failed: ", server.status().ToString()));
    _exit(1);
  }
  Say(absl::StrCat("ready ", getpid()));
  WaitToBeKilled();
}

int Main() {
  for (std::string line; ReadLine(&line);) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() < 2) continue;  // the byte that a client was killed before reading
    const pid_t child = fork();
    if (child == 0) {
      if (words[0] == "client" && words.size() == 3) RunClient(words[1], words[2]);
      if (words[0] == "server" && words.size() == 2) RunServer(words[1]);
      Say("failed: unknown command");
      _exit(2);
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    Say(absl::StrCat("ended ", status));
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace shmrpc::conformance

int main() { return shmrpc::conformance::Main(); }
