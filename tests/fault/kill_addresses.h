#ifndef SHMRPC_TESTS_FAULT_KILL_ADDRESSES_H_
#define SHMRPC_TESTS_FAULT_KILL_ADDRESSES_H_

#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "shmrpc/shmrpc.h"

namespace shmrpc::conformance {

// How a client may go to a server, by one of its addresses.
struct Way {
  TransportPreference transport;
  std::string address;
};

// Where a server listens that is started again and again, and which no other test uses. Removes what a server that was
// killed has left behind.
class KillAddresses {
 public:
  KillAddresses() {
    char directory[] = "/tmp/shmrpc-kill-XXXXXX";
    if (mkdtemp(directory) == nullptr) ADD_FAILURE() << "no directory for the socket";
    directory_ = directory;
    unix_ = absl::StrCat("unix:", directory_, "/socket");
    // Of all the addresses of this host's loopback interface one of its own: so the port stays free between two
    // servers.
    tcp_ = absl::StrCat("127.", 64 + (getpid() >> 16) % 64, ".", (getpid() >> 8) % 256, ".", getpid() % 256, ":21907");
  }
  ~KillAddresses() {
    unlink(absl::StrCat(directory_, "/socket").c_str());
    EXPECT_EQ(rmdir(directory_.c_str()), 0);
  }
  KillAddresses(const KillAddresses&) = delete;
  KillAddresses& operator=(const KillAddresses&) = delete;

  const std::string& tcp() const { return tcp_; }
  const std::string& unix_socket() const { return unix_; }

  // Shared memory twice: led to by TCP, and by the path of a socket.
  std::vector<Way> Ways() const {
    return {{TransportPreference::kShm, tcp_},
            {TransportPreference::kTcp, tcp_},
            {TransportPreference::kUnix, unix_},
            {TransportPreference::kShm, unix_}};
  }

 private:
  std::string directory_;
  std::string tcp_;
  std::string unix_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_KILL_ADDRESSES_H_
