#ifndef SHMRPC_TESTS_CONFORMANCE_TRANSPORT_CASE_H_
#define SHMRPC_TESTS_CONFORMANCE_TRANSPORT_CASE_H_

#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "shmrpc/options.h"
#include "shmrpc/transport.h"

namespace shmrpc::conformance {

// One way to go from a client to a server: what the conformance suite is run over. A plain struct, so that fields can
// be added.
struct TransportCase {
  // Letters and digits; the end of the tests' names.
  std::string name;

  // Where the server listens. "{directory}" becomes the path of an empty directory, "{unique}" a word that no other
  // test uses.
  std::string listen;

  // What the client's ChannelOptions::transport says.
  TransportPreference preference = TransportPreference::kAuto;

  // What Channel::transport() must then say.
  std::string expected;

  // The part of it that Peer::transport says: without the reason.
  std::string transport_name() const { return expected.substr(0, expected.find(':')); }

  // The server may be in another process.
  bool across_processes = true;

  // Both sides learn the other's uid and pid from the kernel.
  bool kernel_credentials = false;

  // What flow control counts for a message beside its size. Over HTTP/2 that is what its prefix takes.
  size_t message_overhead_bytes = FlowControlOptions::kMessageOverheadBytes;

  // Threads that a library below the transport runs for itself, at most: it starts and ends them as it likes.
  int library_threads = 0;

  // A deadline arrives later than it was set by this part of its time at most: gRPC's header has few digits.
  double deadline_rounding = 0;

  // Of each call that a server on its way out has not begun with, the client learns just that, and so attempts it
  // again. The gRPC library's server sends some of them away with a status that a handler might have sent as well.
  bool proves_not_processed = true;

  // What channels and servers are given to work with. A function, because the list of cases is made before main().
  const TransportSet& (*transports)() = &DefaultTransports;
};

// GoogleTest prints parameters with it.
inline void PrintTo(const TransportCase& transport_case, std::ostream* out) { *out << transport_case.name; }

// All the cases of this program, in transport_cases.cc. A transport that lives outside this project runs the suite by
// linking the suite's other files with a transport_cases.cc of its own.
const std::vector<TransportCase>& TransportCases();

// Those with across_processes.
std::vector<TransportCase> TransportCasesAcrossProcesses();

// The case of that name; null when there is none.
const TransportCase* FindTransportCase(std::string_view name);

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_TRANSPORT_CASE_H_
