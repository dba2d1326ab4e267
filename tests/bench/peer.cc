#include "tests/bench/peer.h"

namespace shmrpc::bench {
namespace {

absl::Status Unable() { return absl::UnimplementedError("this peer cannot do that; see its abilities"); }

}  // namespace

void ClientSide::Start(int slot, Observer* observer) { observer->OnDone(slot, Unable()); }
absl::Status ClientSide::OpenStream(StreamKind) { return Unable(); }
absl::Status ClientSide::Write() { return Unable(); }
absl::Status ClientSide::Read() { return Unable(); }
absl::Status ClientSide::CloseStream() { return Unable(); }
absl::Status ClientSide::Sleep(absl::Duration) { return Unable(); }
absl::Status ClientSide::ConnectMore(int) { return Unable(); }
absl::Status ClientSide::CallOnEach() { return Unable(); }

const std::vector<PeerInfo>& AllPeers() {
  static const auto* const peers = [] {
    auto* all = new std::vector<PeerInfo>;
    for (const auto& family :
         {ShmrpcPeers(), GrpcPeers(), RingFloorPeers(), PoolFloorPeers(), MemoryFloorPeers(), SocketFloorPeers()}) {
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
