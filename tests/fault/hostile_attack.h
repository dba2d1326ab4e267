#ifndef SHMRPC_TESTS_FAULT_HOSTILE_ATTACK_H_
#define SHMRPC_TESTS_FAULT_HOSTILE_ATTACK_H_

// Tests that are tried in each of a list of ways to break the protocol, over each transport where there is that way.

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "native_peer.h"

namespace shmrpc::fault {

enum class Where { kEverywhere, kShmOnly, kTcpOnly };

// `Attack` has a `name` and a `where`.
template <typename Attack>
struct AttackCase {
  Attack attack;
  Way way;
  std::string name() const { return absl::StrCat(attack.name, "_", WayName(way)); }
};

template <typename Attack>
void PrintTo(const AttackCase<Attack>& attack_case, std::ostream* out) {
  *out << attack_case.name();
}

template <typename Attack>
std::vector<AttackCase<Attack>> Cases(const std::vector<Attack>& attacks) {
  std::vector<AttackCase<Attack>> cases;
  for (const Attack& attack : attacks) {
    if (attack.where != Where::kTcpOnly) cases.push_back({attack, Way::kShm});
    if (attack.where != Where::kShmOnly) cases.push_back({attack, Way::kTcp});
  }
  return cases;
}

}  // namespace shmrpc::fault

#endif  // SHMRPC_TESTS_FAULT_HOSTILE_ATTACK_H_
