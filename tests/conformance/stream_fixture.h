#ifndef SHMRPC_TESTS_CONFORMANCE_STREAM_FIXTURE_H_
#define SHMRPC_TESTS_CONFORMANCE_STREAM_FIXTURE_H_

#include <memory>
#include <utility>

#include "fixture.h"
#include "stream_services.h"

namespace shmrpc::conformance {

// The base of the tests of streams: a server that has Streams in one style beside Echo.
class ConformanceStreamTest : public ConformanceTest {
 protected:
  ~ConformanceStreamTest() override {
    service_.Release();
    server_.reset();  // before the service and the counters
  }

  // Replaces the server by one in this style. `configure` may add options.
  template <typename Configure>
  void StartStreams(ServerStyle style, Configure configure) {
    server_.reset();
    counters_ = std::make_unique<StreamCounters>();
    streams_ = MakeStreamService(style, counters_.get());
    ServerBuilder builder = NewServerBuilder();
    builder.Register(streams_.get());
    configure(builder);
    StartServer(std::move(builder), NewListenAddress());
  }
  void StartStreams(ServerStyle style) {
    StartStreams(style, [](ServerBuilder&) {});
  }

  std::unique_ptr<StreamCounters> counters_;
  std::unique_ptr<shmrpc::Service> streams_;
};

inline Item MakeItem(uint64_t number, size_t payload_bytes = 0) {
  Item item;
  item.set_number(number);
  item.set_payload(RandomBytes(payload_bytes, number));
  return item;
}

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_CONFORMANCE_STREAM_FIXTURE_H_
