#ifndef SHMRPC_TESTS_BENCH_PEER_H_
#define SHMRPC_TESTS_BENCH_PEER_H_

// What the benchmark needs of a program that it measures. A peer is a server, which sends every payload back, and a
// client. A new peer implements both classes below and adds itself to the list in peer.cc; the cases (cases.h) and
// everything above know no peer by name.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace shmrpc::bench {

// Every remote procedure call of the benchmark has this much time; only a hang takes that long. A stream lasts as long
// as a measurement.
inline constexpr absl::Duration kCallTimeout = absl::Seconds(30);
inline constexpr absl::Duration kStreamTimeout = absl::Hours(2);

// What the messages of a stream do.
enum class StreamKind {
  kPingPong,  // one there, one back
  kUpload,    // all of them go from the client to the server; the last one comes back
  kDownload,  // all of them come from the server, which sends the request again and again and counts it on
};

// What both sides of a peer are told when they are made.
struct PeerSetup {
  std::string wait_mode;     // "adaptive", "latency", "efficient"; for peers with modes only
  size_t payload_bytes = 0;  // at least kMinPayloadBytes
  int slots = 1;             // calls in flight at most
  bool uploads = false;      // payloads go to the server, which checks them; a floor's sends none back but the last
  std::string directory;     // private to this measurement, for socket files; removed once the client is connected
  int socket = -1;  // one end of a connected pair of Unix stream sockets, the other side has the other; not owned
};

// Lives in the server process and is used by its main thread alone.
class ServerSide {
 public:
  virtual ~ServerSide() = default;

  // Gets ready for the client; returns what the client has to know to find it.
  virtual absl::StatusOr<std::string> Start() = 0;

  // Serves. Never returns, but for errors: the process is killed when the measurement is over. Not called when client
  // and server share a process.
  virtual absl::Status Serve() = 0;
};

// Lives in the client process. A slot is the place of one call: its request, its reply, its state. Connect comes
// first. Different slots may be used at the same time; of one slot, one call at a time.
class ClientSide {
 public:
  // Told the end of a call that Start began. Runs on any thread, and may start the next call.
  class Observer {
   public:
    virtual ~Observer() = default;
    virtual void OnDone(int slot, const absl::Status& status) = 0;
  };

  virtual ~ClientSide() = default;

  virtual absl::Status Connect(const std::string& address) = 0;

  // The payload of the slot's next call, payload_bytes long, kept from call to call. To be changed between calls only.
  virtual absl::Span<char> request(int slot) = 0;

  // The payload of the slot's last reply; valid until its next call.
  virtual absl::string_view reply(int slot) const = 0;

  // One round trip.
  virtual absl::Status Call(int slot) = 0;

  // What follows is for peers with the ability named; others answer UNIMPLEMENTED.

  // kPipelining: as Call, without waiting.
  virtual void Start(int slot, Observer* observer);

  // kPingPong, kUploads, kDownloads: one stream at a time, which carries request(0) to the server and fills reply(0).
  // Write and Read return when they are done with the message. CloseStream returns when the stream is over on both
  // sides; not OK if the server found a payload changed, or if an upload's last one has not come back as it was sent.
  virtual absl::Status OpenStream(StreamKind kind);
  virtual absl::Status Write();
  virtual absl::Status Read();
  virtual absl::Status CloseStream();

  // kSleeping: a call whose handler sleeps for so long. From any thread, at the same time as other calls.
  virtual absl::Status Sleep(absl::Duration duration);

  // kConnections: makes further connections to the same server and one call over each of them; they stay. CallOnEach
  // makes another call on each and so shows that they are there.
  virtual absl::Status ConnectMore(int connections);
  virtual absl::Status CallOnEach();
};

// What a peer can do beside calls one by one. The cases ask for them (cases.h).
enum Ability : uint32_t {
  kCalls = 0,
  kPipelining = 1 << 0,  // several calls in flight
  kPingPong = 1 << 1,    // streams of each kind
  kUploads = 1 << 2,
  kDownloads = 1 << 3,
  kThreads = 1 << 4,      // Call by several threads at the same time, of different slots
  kClients = 1 << 5,      // several client processes at one server
  kSleeping = 1 << 6,     // handlers that sleep
  kConnections = 1 << 7,  // several connections of one process
};

struct PeerInfo {
  std::string name;
  bool has_modes = false;         // takes a wait mode
  uint32_t abilities = kCalls;    // of Ability
  bool in_process = false;        // client and server share a process
  size_t only_payload_bytes = 0;  // carries payloads of this size only; 0: any
  std::unique_ptr<ServerSide> (*make_server)(const PeerSetup& setup) = nullptr;
  std::unique_ptr<ClientSide> (*make_client)(const PeerSetup& setup) = nullptr;
};

// Describes a peer whose two classes are constructed from a PeerSetup.
template <typename Server, typename Client>
PeerInfo DescribePeer(std::string name) {
  PeerInfo info;
  info.name = std::move(name);
  info.make_server = [](const PeerSetup& setup) -> std::unique_ptr<ServerSide> {
    return std::make_unique<Server>(setup);
  };
  info.make_client = [](const PeerSetup& setup) -> std::unique_ptr<ClientSide> {
    return std::make_unique<Client>(setup);
  };
  return info;
}

// All peers, in the order in which they are listed to users.
const std::vector<PeerInfo>& AllPeers();

// Null when there is none of that name.
const PeerInfo* FindPeer(absl::string_view name);

// The families, one file each.
std::vector<PeerInfo> ShmrpcPeers();       // shm, tcp, unix, inproc
std::vector<PeerInfo> GrpcPeers();         // grpc-unix, grpc-tcp
std::vector<PeerInfo> RingFloorPeers();    // floor-ring
std::vector<PeerInfo> PoolFloorPeers();    // floor-pool
std::vector<PeerInfo> MemoryFloorPeers();  // floor-cacheline, floor-memcpy
std::vector<PeerInfo> SocketFloorPeers();  // floor-unix, floor-tcp

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_PEER_H_
