#include "tests/bench/peer.h"

namespace shmrpc::bench {

void ClientSide::Start(int slot, Observer* observer) {
  observer->OnDone(slot, absl::UnimplementedError("this peer has one call in flight at most"));
}

const std::vector<PeerInfo>& AllPeers() {
  static const auto* const peers = [] {
    auto* all = new std::vector<PeerInfo>;
    for (const auto& family : {ShmrpcPeers(), GrpcPeers(), RingFloorPeers(), MemoryFloorPeers(), SocketFloorPeers()}) {
      all->insert(all->end(), family.begin(), family.end());
    }
    return all;
  }();
  return *peers;
}

const PeerInfo* FindPeer(absl::string_view name) {
  for (const PeerInfo& peer : AllPeers()) {
    if (peer.name == name) return &peer;
  }
  return nullptr;
}

}  // namespace shmrpc::bench
