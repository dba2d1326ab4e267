#ifndef SHMRPC_TESTS_FAULT_HOSTILE_DESCRIPTORS_H_
#define SHMRPC_TESTS_FAULT_HOSTILE_DESCRIPTORS_H_

// What a peer may pass in place of its segment.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "native_wire.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::fault {

struct DescriptorAttack {
  std::string name;
  std::function<std::vector<framed::UniqueFd>()> make;
  std::string reason;                                  // a part of why there is no shared memory
  std::optional<Hello::Offer> offer = Hello::Offer();  // what is announced with it
  bool too_many = false;                               // so many that the connection is closed
};

const std::vector<DescriptorAttack>& DescriptorAttacks();

// Their numbers, to pass them.
std::vector<int> Numbers(const std::vector<framed::UniqueFd>& fds);

}  // namespace shmrpc::fault

#endif  // SHMRPC_TESTS_FAULT_HOSTILE_DESCRIPTORS_H_
