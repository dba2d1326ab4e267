#include "tests/soak/addresses.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "tests/bench/process.h"

namespace shmrpc::soak {
namespace {

// Below the ports that the kernel gives to outgoing connections: while no server listens there, one of those could take
// the port, or a client that looks for the server could be connected to itself.
absl::StatusOr<int> ChoosePort(Random* random) {
  int lowest_ephemeral = 32768;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> lowest_ephemeral;
  constexpr int kLowest = 10'000;
  if (lowest_ephemeral <= kLowest) return absl::NotFoundError("no ports are left below the ephemeral ones");
  for (int tries = 0; tries < 1000; ++tries) {
    const int port = kLowest + static_cast<int>(random->Below(lowest_ephemeral - kLowest));
    const bench::Descriptor probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    if (bind(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return port;
  }
  return absl::NotFoundError("no free port in 1000 tries");
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ChooseAddresses(const conformance::TransportCase& transport, int servers,
                                                         const std::string& directory, Random* random) {
  std::vector<std::string> addresses;
  while (static_cast<int>(addresses.size()) < servers) {
    std::string address = absl::StrReplaceAll(
        transport.listen,
        {{"{directory}", directory}, {"{unique}", absl::StrCat("soak-", getpid(), "-", addresses.size())}});
    if (absl::EndsWith(address, ":0")) {
      const absl::StatusOr<int> port = ChoosePort(random);
      if (!port.ok()) return port.status();
      address = absl::StrCat(absl::StripSuffix(address, "0"), *port);
    }
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) addresses.push_back(address);
  }
  return addresses;
}

}  // namespace shmrpc::soak
