#include "transport_case.h"

#include <algorithm>
#include <iterator>

namespace shmrpc::conformance {

std::vector<TransportCase> TransportCasesAcrossProcesses() {
  std::vector<TransportCase> result;
  std::copy_if(TransportCases().begin(), TransportCases().end(), std::back_inserter(result),
               [](const TransportCase& transport_case) { return transport_case.across_processes; });
  return result;
}

const TransportCase* FindTransportCase(std::string_view name) {
  for (const TransportCase& transport_case : TransportCases()) {
    if (transport_case.name == name) return &transport_case;
  }
  return nullptr;
}

}  // namespace shmrpc::conformance
