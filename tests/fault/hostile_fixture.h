#ifndef SHMRPC_TESTS_FAULT_HOSTILE_FIXTURE_H_
#define SHMRPC_TESTS_FAULT_HOSTILE_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "native_peer.h"
#include "shmrpc/shmrpc.h"
#include "stream_services.h"
#include "sync.h"

namespace shmrpc::fault {

inline constexpr absl::string_view kEchoMethod = "/shmrpc.conformance.Echo/Echo";
inline constexpr absl::string_view kChatMethod = "/shmrpc.conformance.Streams/Chat";
inline constexpr absl::string_view kCountMethod = "/shmrpc.conformance.Streams/Count";

// An honest client: a connection with a call that the server holds from the beginning to the end, so that it shows if
// the connection is lost in between, whatever the channel does about it. Not thread-safe.
class Neighbour {
 public:
  Neighbour(const Target& address, TransportPreference way, bool held = true);
  ~Neighbour();

  // Makes calls and checks their replies.
  void ExpectServed(int calls = 20);
  // The server has released held calls.
  void ExpectHeldCallWasServed();

 private:
  conformance::Echo::Stub stub_;
  ClientContext context_;
  conformance::EchoReply reply_;
  absl::Status status_;
  conformance::Event ended_;
};

// What every test with a hostile peer looks at, on whichever side the peer is: that a server beside it goes on serving
// its honest clients, over shared memory and over TCP, and that nothing is left of the peer's connections. The peer,
// the server, and the clients are all of one process, so what is left anywhere is found.
//
// A test closes what it has opened itself; then TearDown looks.
class HostileTest : public testing::Test {
 protected:
  HostileTest();
  void SetUp() override;
  void TearDown() override;

  // Of the server: host:port with a rendezvous, and a Unix socket.
  const Target& address() const { return server_->addresses()[0]; }
  const Target& unix_address() const { return server_->addresses()[1]; }
  uint16_t port() const { return address().port; }

  // Held calls that are not the neighbours', and of those the cancelled ones.
  bool WaitForHeldCalls(int count) { return service_.held().WaitFor(kNeighbours + held_before_ + count); }
  bool WaitForCancelledCalls(int count) { return service_.cancelled().WaitFor(cancelled_before_ + count); }

  // The calls of the neighbours that are made meanwhile.
  void ExpectNeighboursServed(int calls = 20);

  conformance::EchoService& service() { return service_; }
  conformance::StreamCounters& stream_counters() { return stream_counters_; }

 private:
  static constexpr int kNeighbours = 2;

  struct Holdings {
    int descriptors = 0;
    int mappings = 0;
    bool operator==(const Holdings& other) const {
      return descriptors == other.descriptors && mappings == other.mappings;
    }
  };
  static Holdings Count();
  // When they have not changed for a while.
  static Holdings CountSettled();

  void StartServer();
  void StopServer();

  conformance::EchoService service_;
  conformance::StreamCounters stream_counters_;
  const std::unique_ptr<Service> streams_;
  std::unique_ptr<Server> server_;
  std::vector<std::unique_ptr<Neighbour>> neighbours_;
  int held_before_ = 0;
  int cancelled_before_ = 0;
  int threads_before_ = 0;
  Holdings holdings_before_;
};

// ---- What a native client says.

// Announces Echo, Chat and Count as the methods 0, 1 and 2.
void AnnounceMethods(NativeConnection& connection);
inline constexpr uint16_t kEchoNumber = 0;
inline constexpr uint16_t kChatNumber = 1;
inline constexpr uint16_t kCountNumber = 2;
inline constexpr uint16_t kNextNumber = 3;

NativeFrame EchoRequestFrame(uint64_t call_id, const conformance::EchoRequest& request = {});
// Calls Echo, and checks the reply.
void ExpectEchoOver(NativeConnection& connection, uint64_t call_id);

}  // namespace shmrpc::fault

#endif  // SHMRPC_TESTS_FAULT_HOSTILE_FIXTURE_H_
