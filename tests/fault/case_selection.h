#ifndef SHMRPC_TESTS_FAULT_CASE_SELECTION_H_
#define SHMRPC_TESTS_FAULT_CASE_SELECTION_H_

// Which transports a test of faults runs over, and what its tests are called.

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "transport_case.h"

namespace shmrpc::conformance {

inline std::string CaseName(const testing::TestParamInfo<TransportCase>& info) { return info.param.name; }

// Those cases of this program that have one of the names; not all programs have gRPC's.
inline std::vector<TransportCase> CasesNamed(std::initializer_list<std::string_view> names) {
  std::vector<TransportCase> cases;
  for (const std::string_view name : names) {
    const TransportCase* const found = FindTransportCase(name);
    if (found != nullptr) cases.push_back(*found);
  }
  return cases;
}

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_CASE_SELECTION_H_
