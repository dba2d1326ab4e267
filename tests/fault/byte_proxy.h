#ifndef SHMRPC_TESTS_FAULT_BYTE_PROXY_H_
#define SHMRPC_TESTS_FAULT_BYTE_PROXY_H_

// A wire between a client and a server that breaks when a test says so.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "shmrpc/mutex.h"

namespace shmrpc::conformance {

// Takes connections at an address of its own, makes one to a server for each, and passes on what comes, both ways. TCP
// and Unix sockets, whatever is spoken over them; no descriptors, so that what goes over shared memory does not pass.
//
// A thread for each connection, which ends with it; the destructor ends those that are left. Thread-safe.
class ByteProxy {
 public:
  static constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

  enum class End {
    kClose,  // both sides get all that has passed, and then the end
    kReset,  // both sides are reset; what they have not read yet may be lost
  };

  // What becomes of one connection.
  struct Rules {
    size_t client_bytes = kNoLimit;  // the connection ends as soon as so many bytes of the client have passed
    size_t server_bytes = kNoLimit;  // or so many of the server
    End end = End::kClose;
    size_t segment_bytes = kNoLimit;  // how much is sent at once, without waiting for more
  };

  // `server_address` as a client writes it. Next to a Unix socket there will be another one while this object lives.
  // `rules` is asked once for each connection, on a thread of the proxy. A mistake fails the test.
  ByteProxy(absl::string_view server_address, std::function<Rules()> rules);
  ~ByteProxy();
  ByteProxy(const ByteProxy&) = delete;
  ByteProxy& operator=(const ByteProxy&) = delete;

  // Where clients find it.
  const std::string& address() const { return address_; }

  // What has passed so far, on all connections.
  uint64_t client_bytes() const;
  uint64_t server_bytes() const;

  // Connections that were taken, and those that have not ended at both sides yet.
  int taken() const;
  int open() const;

 private:
  class Relay;

  int Connect() const;  // to the server; -1 when that fails
  void Accept();
  void Run(int client);

  std::string address_;
  std::string own_path_;     // of the Unix socket; empty: TCP
  std::string server_path_;  // the same of the server
  uint16_t server_port_ = 0;
  const std::function<Rules()> rules_;
  int listener_ = -1;
  int stop_ = -1;  // an eventfd: readable when all is to end

  mutable Mutex mutex_;
  std::list<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  uint64_t client_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t server_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int taken_ ABSL_GUARDED_BY(mutex_) = 0;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;

  std::thread acceptor_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_BYTE_PROXY_H_
