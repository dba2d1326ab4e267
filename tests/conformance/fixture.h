#ifndef SHMRPC_TESTS_CONFORMANCE_FIXTURE_H_
#define SHMRPC_TESTS_CONFORMANCE_FIXTURE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "process_state.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"
#include "transport_case.h"

namespace shmrpc::conformance {

// True when this program is built with AddressSanitizer or ThreadSanitizer.
bool UnderSanitizer();

// `count`, or a smaller number under a sanitizer, where everything takes ten times as long.
int Scaled(int count);

// Bytes that look random, always the same for the same arguments.
std::string RandomBytes(size_t size, uint64_t seed);

// For tests with a thousand channels in one process: allows as many descriptors as the process may have, which is more
// than the usual 1024.
void RaiseDescriptorLimit();

// A directory in TMPDIR that is removed, with what is in it, at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The base of every conformance test. A test says where it listens and connects only through this class, so that it
// runs over every transport. Objects go in this order: the test's own, then the server, then the service.
class ConformanceTest : public testing::TestWithParam<TransportCase> {
 protected:
  ConformanceTest();
  ~ConformanceTest() override;

  // A builder for this case's transport with the service registered; the caller adds options and an address.
  ServerBuilder NewServerBuilder();

  // A server of its own for `service_` at listen_address(), or at `address`. Fails the test when it does not start.
  void StartServer();
  void StartServer(ServerBuilder builder, std::string_view address);

  // Where a server can listen that clients of this case are to reach: each time another address.
  std::string NewListenAddress() const;

  // One of those, for the test's main server.
  const std::string& listen_address() const { return listen_address_; }

  // Where the server that StartServer started listens, as clients write it.
  std::string server_address() const;

  // With the case's transport preference, and back-off short enough for tests that restart servers.
  ChannelOptions NewChannelOptions() const;
  std::shared_ptr<Channel> NewChannel() const { return NewChannel(NewChannelOptions()); }
  std::shared_ptr<Channel> NewChannel(const ChannelOptions& options) const;
  std::shared_ptr<Channel> NewChannelTo(std::string_view address) const;

  // Calls Echo on `channel` with `payload` and checks the reply.
  static void ExpectEcho(const std::shared_ptr<Channel>& channel, const std::string& payload = "still alive");

  // The same, but waits until there is a connection.
  static void ExpectEchoWhenReady(const std::shared_ptr<Channel>& channel);

  const std::string& directory() const { return directory_.path(); }

  const TemporaryDirectory directory_;
  const std::string listen_address_;
  EchoService service_;
  std::unique_ptr<Server> server_;
};

// For tests that need a server in another process.
class ConformanceProcessTest : public ConformanceTest {};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_FIXTURE_H_
