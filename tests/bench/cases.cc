#include "tests/bench/cases.h"

#include "tests/bench/payload.h"

namespace shmrpc::bench {

absl::string_view AxisName(Axis axis) {
  switch (axis) {
    case Axis::kNone:
      return "";
    case Axis::kConcurrency:
      return "concurrency";
    case Axis::kThreads:
      return "threads";
    case Axis::kClients:
      return "clients";
    case Axis::kConnections:
      return "connections";
    case Axis::kSleeping:
      return "sleeping";
    case Axis::kRate:
      return "rate";
    case Axis::kBurst:
      return "burst";
  }
  return "";
}

const std::vector<CaseInfo>& AllCases() {
  static const auto* const cases = [] {
    auto* all = new std::vector<CaseInfo>;
    for (const auto& some : {CallCases(), StreamCases(), TimedCases()})
      all->insert(all->end(), some.begin(), some.end());
    return all;
  }();
  return *cases;
}

const CaseInfo* FindCase(absl::string_view name) {
  for (const CaseInfo& info : AllCases()) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

void FillRequests(ClientSide& client, int slots) {
  for (int slot = 0; slot < slots; ++slot) FillPayload(client.request(slot), slot);
}

}  // namespace shmrpc::bench
