#ifndef SHMRPC_TESTS_SOAK_ADDRESSES_H_
#define SHMRPC_TESTS_SOAK_ADDRESSES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/conformance/transport_case.h"
#include "tests/soak/random.h"

namespace shmrpc::soak {

// Where so many servers of a transport can listen, one after the other at the same address. `directory` is for those
// with a path.
absl::StatusOr<std::vector<std::string>> ChooseAddresses(const conformance::TransportCase& transport, int servers,
                                                         const std::string& directory, Random* random);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_ADDRESSES_H_
