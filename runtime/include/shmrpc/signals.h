#ifndef SHMRPC_SIGNALS_H_
#define SHMRPC_SIGNALS_H_

namespace shmrpc {

// Lets a server end properly when it is told to: with SIGTERM, as service managers and containers do, or with SIGINT
// (control-C).
//
//   int main() {
//     shmrpc::ShutdownSignals signals;  // before the server starts: from here on the two do not end the process
//     ...
//     auto server = shmrpc::ServerBuilder().Listen("0.0.0.0:50051").Register(&greeter).Start();
//     if (!server.ok()) ...
//     signals.Wait();
//     (*server)->Shutdown(absl::Now() + absl::Seconds(10));  // the calls that were accepted get their replies
//   }
//
// While the object exists the library handles SIGINT and SIGTERM with a function of its own, which works on whatever
// thread the kernel chooses; the program need not block the signals anywhere. A signal that the program ignored when
// the object was made stays ignored (nohup and background jobs of a shell do that with SIGINT). A signal that comes
// after Wait has returned does what it did before the object was made: so a second control-C ends a process whose
// shutdown takes too long. A child made by fork() handles the signals as if there were no such object.
//
// Only one such object may exist at a time: the constructor aborts with a text otherwise. The constructor and the
// destructor change what the process does with signals, so the program must not do that at the same time elsewhere.
class ShutdownSignals final {
 public:
  ShutdownSignals();
  ~ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // Blocks until one of the signals has come since the object was made, or RequestStop was called. Returns the signal's
  // number; 0 for RequestStop, and at once when Wait has returned before. By one thread at a time.
  int Wait();

  // Makes Wait return: for programs that have other reasons to end. From any thread, and from a signal handler.
  void RequestStop();
};

// Waits for SIGINT or SIGTERM: ShutdownSignals for programs that a signal may end on the spot until they come here.
// Returns the signal's number.
int WaitForShutdownSignal();

}  // namespace shmrpc

#endif  // SHMRPC_SIGNALS_H_
